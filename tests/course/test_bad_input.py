"""Every command, every argument and option, every kind of bad value: one line and exit status 2, if it is bad."""

import errno
import json
import os
import random
import shlex
import signal
import subprocess
import sys

import click
import pytest
from hunt import hunt
from tiny import talker

from lib.course.cli import course, main
from lib.course.headless.runner import Result
from lib.lesson import series

pytestmark = pytest.mark.usefixtures("one_thread")

NUMBERS = ["", " ", "x", "-1", "0", "1.5", "1e3", "0x10", "9" * 19, "9" * 25, "9" * 5000, "٣", "²", "nan", "inf",
           "-inf", "1e400", "-0.0", "1_0", "--help-me", "{0}", "\udcff"]  # fmt: skip
TEXTS = ["", " ", "\udcff", "a\udce9b", "\x1b[31mred", "[bold]", "{0}", "{", "%s", "-", "..", "ż" * 300, "a" * 100_000,
         "🙂", "مرحبا", "订单", "\u202etxt", "a\nb", "a\tb"]  # fmt: skip
PATHS = ["", ".", "..", "/", "/dev/null", "/proc/self/mem", "{missing}", "{file}", "{file}/x", "{folder}", "{pipe}",
         "{loop}", "{shut}", "{long}", "{braces}", "{markup}", "{bytes}",
         "{empty}", "{binary}", "{deep}", "~nobody/x", "-"]  # fmt: skip

# What makes each command as short as it can be, and what is not to happen in a test: a server, a browser, an hour.
SMALL = "--preset smoke --steps 2 --eval-every 2 --eval-batches 1 --batch-size 2 --d-model 16 --text {text} --out {new}"
BASE = {
    "data": "", "doctor": "", "lessons": "", "progress": "", "size": "gpt2", "use": "--list", "run": "02 --out {new}",
    "generate": "--model {talker} --prompt a --max-new-tokens 2", "serve": "--model {talker} --port 0",
    "explore": "{talker} --out {new}", "mine": "--model {talker} --tokens 1", "grade": "{empty_folder} --out {new}",
    "lab": "--dir {new} --update", "measure": "02 --preset smoke",
    "refresh": "--no-run 02", "release": "--lessons 02 --out {new}", "site": "--lessons 02 --out {new}", "train": SMALL,
}  # fmt: skip


def cases():
    """(command, its parameter's name, how it is given, a bad value for it)."""
    for command in course.list_commands(None):
        for parameter in course.get_command(None, command).params:
            if getattr(parameter, "is_flag", False) and not parameter.secondary_opts:
                continue
            kind = parameter.type
            numbers = isinstance(kind, click.types.IntParamType | click.types.FloatParamType) or kind.name == "amount"
            values = NUMBERS if numbers else PATHS if _is_path(command, parameter) else TEXTS
            for value in values:
                how = [parameter.opts[0]] if isinstance(parameter, click.Option) else []
                yield command, parameter, [*how, *(["seed"] if parameter.nargs == 2 else []), value]


def _is_path(command, parameter):
    places = {("size", "source"), ("generate", "source"), ("serve", "source"), ("serve", "adapter"), ("grade", "db"),
              ("run", "names"), ("refresh", "names"), ("explore", "source")}  # fmt: skip
    return isinstance(parameter.type, click.Path) or (command, parameter.name) in places


