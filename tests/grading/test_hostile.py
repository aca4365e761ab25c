"""The whole corpus of tests/hostile, graded by the real command, as one class.

Every submission gets exactly what it deserves or a reason why it cannot be graded; nothing escapes, nothing is left
running, and nobody's grade is moved by who else is in the class. The last tests show that this could fail.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
from forked import Fork
from hostile import CORPUS
from hostile.entry import KINDS, Entry, Place
from hostile.reaching import SPY
from hunt import hunt

from lib.course.cli import main
from lib.errors import CourseError
from lib.exercises.exercise import exercises
from lib.grading.cleaning import clean
from lib.grading.walls import bwrap
from lib.sources.places import ROOT

# What only the limit of time ends: a class of its own, with less of it. Two more are among all the others.
ENDLESS = {"hang_in_c", "hang_at_definition", "hang_in_another_lesson", "stops_itself", "fork_bomb", "output_flood",
           "callback_flood", "keys_that_collide", "drips"}  # fmt: skip
# What may run without walls: these look at, and write to, nothing but what the test itself has made.
HARMLESS = {"good_plain", "other_learners", "network", "local_sockets", "writes_outside", "daemons"}
COURSE = "import sys; from lib.course.cli import main; sys.exit(main())"
FRUGAL = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def why_not() -> str:
    """Why this machine cannot isolate anything, "" if it can."""
    try:
        bwrap()
    except CourseError as error:
        return str(error)
    line = [*bwrap(), "--ro-bind", "/", "/", "--unshare-user", "--unshare-pid", "true"]
    done = subprocess.run(line, capture_output=True)
    return done.stderr.decode()


needs_isolation = pytest.mark.skipif(bool(why_not()), reason=f"no isolation here: {why_not()}")


@dataclass
class Listener:
    """What an escape could reach on this machine: TCP and UDP on loopback, a socket by name, one by path."""

    drop: Path
    token: str
    heard: list[str] = field(default_factory=list)

    def __enter__(self):
        self.sockets = []
        tcp = self._open(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        self._open(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", self.port))
        self._open(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self.token)
        self._open(socket.AF_UNIX, socket.SOCK_STREAM, str(self.drop / "socket"))
        (self.drop / "socket").chmod(0o777)
        return self

    def _open(self, family, kind, address):
        s = socket.socket(family, kind)
        s.bind(address)
        if kind == socket.SOCK_STREAM:
            s.listen()
        self.sockets.append(s)
        threading.Thread(target=self._hear, args=(s, kind), daemon=True).start()
        return s

    def _hear(self, s, kind):
        with contextlib.suppress(OSError):  # closed
            while True:
                if kind == socket.SOCK_DGRAM:
                    if packet := s.recv(100):  # empty when it is shut down
                        self.heard.append(f"connected from somewhere, said {packet}")
                    continue
                line, peer = s.accept()
                self.heard.append(f"connected from {peer}")
                with line, contextlib.suppress(OSError):  # closed before the other has spoken, it would see an error
                    line.settimeout(1)
                    line.recv(100)

    def __exit__(self, *_):
        for s in self.sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)  # wakes who waits in it
            s.close()


class Class:
    """A class in a folder of its own, and what grading it left behind."""

    def __init__(self, entries, top: Path):
        self.entries, self.top, self.token = entries, top, secrets.token_hex(8)
        self.folder, self.out, self.drop = top / "class", top / "out", top / "drop"
        self.read = None
        for folder in (self.folder, self.drop):
            folder.mkdir(parents=True)
        self.drop.chmod(0o777)

    def build(self, port=1):
        self.place = Place(str(self.folder), str(self.out), str(ROOT), str(self.drop), self.token, port)
        self.paths = {entry.name: entry.write(self.place) for entry in self.entries}
        return self

    def grade(self, *options, python=(sys.executable,), env=(), timeout=400, patience=5.0, forked=False):
        """forked: in a fork of this process, which has loaded everything, instead of one that begins anew."""
        if "--unsandboxed" in options:  # as the user who runs the tests, on their machine
            assert {entry.name for entry in self.entries} <= HARMLESS
        with Listener(self.drop, self.token) as listener:
            if not hasattr(self, "paths"):
                self.build(listener.port)
            words = ["grade", str(self.folder), "--out", str(self.out), *options]
            more = FRUGAL | {"COURSE_SECRET": "CANARY-" + self.token, "COLUMNS": "200"} | dict(env)
            with adopted(patience) as left:
                if forked:
                    self.done = fork(*words, cwd=self.top, **more)
                else:
                    self.done = subprocess.run([*python, "-c", COURSE, *words], env=os.environ | more, text=True,
                                               capture_output=True, errors="replace", timeout=timeout,
                                               stdin=subprocess.DEVNULL, cwd=self.top)  # fmt: skip
            self.left = left
        self.heard, self.read = listener.heard, None
        return self

    @property
    def said(self):
        return self.done.stdout + self.done.stderr

    def standings(self):
        from lib.grading.gradebook import Gradebook

        with Gradebook(self.out / "gradebook.sqlite") as book:
            return {standing.learner: standing for standing in book.standings()}

    def results(self):
        """{entry: ({exercise: points}, [reasons why something was not graded], {exercise: flags})}, read once."""
        if self.read is None:
            self.read = self._results()
        return self.read

    def _results(self):
        by_path = {}
        for standing in self.standings().values():
            for report in standing.reports:
                points, problems, flags = by_path.setdefault(learner_of(report.path, self.folder), ({}, [], []))
                points |= {g.exercise: g.points for g in report.grades}
                problems += [report.problem] if report.problem else []
                flags += [flag.what for flag in report.flags]
        nothing = ({}, [], [])
        return {name: by_path.get(shown(path.name), nothing) for name, path in self.paths.items()}

    def evidence(self):
        """All that speaks of an escape: files dropped, packets received, texts in what the grader wrote."""
        found = [f"dropped {p.name}" for p in self.drop.iterdir() if p.name != "socket"]
        found += self.heard
        written = {p: p.read_bytes() for p in self.out.rglob("*") if p.is_file()} if self.out.exists() else {}
        for path, data in {**written, Path("terminal"): self.said.encode()}.items():
            for mark in (b"ESCAPED:", b"CANARY-"):
                if mark in data:
                    found.append(f"{path.name}: {data[data.index(mark):][:200]!r}")
        return found


def fork(*words, cwd: Path, **environment) -> subprocess.CompletedProcess:
    """The command in a fork of this process."""
    with tempfile.TemporaryDirectory() as top:
        said = Path(top, "said")
        status = Fork(main, [*map(str, words)], said=said, folder=cwd, **environment).wait(400)
        return subprocess.CompletedProcess(words, status, said.read_text(errors="replace"), "")


def shown(name: str) -> str:
    """A name as the gradebook keeps it."""
    return clean(name)


def learner_of(path: str, folder: Path) -> str:
    return path.removeprefix(str(folder) + "/").split("/")[0]


@contextlib.contextmanager
def adopted(patience: float = 5.0):
    """Every process started meanwhile that outlives its parent becomes our child: they are listed, then killed.

    patience: the seconds they get, for to die of the grader's death takes a moment.
    """
    import ctypes

    libc, left, before = ctypes.CDLL(None), [], {p.pid for p in psutil.Process().children()}
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    try:
        yield left
    finally:
        deadline = time.monotonic() + patience
        while (rest := alive(before)) and time.monotonic() < deadline:
            time.sleep(0.05)
        left += [(p.pid, p.name()) for p in rest]
        for process in rest:
            with contextlib.suppress(psutil.Error):
                process.kill()
        libc.prctl(36, 0, 0, 0, 0)


def alive(before):
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                if process.pid not in before:
                    os.waitpid(process.pid, os.WNOHANG)
            elif process.pid not in before:
                found.append(process)
    return found


def files(folder):
    return sorted(os.path.relpath(f"{here}/{name}", folder) for here, _, names in os.walk(folder) for name in names)


# ------------------------------------------------------------------------------------------- the corpus itself


def test_the_corpus_is_large_enough():
    assert len(CORPUS) >= 60
    assert len({entry.name for entry in CORPUS}) == len(CORPUS)
    for kind in KINDS:
        assert sum(entry.kind == kind for entry in CORPUS) >= 8, kind


# ------------------------------------------------------------------------------------------- one class of them all


@pytest.fixture(scope="module")
def top():
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def alone(top):
    """The honest ones by themselves."""
    honest = [entry for entry in CORPUS if entry.kind == "honest"]
    return Class(honest, top / "alone").grade("--timeout", "12", "--seed", "7", "--jobs", "1")


@pytest.fixture(scope="module")
def everyone(top, alone):
    rest = [entry for entry in CORPUS if entry.name not in ENDLESS]
    return Class(rest, top / "everyone").grade("--timeout", "6", "--seed", "7")


@pytest.fixture(scope="module")
def endless(top):
    some = Class(chosen("good_plain", *sorted(ENDLESS)), top / "endless")
    return some.grade("--timeout", "2.5", "--seed", "7", forked=True)


@needs_isolation
@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_exactly_what_is_deserved(entry, request):
    seen = request.getfixturevalue("endless" if entry.name in ENDLESS else "everyone")
    points, problems, flags = seen.results()[entry.name]
    assert points == entry.points, problems
    if entry.problem:
        assert any(entry.problem in problem for problem in problems), problems
    else:
        assert not problems
    for flag in entry.flags:
        assert any(flag in what for what in flags), flags


@needs_isolation
def test_no_evidence_of_an_escape(everyone, endless):
    assert everyone.evidence() == endless.evidence() == []


@needs_isolation
def test_no_process_is_left(everyone, endless):
    assert everyone.left == endless.left == []


@needs_isolation
def test_nothing_was_written_into_the_class(everyone, endless, top):
    again = Class(CORPUS, top / "again").build(everyone.place.PORT)
    for name, path in (everyone.paths | endless.paths).items():
        if not path.is_symlink():
            assert files(path) == files(again.paths[name])


@needs_isolation
def test_no_honest_grade_moved(alone, everyone, endless):
    before, after = alone.results(), everyone.results()
    assert before == {name: after[name] for name in before}
    assert endless.results()["good_plain"] == before["good_plain"]


@needs_isolation
def test_the_command_says_what_was_left_out(everyone):
    assert everyone.done.returncode == 1, everyone.said
    assert "Traceback" not in everyone.said, everyone.said
    assert "Not graded:" in everyone.said and "Worth a person's look:" in everyone.said


@needs_isolation
def test_a_terminal_is_told_nothing_by_learners(tmp_path):
    """No escape sequence of theirs reaches it, from a name, a reason or a flag."""
    escapes = "\x1b]0;owned\x07 [bold] [/x] \u202e \x9b2J"
    names = [f"left out {escapes}".replace("/", "").encode(), b"caf\xe9 \xff \x1b[31m", b"new\nline"]
    odd = [replace(e, path=path) for e, path in zip(chosen("empty_folder", "not_json", "no_cells"), names, strict=True)]
    raising = Entry("raises", answers={"02.causal_mask": f"raise RuntimeError({escapes!r})"}, path="raises \x1b[2J")
    seen = Class([*odd, raising], tmp_path).grade("--timeout", "6", "--jobs", "1", forked=True)
    assert seen.done.returncode == 1 and seen.said.count("left out") == 1, seen.said
    assert [c for c in seen.said if not c.isprintable() and c != "\n"] == []
    assert "Traceback" not in seen.said


@needs_isolation
def test_pages_and_tables_hold_no_code_of_learners(everyone):
    pages = list(everyone.out.rglob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text and "<img src=x" not in text, page
    for table in everyone.out.rglob("*.csv"):
        text = table.read_text(encoding="utf-8")
        assert "\n=" not in text and '"=' not in text and ",=" not in text, table
    inside = os.path.realpath(everyone.out)
    assert all(os.path.realpath(p).startswith(inside) for p in everyone.out.rglob("*"))


# ------------------------------------------------------------------------------------------- as an ordinary user

FEW = ["good_plain", "name_hides_memory_that_is_used", "children_that_reap_themselves", "half_a_character",
        "tensor_equal_to_all", "counts_the_calls", "other_learners", "network", "local_sockets",
       "environment", "other_processes", "writes_outside", "namespaces_and_mounts", "descriptors", "kernel_settings",
       "hang_that_ignores_signals", "daemons", "memory", "fork_bomb", "disk", "segfault", "link_to_another_notebook",
       "not_json", "helper_in_another_cell"]  # fmt: skip
SOME = hunt(FEW, [entry.name for entry in CORPUS])
NOBODY = 65534


def chosen(*names):
    return [next(entry for entry in CORPUS if entry.name == name) for name in names]


@pytest.fixture(scope="module")
def ordinary(top):
    """A few of them, graded by a user who is nobody: this one, or, for root, another."""
    few = Class(chosen(*SOME), top / "ordinary")
    if os.getuid() != 0:
        return few.grade("--timeout", "6")
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv here to become an ordinary user")
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    top.chmod(0o755)
    copy = top / "checkout"
    leave = shutil.ignore_patterns(".git", ".venv", "build", "data", "__pycache__", ".*cache")
    shutil.copytree(ROOT, copy, ignore=leave)
    python = readable_python(top, become)  # and who becomes nobody to run it
    few.out.mkdir()
    for path in (few.out, few.folder):
        path.chmod(0o777)
    return few.grade("--timeout", "6", python=python, env={"PYTHONPATH": str(copy), "HOME": str(few.out)})


def readable_python(top, become):
    """A Python with our packages that an ordinary user may read: ours, or one of this version that has our packages in
    a file system of its own, or, where none may be mounted, links to them. The command that starts it as that user."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"

    def works(*line, first=""):
        tell = "import sys; print('%d.%d' % sys.version_info[:2])"  # in a process that it starts, as the grader does
        code = f"{first}\nimport subprocess, sys\nsubprocess.run([sys.executable, '-c', {tell!r}], check=True)"
        done = subprocess.run([*line, "-I", "-c", code], capture_output=True, text=True)
        return done.stdout.strip() == version

    if works(*become, sys.executable, first="import torch"):
        return [*become, sys.executable]
    for base in (f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        if os.path.exists(base) and works(*become, base):
            subprocess.run([base, "-m", "venv", "--without-pip", top / "venv"], check=True)
            ours, theirs = sysconfig.get_path("purelib"), top / "venv" / "lib" / f"python{version}" / "site-packages"
            python = str(top / "venv" / "bin" / "python")
            mount = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh"]
            if works(*mount, ours, theirs, *become, python, first="import torch"):
                return [*mount, ours, theirs, *become, python]
            linked = subprocess.run(["cp", "-alT", ours, theirs], capture_output=True)
            if linked.returncode == 0 and works(*become, python, first="import torch"):
                return [*become, python]
    pytest.skip(f"no Python {version} here that an ordinary user may read")


@needs_isolation
@pytest.mark.parametrize("name", SOME)
def test_an_ordinary_user_grades_the_same(name, ordinary):
    [entry] = chosen(name)
    points, problems, _ = ordinary.results()[name]
    assert points == entry.points, (problems, ordinary.said)


@needs_isolation
def test_an_ordinary_user_is_as_safe(ordinary):
    assert ordinary.evidence() == [] and ordinary.left == []


# ------------------------------------------------------------------------------------------- these tests can fail


@pytest.fixture(scope="module")
def unwalled(top):
    """The harmless ones of the spies, let loose."""
    loose = Class(chosen(*sorted(HARMLESS)), top / "unwalled")
    return loose.grade("--timeout", "6", "--unsandboxed", "--jobs", "1", patience=1)  # for some are to be left


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_without_walls_there_is_evidence(unwalled):
    evidence = "\n".join(unwalled.evidence())
    for trace in ("dropped a_file_of_the_class", "dropped tcp", "dropped a_local_socket", "dropped write_dropped",
                  "connected from", "ESCAPED:"):  # fmt: skip
        assert trace in evidence, (trace, evidence)
    assert unwalled.left, "daemons were to be left"


def test_without_walls_points_move_and_are_marked(unwalled):
    assert unwalled.results()["network"][0] != chosen("network")[0].points
    assert all(standing.unsandboxed for standing in unwalled.standings().values())
    assert "Without isolation" in unwalled.said


def test_the_spy_tells_what_it_finds(tmp_path):
    """Its own eyes are open: what it is handed, it reports."""
    place = Place(str(tmp_path), "", "", str(tmp_path), "", 1)
    namespace: dict = {}
    exec(place.fill(SPY), namespace)
    (tmp_path / "there").write_text("x")
    namespace["try_to"]("a file", namespace["read"], str(tmp_path / "there"))
    namespace["try_to"]("nothing", namespace["read"], str(tmp_path / "not there"))
    assert len(namespace["found"]) == 1 and (tmp_path / "a_file").exists()


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("what, says", [
    ("missing", "no file or folder"), ("empty", "no notebook in"), ("without", "no notebook in"),
    ("empty/../without/notes.txt", "notes.txt"),
])  # fmt: skip
def test_nothing_to_grade_is_one_clear_line(what, says, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "notes.txt").write_text("hello")
    with pytest.raises(SystemExit) as end:
        main(["grade", str(tmp_path / what), "--out", str(tmp_path / "out")])
    said = "".join(capsys.readouterr())
    assert end.value.code
    assert says in said and len(said.strip().splitlines()) <= 12, said


@needs_isolation
def test_two_submissions_of_one_learner_and_another_course(tmp_path):
    [good] = chosen("good_plain")
    both = Class([good, *chosen("another_course", "empty_folder")], tmp_path).build()
    first = next(both.paths["good_plain"].glob("*.ipynb"))
    second = json.loads(first.read_text())
    for cell in second["cells"]:
        cell["source"] = ""
    (first.parent / "later_copy.ipynb").write_text(json.dumps(second))
    both.grade("--jobs", "1", forked=True)
    points, _, _ = both.results()["good_plain"]
    assert points == good.points
    assert both.done.returncode == 1
    for says in ("a second notebook of lesson 02", "no exercise of this course", "no notebook in it"):
        assert sum(says in line for line in both.said.splitlines()) == 1, both.said


@needs_isolation
def test_learner_gives_a_name_that_is_no_file_name(tmp_path):
    one = Class(chosen("good_plain"), tmp_path).build()
    one.grade("--learner", "../../../tmp/ada\n<b>", "--jobs", "1", forked=True)
    assert one.done.returncode in (0, 2), one.said
    assert "Traceback" not in one.said
    if one.done.returncode == 0:
        [standing] = one.standings().values()
        assert standing.points == sum(chosen("good_plain")[0].points.values())
    assert all(p.resolve().is_relative_to(tmp_path.resolve()) for p in one.out.rglob("*"))


@needs_isolation
def test_a_learners_folder_and_one_notebook(tmp_path):
    one = Class(chosen("good_plain"), tmp_path).build()
    notebook = next(one.paths["good_plain"].glob("*.ipynb"))
    for path in (notebook, notebook.parent):
        done = fork("grade", path, "--out", tmp_path / "out", "--seed", "3", "--jobs", "1", cwd=tmp_path, **FRUGAL)
        assert done.returncode == 0, done.stdout
    assert set(one.standings()) == {"good_plain"}
    assert one.results()["good_plain"][0] == chosen("good_plain")[0].points
    assert set(one.results()["good_plain"][0]) == {e.id for e in exercises("02")}
