"""The headless runner on throwaway notebooks: results, failures, resuming, and no process left behind."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.course.headless import runner
from lib.errors import CourseError
from lib.lesson.expectations import BANDS
from lib.lesson.series import Lesson

PARAMETERS = 'preset = "auto"\nseed = 0\nrate = 0.5\nflag = False\nwhat = None'
COURSE = [sys.executable, "-c", "from lib.course.cli import main; main()"]


def write(folder: Path, name: str, *sources: str) -> str:
    cells = [new_markdown_cell(f"# The {name}"), *(new_code_cell(text) for text in (PARAMETERS, *sources))]
    cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    return f"{name}.ipynb"


def course(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COURSE, *arguments], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=120
    )


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for cell in cells if cell.cell_type == "code" for o in cell.outputs)


def test_lessons_run_side_by_side_and_failures_are_named(tmp_path):
    where = "import os\nprint(os.listdir('.'), os.environ['OMP_NUM_THREADS'], os.environ['COURSE_HOME'])"
    names = [
        write(tmp_path, "fine", "print(preset, seed, rate, flag, what)", where),
        write(tmp_path, "wrong", "1", "raise ValueError('first line\\nsecond <line>')", "print('never')"),
        write(tmp_path, "leaves", "import sys\nsys.exit()", "print('never')"),
        write(tmp_path, "dies", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
    ]
    given = ["-p", "rate", "-2", "-p", "flag", "true", "-p", "seed", "3", "-p", "what", "[1, 2]", "--preset", "smoke"]
    ran = course(tmp_path, "run", *names, *given, "--jobs", "2", "--out", "out", OMP_NUM_THREADS="")
    assert ran.returncode == 1, ran.stderr
    out = tmp_path / "out"
    assert "smoke 3 -2.0 True [1, 2]" in printed(out / "fine.ipynb")
    assert "[] " in printed(out / "fine.ipynb") and os.environ["COURSE_HOME"] not in printed(out / "fine.ipynb")
    errors = {
        "wrong": "code cell 3: ValueError: first line",
        "leaves": "code cell 2: SystemExit: the rest of the lesson was not run",
        "dies": "code cell 2: DeadKernelError: Kernel died",
    }
    for name, error in errors.items():
        assert f"{name}, {error}\n" in ran.stdout
        assert "never" not in printed(out / f"{name}.ipynb")
    assert "1 of 4 lessons ok" in ran.stdout
    assert "fine: started\n" in ran.stderr and "\x1b" not in ran.stdout + ran.stderr
    page = (out / "index.html").read_text()
    assert all(f'href="{name}"' in page for name in names)
    assert "ValueError: first line" in page and "The fine" in page and "//" not in page
    assert not [path for path in out.iterdir() if path.suffix == ".part"]


def test_resume_runs_only_what_is_missing_or_changed(tmp_path):
    names = [write(tmp_path, "one", "print('one')"), write(tmp_path, "two", "print('two')")]

    def kept(*more: str) -> set[str]:
        ran = course(tmp_path, "run", *names, "--out", "out", "--resume", *more)
        assert ran.returncode == 0, ran.stderr
        return {line.split()[0] for line in ran.stdout.splitlines() if "(kept)" in line}

    assert kept() == set()
    assert kept() == {"one", "two"}
    write(tmp_path, "one", "print('one, changed')")
    assert kept() == {"two"}
    (tmp_path / "out" / "two.ipynb").write_text("{}")
    (tmp_path / "out" / ".receipts" / "one.json").write_text("{")
    assert kept("-p", "seed", "1") == set()


def test_resume_keeps_no_result_of_code_that_changed_while_it_ran(tmp_path):
    own = tmp_path / "home" / "own"
    own.mkdir(parents=True)
    (own / "02.attention.py").write_text("before")
    change = "import os, pathlib\npathlib.Path(os.environ['COURSE_OWN'], '02.attention.py').write_text('after')"
    line = ["run", write(tmp_path, "edits", change), "--own", "--out", "out", "--resume"]
    for _ in range(2):
        ran = course(tmp_path, *line, COURSE_HOME=str(tmp_path / "home"))
        assert ran.returncode == 0 and "(kept)" not in ran.stdout, ran.stdout + ran.stderr
    assert "(kept)" in course(tmp_path, *line, COURSE_HOME=str(tmp_path / "home")).stdout


def test_the_key_is_of_all_data_and_of_no_stray_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    (tmp_path / "data" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "data" / "adapter").mkdir()
    first = runner._library()
    (tmp_path / "data" / ".ipynb_checkpoints" / "devices.toml").write_text("x")
    assert runner._library() == first
    (tmp_path / "data" / "adapter" / "weights").write_text("x")
    assert runner._library() != first


def test_what_cannot_be_read_is_not_called_unwritable(tmp_path, monkeypatch):
    def stale(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(Path, "read_bytes", stale)
    job = runner.Job(Lesson(tmp_path / write(tmp_path, "fine")), "fine", {}, "cpu")
    with pytest.raises(CourseError, match=r"^cannot read .*: Stale file handle$"):
        runner.run([job], tmp_path / "out", 1)


def test_auto_is_the_gpu_where_there_is_one(tmp_path, monkeypatch):
    import torch

    from lib.course.cli import main

    seen = []
    monkeypatch.delenv("COURSE_PRESET")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(runner, "memory", lambda: (64.0, 64.0))
    monkeypatch.setattr(runner, "cores", lambda: 8)
    monkeypatch.setattr(runner, "run", lambda jobs, out, workers, *_: seen.append((jobs[0].preset, workers)) or [
        runner.Result(job.name, job.name, job.preset, "ok", 1.0, 1) for job in jobs])  # fmt: skip
    names = [str(tmp_path / write(tmp_path, name)) for name in ("one", "two", "three")]
    for more in ([], ["--preset", "cpu"]):
        with pytest.raises(SystemExit):
            main(["run", *names, "--out", str(tmp_path), *more])
    assert seen == [("gpu", 1), ("cpu", 3)], "lessons that share a GPU run one after another"


@pytest.mark.parametrize("free, at_once", [(0.5, 1), (5.9, 1), (6.1, 2), (64.0, 4)])
def test_lessons_side_by_side_fit_into_memory(monkeypatch, free, at_once):
    monkeypatch.setattr(runner, "memory", lambda: (free, 64.0))
    monkeypatch.setattr(runner, "cores", lambda: 4)
    assert runner.side_by_side("cpu") == at_once and runner.side_by_side("gpu") == 1


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["-p", "sed", "1"], "course: lesson fine.* has no parameter 'sed'; it has: preset, seed, rate, flag, what"),
        (["-p", "seed", "1.5"], "course: parameter 'seed' of lesson fine is a whole number, not '1.5'"),
        (["-p", "rate", "high"], "course: parameter 'rate' of lesson fine is a number, not 'high'"),
        (["-p", "flag", "1"], "course: parameter 'flag' of lesson fine is True or False, not '1'"),
        (["-p", "preset", "cup"], "course: unknown preset 'cup'; choose auto, smoke, cpu or gpu. Did you mean 'cpu'?"),
        (["--preset", "smok"], "course: unknown preset 'smok'.*Did you mean 'smoke'"),
        (["--preset", "cpu", "-p", "preset", "gpu"], "course: --preset cpu and -p preset gpu disagree; give one"),
        (["attentoin"], "course: unknown lesson 'attentoin'"),
        (["gone.ipynb"], "course: no notebook at gone.ipynb"),
        (["damaged.ipynb"], "course: .*damaged.ipynb is not a notebook"),
        (["--jobs", "0"], "course: .*0 is not in the range"),
        (["--out", "fine.ipynb/out"], "course: cannot write to fine.ipynb/out: .*; choose another --out"),
        (["other/fine.ipynb"], "course: two of the notebooks have the same name"),
        (["--frobnicate"], "course: No such option.*; see `course run --help`"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch, arguments, says):
    from lib.course.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", "fine")
    (tmp_path / "damaged.ipynb").write_text("{")
    with pytest.raises(SystemExit) as ended:
        main(["run", write(tmp_path, "fine"), *arguments])
    told = capsys.readouterr()
    assert ended.value.code == 2 and not told.out
    assert len(told.err.splitlines()) == 1
    assert re.match(says, told.err), told.err


def test_a_preset_of_the_environment_is_checked_too(tmp_path):
    ran = course(tmp_path, "run", write(tmp_path, "fine"), COURSE_PRESET="fast")
    assert (ran.returncode, ran.stdout) == (2, "") and "unknown preset 'fast'" in ran.stderr


# A lesson that hangs, with a child of its own, and tells which processes there are to be missed.
HANG = """
import os, pathlib, subprocess, time
child = subprocess.Popen(["sleep", "600"])
mine = pathlib.Path({file!r})
mine.with_suffix(".part").write_text(f"{{os.getppid()}} {{os.getpid()}} {{child.pid}}")
mine.with_suffix(".part").rename(mine)
time.sleep(600)
"""


def gone(pids: list[int], seconds: float = 15) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_file(path: Path, seconds: float = 60) -> str:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} was never written"
        time.sleep(0.05)
    return path.read_text()


def test_a_lesson_that_hangs_is_stopped_with_all_it_started(tmp_path):
    name = write(tmp_path, "hangs", HANG.format(file=str(tmp_path / "pids")))
    ran = course(tmp_path, "run", name, "--timeout", "12", "--out", "out")
    assert ran.returncode == 1
    assert "hangs, took longer than 12 s, stopped in code cell 2" in ran.stdout
    assert gone([int(pid) for pid in (tmp_path / "pids").read_text().split()])
    assert (tmp_path / "out" / "hangs.ipynb").exists()


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_run_keeps_what_is_finished_and_leaves_no_process(tmp_path, number, status):
    names = [write(tmp_path, "quick", "1"), write(tmp_path, "hangs", HANG.format(file=str(tmp_path / "pids")))]
    (tmp_path / "scratch").mkdir()
    runner = subprocess.Popen(
        [*COURSE, "run", *names, "--jobs", "2", "--out", "out"],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pids = [int(pid) for pid in await_file(tmp_path / "pids").split()]
    receipt = await_file(tmp_path / "out" / ".receipts" / "quick.json")
    runner.send_signal(number)
    stdout, stderr = runner.communicate(timeout=30)
    assert runner.returncode == status
    assert gone(pids)
    assert json.loads(receipt)["state"] == "ok" and (tmp_path / "out" / "quick.ipynb").exists()
    assert not (tmp_path / "out" / "hangs.ipynb").exists()
    if number != signal.SIGKILL:
        assert "1 of 2 lessons ok" in stdout and "the same command with --resume" in stderr
        assert "quick.ipynb" in (tmp_path / "out" / "index.html").read_text()
        assert not list((tmp_path / "scratch").iterdir())


def test_measure_writes_the_bands_of_every_seed(tmp_path, monkeypatch):
    from lib.course.authoring.bands import measure
    from lib.lesson import expectations

    claim = (
        "from lib.lesson.expectations import Claim, record\n"
        "record(Claim('05.loss', 'loss', 0.1, 2), 1.5 + seed / 10, preset, 'cpu', 'any CPU')"
    )
    write(tmp_path, "05_training", claim, "assert seed != 7")
    monkeypatch.setattr(expectations, "BANDS", tmp_path / "expectations.json")
    lesson = Lesson(tmp_path / "05_training.ipynb")
    [entry] = measure(lesson, "cpu", [0, 1], 2)
    assert entry["presets"]["cpu"]["values"] == [1.5, 1.6] and entry["presets"]["cpu"]["band"] == [1.4, 1.7]
    assert expectations.seconds("05", "cpu") > 0
    measure(lesson, "cpu", [0], 1, texts={"rate": "0.25"})
    assert expectations.load()["05.loss"]["presets"]["cpu"]["seeds"] == [0, 1], "the lesson's own claim is not touched"
    before = (tmp_path / "expectations.json").read_text()
    assert measure(lesson, "cpu", [5], 1, bands=False) == [] and expectations.seconds("05", "cpu") > 0
    after = (tmp_path / "expectations.json").read_text()
    assert json.loads(after)["claims"] == json.loads(before)["claims"]
    assert "1 at a time" in after and "2 at a time" in before
    before = after
    with pytest.raises(CourseError, match="05_training-seed-7, code cell 3: AssertionError; nothing written"):
        measure(lesson, "cpu", [7], 1)
    assert (tmp_path / "expectations.json").read_text() == before


def test_measure_that_is_interrupted_writes_nothing_and_says_one_line(tmp_path):
    name = write(tmp_path, "hangs", HANG.format(file=str(tmp_path / "pids")))
    before = BANDS.read_bytes()
    measuring = subprocess.Popen(
        [*COURSE, "measure", name, "--seeds", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pids = [int(pid) for pid in await_file(tmp_path / "pids").split()]
    measuring.send_signal(signal.SIGINT)
    stdout, stderr = measuring.communicate(timeout=30)
    assert (measuring.returncode, stdout) == (130, "")
    assert stderr.splitlines() == ["hangs-seed-0: started", "course: interrupted; nothing written for hangs"]
    assert gone(pids) and BANDS.read_bytes() == before


def test_measure_looks_first_whether_it_can_write(tmp_path, monkeypatch):
    from lib.course.authoring import bands
    from lib.lesson import expectations

    (tmp_path / "file").touch()
    monkeypatch.setattr(expectations, "BANDS", tmp_path / "file" / "expectations.json")
    monkeypatch.setattr(bands.runner, "run", lambda *_, **__: pytest.fail("minutes of runs for nothing"))
    with pytest.raises(CourseError, match=r"cannot write .*expectations\.json: Not a directory; measure in a clone"):
        bands.measure(None, "cpu", [], 1)


def test_an_index_that_cannot_be_written_costs_one_line(tmp_path):
    from lib.course.headless import display

    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match=r"cannot write .*index\.html: .*; choose another --out"):
        display.index(tmp_path / "file", [])