CASES = [(command, words) for command, _, words in cases()]
SOME = random.Random(f"{os.environ.get('COURSE_TEST_SEED', 0)}").sample(CASES, hunt(120, len(CASES)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return talker(tmp_path_factory.mktemp("talker"))


@pytest.fixture
def places(tmp_path, model):
    """The names in BASE and PATHS as what they say."""
    text = tmp_path / "text.txt"
    text.write_text("Ein Text, lang genug, um zu lernen.\n" * 40)
    plain = "new missing folder empty_folder pipe loop shut empty binary deep".split()
    made = {name: tmp_path / name for name in plain} | dict(
        text=text, file=text, talker=model, long=tmp_path / ("a" * 300), braces=tmp_path / "a{b}{0}{",
        markup=tmp_path / "[red]x", bytes=tmp_path / "a\udcffb",
    )  # fmt: skip
    for name in ("folder", "empty_folder"):
        made[name].mkdir()
    (made["folder"] / "x.txt").write_text("mine")
    os.mkfifo(made["pipe"])
    made["loop"].symlink_to(made["loop"])
    made["shut"].mkdir(mode=0)
    made["empty"].write_bytes(b"")
    made["binary"].write_bytes(bytes(range(256)) * 10)
    made["deep"].write_text("[" * 100_000)
    return made


@pytest.fixture
def harmless(monkeypatch, tmp_path):
    """Whatever a command would do for long, or for ever, or to the machine, does nothing; at its own door."""
    from lib.course.authoring import bands, renewal
    from lib.course.commands import lab, site
    from lib.course.headless import runner
    from lib.course.setup import machine
    from lib.inference import server
    from lib.sources import catalogue
    from lib.view import host

    def ran(jobs, *_, **__):
        return [Result(job.name, "", job.preset, "ok", 0.0, 1) for job in jobs]

    monkeypatch.setattr(runner, "run", ran)
    monkeypatch.setattr(bands, "measure", lambda *_: [])
    monkeypatch.setattr(renewal, "refresh", lambda *_, **__: False)
    monkeypatch.setattr(lab, "_become", lambda *_: 0)
    monkeypatch.setattr(site, "_render", lambda pages, made, doctrees: made.mkdir())
    monkeypatch.setattr(machine, "examine", list)
    monkeypatch.setattr(catalogue, "fetch", lambda names, progress: [catalogue.select(names), []][1])
    monkeypatch.setattr(server.Server, "run", lambda *_: None)
    monkeypatch.setattr(host.Host, "serve_forever", lambda *_: None)
    monkeypatch.setattr("click.confirm", lambda *_, **__: True)
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def too_long(*_):
    raise AssertionError("a command that waits for ever")


def ended(words, capsys):
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(120)
    try:
        with pytest.raises(SystemExit) as end:
            main(words)
    finally:
        signal.alarm(0)
    told = capsys.readouterr()
    assert end.value.code in (0, 1, 2), told
    if end.value.code == 2:
        lines = told.err.splitlines()
        assert lines[-1].startswith("course: ") and len(lines[-1]) < 2000, told.err[-3000:]
        assert sum(line.startswith("course: ") for line in lines) == 1, told.err[-3000:]
        assert not {"Traceback", "Errno"} & set(lines[-1].replace("[", " ").split()), lines[-1]
    return end.value.code, told


@pytest.mark.parametrize(("command", "words"), SOME, ids=lambda part: ascii(part)[:60])
def test_a_bad_value_is_one_line(command, words, places, harmless, capsys):
    names = {name: str(path) for name, path in places.items()}
    base = [word.format(**names) if word[1:-1] in names else word for word in shlex.split(BASE[command])]
    bad = [names[word[1:-1]] if word[1:-1] in names and word[0] == "{" else word for word in words]
    if not bad[0].startswith("-") and command not in ("grade", "run", "measure", "refresh", "use", "lab", "data"):
        base = [word for word in base if word not in ("gpt2", names["talker"])]
    ended([command, *base, *bad], capsys)


def test_the_table_has_every_command():
    assert sorted(BASE) == course.list_commands(None)
    assert {command for command, _ in CASES} >= set(BASE) - {"doctor", "lessons"}


# --- streams ---


@pytest.mark.parametrize("command", ["lessons", "--help", "size gpt2 --json", "size --list", "progress"])
@pytest.mark.parametrize(("where", "status"), [
    (">/dev/full", 2), ("| true", 0), (">&-", 0), ("2>&-", 0), ("<&-", 0), (">&- 2>&- <&-", 0), ("2>/dev/full", 0),
])  # fmt: skip
def test_wherever_the_output_goes(tmp_path, command, where, status):
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m lib.course {command} {where}"
    home = os.environ | {"COURSE_HOME": str(tmp_path)}
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=home)
    assert ran.returncode == status, ran
    assert ran.stderr.splitlines() == ["course: the output cannot be written (No space left on device); "
                                       "send it somewhere else"] * (status == 2)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16"])
def test_a_terminal_that_has_not_the_letters(encoding, tmp_path, model):
    line = [sys.executable, "-m", "lib.course", "lessons"]
    ran = subprocess.run(line, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert ran.returncode == 0 and "02_attention" in ran.stdout.decode(encoding), ran.stderr


def test_what_the_system_refuses_is_a_line(monkeypatch, capsys):
    for problem, says in ((PermissionError(errno.EACCES, "Permission denied", "/there"), "/there: Permission denied"),
                          (OSError(errno.EIO, "Input/output error"), "cannot be written (Input/output error)"),
                          (RecursionError(), "nested too deeply"), (MemoryError(), "not enough memory")):  # fmt: skip
        def broken(*_, problem=problem):
            raise problem

        monkeypatch.setattr(series, "find", broken)
        code, told = ended(["lessons"], capsys)
        assert code == 2 and says in told.err


def test_a_folder_whose_name_is_not_utf_8(tmp_path, places, monkeypatch, capsys, harmless):
    """Not typed, but worked in, or named by a variable."""
    places["bytes"].mkdir()
    monkeypatch.chdir(places["bytes"])
    (places["bytes"] / "text").write_bytes(places["text"].read_bytes())
    small = ["--preset", "smoke", "--steps", "1", "--d-model", "16"]
    code, told = ended(["train", *small, "--text", "text", "--out", "run"], capsys)
    assert code == 2 and "not UTF-8" in told.err and "\\udcff" in told.err
    monkeypatch.setenv("COURSE_WORKSPACE", str(places["bytes"] / "w"))
    monkeypatch.setenv("COURSE_HOME", str(places["bytes"] / "h"))
    for words in ("lab --update", "progress --export p.json", "use --list", "release --out r"):
        ended(words.split(), capsys)


def test_a_mistake_of_ours_stays_what_it_is(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(series, "find", broken)
    with pytest.raises(ZeroDivisionError):
        main(["lessons"])


# --- pipes ---


@pytest.mark.parametrize("text", ["-", "{pipe}", "/dev/zero"])
def test_a_text_that_can_be_read_only_once(text, tmp_path, places, capsys):
    code, told = ended(["train", "--out", str(tmp_path / "run"), "--text", text.format(**places)], capsys)
    assert code == 2 and not told.out and len(told.err.splitlines()) == 1, told.err
    assert "save" in told.err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["<(cat {text})", "/dev/stdin"])
def test_a_text_that_comes_through_a_shells_pipe(text, tmp_path, places):
    text = text.format(**places)
    command = f"{shlex.quote(sys.executable)} -m lib.course train --out {tmp_path}/run"
    line = f"cat {places['text']} | {command} --text {text}"
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2 and not ran.stdout and len(ran.stderr.splitlines()) == 1, ran.stderr
    assert "save" in ran.stderr and not (tmp_path / "run").exists()


# --- what is written is JSON ---


def test_everything_that_lib_writes_as_json_is_json():
    """json.dumps writes NaN, which no other reader takes, unless it is told not to."""
    import ast

    from lib.sources.places import ROOT

    free = []
    for path in sorted((ROOT / "lib").rglob("*.py")):
        if path.parent.name == "grading" and path.stem not in ("exports", "feedback", "gradebook"):
            continue  # between two processes of the judge, who are both its own
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
                if not any(word.arg == "allow_nan" and ast.unparse(word.value) == "False" for word in node.keywords):
                    free.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not free, "say allow_nan=False here"
    with pytest.raises(ValueError):
        json.dumps(float("nan"), allow_nan=False)
