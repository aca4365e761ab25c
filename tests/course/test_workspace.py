"""A learner's own copy of the lessons: made, brought up to date, and never at the cost of a word."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import nbformat
import pytest
from click.testing import CliRunner

from lib.answers import reference_source
from lib.course.cli import course
from lib.course.commands import lab as command
from lib.course.commands.grade import _own_copy
from lib.course.own_copy import workspace
from lib.course.own_copy.merging import BESIDE
from lib.course.own_copy.workspace import own_copy, prepared, shipped, update
from lib.errors import CourseError
from lib.exercises.exercise import exercise
from lib.lesson import own, series
from lib.lesson.series import NOTEBOOKS, Lesson, source
from lib.sources.places import ROOT

GIT = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
       "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}  # fmt: skip
RUN = [{"output_type": "stream", "name": "stdout", "text": "it was so\n"}]


def cell(kind, text, grade_id=None, **metadata):
    """A cell as a committed lesson has it: its id made from its text, or the exercise's."""
    id = grade_id or hashlib.sha256(f"{kind}\n{text}".encode()).hexdigest()[:8]
    if grade_id:
        metadata["nbgrader"] = {"grade_id": grade_id, "schema_version": 3, "grade": False, "locked": False,
                                "solution": not grade_id.endswith(("-prompt", "-check"))}  # fmt: skip
    run = {"outputs": RUN, "execution_count": 1} if kind == "code" else {}
    return {"cell_type": kind, "id": id, "metadata": metadata, "source": text} | run


STUB = exercise("02.causal_mask").stub
MINE = "def causal_mask(T):\n    return 'mine'"
LESSON = [
    cell("markdown", "# 02 · Attention"),
    cell("code", 'lesson.predict("k", "What?", {"a": "this"}, guess=None)'),
    cell("code", 'lesson.reveal("k", "a")'),
    cell("markdown", "So it is."),
    cell("markdown", "### Exercise: a mask", "02-causal_mask-prompt"),
    cell("code", STUB, "02-causal_mask"),
    cell("code", 'check("02.causal_mask", causal_mask)', "02-causal_mask-check"),
    cell("markdown", "The end of the lesson."),
]
FOLDED = [source(c) for c in prepared(LESSON)]


def put(path, cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
    return path


def read(path):
    """A notebook's cells, once it is seen to be a valid notebook."""
    nbformat.validate(nbformat.read(path, as_version=4))
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def texts(path):
    return [source(c) for c in read(path)]


def save(path, cells):
    """What JupyterLab does."""
    notebook = json.loads(path.read_text(encoding="utf-8")) | {"cells": cells}
    path.write_text(json.dumps(notebook), encoding="utf-8")


def write_in(path, *changes):
    """A learner at work: (text of a cell, what it is to say then), or (None, a cell to add at the end)."""
    cells = read(path)
    for old, new in changes:
        if old is None:
            cells.append({"cell_type": "markdown", "id": "note-of-mine", "metadata": {}, "source": new})
        else:
            [found] = [c for c in cells if source(c) == old]
            found["source"] = new
    save(path, cells)


def changed(cells, old, new):
    """The lesson with one cell reworded: its id is another then."""
    return [cell(c["cell_type"], new) if source(c) == old else c for c in cells]


class Clone:
    """A folder of lessons, a learner's folder beside it, and what the last update told."""

    def __init__(self, folder, lessons, git):
        self.notebooks, self.folder, self.uses_git, self.told = folder / "notebooks", folder / "mine", git, []
        self.put(**lessons)

    def put(self, **lessons):
        shutil.rmtree(self.notebooks, ignore_errors=True)
        for stem, cells in lessons.items():
            put(self.notebooks / f"{stem}.ipynb", cells)
        if self.uses_git:
            for line in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "x", "--allow-empty"]):
                subprocess.run(["git", *line], cwd=self.notebooks.parent / "notebooks", check=True,
                               env=os.environ | GIT)  # fmt: skip

    def lessons(self):
        return [Lesson(path) for path in sorted(self.notebooks.glob("*.ipynb"))]

    def update(self):
        self.told = update(self.folder, self.lessons())
        return self.told

    def mine(self, stem="02_attention"):
        return self.folder / f"{stem}.ipynb"

    def kept(self, what):
        return sorted((self.folder / ".course" / what).rglob("*.ipynb"))


@pytest.fixture(params=[True, False], ids=["git", "no git"])
def clone(request, tmp_path):
    return Clone(tmp_path, {"02_attention": LESSON}, request.param)


# --- the first time ---


def test_it_is_made_with_nothing_run_and_no_outcome_told(clone):
    before = (clone.notebooks / "02_attention.ipynb").read_bytes()
    assert clone.update() == [f"1 lesson put into {clone.folder}, for you to write in."]
    cells = read(clone.mine())
    assert [source(c) for c in cells] == FOLDED != [source(c) for c in LESSON]
    assert not any(c.get("outputs") or c.get("execution_count") for c in cells)
    assert [c["id"] for c in cells] == [c["id"] for c in LESSON]
    assert (clone.notebooks / "02_attention.ipynb").read_bytes() == before


def test_all_lessons_of_this_course(tmp_path):
    update(tmp_path / "mine", series.series())
    for lesson in series.series():
        there = read(tmp_path / "mine" / lesson.path.name)
        assert len(there) == len(lesson.notebook["cells"])
        assert not any(c.get("outputs") or c.get("execution_count") for c in there)
        assert shipped(lesson)[1] == [], "nobody has written into it"


@pytest.mark.parametrize("lesson", series.series(), ids=lambda lesson: lesson.number)
def test_each_committed_cell_can_be_told_from_one_that_somebody_changed(lesson):
    """Where there is no Git: by its id."""
    cells = lesson.notebook["cells"]
    assert all(map(workspace._as_it_came, cells)) and all(map(workspace._as_it_came, prepared(cells)))
    for c in cells:
        locked = "nbgrader" in c["metadata"] and not c["metadata"]["nbgrader"]["solution"]
        assert workspace._as_it_came(c | {"source": "I was here"}) == locked


# --- updates ---


def test_an_update_brings_what_is_new_and_keeps_what_is_written(clone):
    clone.update()
    guess = LESSON[1]["source"].replace("None", '"a"')
    write_in(clone.mine(), (STUB, MINE), (LESSON[1]["source"], guess), (None, "my note"))
    before = clone.mine().read_text()
    new = [*changed(LESSON, "The end of the lesson.", "The very end of the lesson."), cell("code", "more()")]
    clone.put(**{"02_attention": new, "03_heads": [cell("markdown", "# 03 · Heads")]})
    told = clone.update()
    assert told == [f"1 lesson put into {clone.folder}, for you to write in.",
                    "02_attention is brought up to date, cells: 1 changed, 1 new, 3 yours."]  # fmt: skip
    wanted = [FOLDED[0], guess, *FOLDED[2:5], MINE, FOLDED[6], "The very end of the lesson.", "my note", "more()"]
    assert texts(clone.mine()) == wanted
    assert [path.read_text() for path in clone.kept("backups")] == [before]
    assert texts(clone.mine("03_heads")) == ["# 03 · Heads"]


def test_with_nothing_new_nothing_is_touched(clone):
    clone.update()
    write_in(clone.mine(), (STUB, MINE))
    before = clone.mine().read_bytes()
    assert clone.update() == [] and clone.update() == []
    assert clone.mine().read_bytes() == before and not clone.kept("backups")


def test_both_have_changed_a_cell(clone):
    clone.update()
    write_in(clone.mine(), ("The end of the lesson.", "The end, say I."))
    clone.put(**{"02_attention": changed(LESSON, "The end of the lesson.", "The end of this lesson.")})
    assert clone.update() == ["02_attention is brought up to date, cells: 1 yours. You and the lesson had both "
                              "changed 1; the new text stands below yours."]  # fmt: skip
    assert texts(clone.mine())[-2:] == ["The end, say I.", f"{BESIDE}\n\nThe end of this lesson."]
    assert clone.update() == []


def test_two_updates_within_a_second_keep_two_backups(clone):
    clone.update()
    for n in (1, 2):
        write_in(clone.mine(), (STUB, MINE) if n == 1 else (MINE, "better"))
        clone.put(**{"02_attention": [*LESSON, cell("markdown", f"news {n}")]})
        clone.update()
    first, second = clone.kept("backups")
    assert MINE in texts(first) and "better" in texts(second)


def test_a_lesson_started_afresh(clone):
    clone.update()
    write_in(clone.mine(), (STUB, MINE))
    clone.mine().rename(clone.folder / "old.ipynb")
    clone.update()
    assert texts(clone.mine()) == FOLDED and texts(clone.folder / "old.ipynb")[5] == MINE


DAMAGED = ["", "{", "[]", '{"cells": 3}', '{"cells": [3], "nbformat": 4}', "<<<<<<< ours\n{}\n>>>>>>> theirs",
           '{"worksheets": [], "nbformat": 3}', '{"nbformat": 4, "cells": [{"cell_type": "code", "source": 3}]}',
           b"\xff\xfe"]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_notebook_is_left_alone(clone, text):
    clone.put(**{"01_x": LESSON[:1], "02_attention": LESSON, "03_heads": LESSON[:1]})
    clone.update()
    clone.mine().write_bytes(text if isinstance(text, bytes) else text.encode())
    clone.put(**{stem: [*LESSON[:1], cell("code", "more()")] for stem in ("01_x", "02_attention", "03_heads")})
    before = clone.mine().read_bytes()
    told = [line for line in clone.update() if line.startswith("02")]
    assert told == [f"02_attention: your copy cannot be read (damaged) and is left as it is; move {clone.mine()} away, "
                    "and the next `course lab` makes a fresh one."]  # fmt: skip
    assert clone.mine().read_bytes() == before
    assert texts(clone.mine("01_x"))[-1] == texts(clone.mine("03_heads"))[-1] == "more()"


def test_a_lesson_that_cannot_be_read_costs_a_line(clone):
    clone.put(**{"01_x": LESSON[:1], "02_attention": LESSON})
    (clone.notebooks / "01_x.ipynb").write_text("<<<<<<< HEAD")
    told = clone.update()
    if clone.uses_git:
        assert texts(clone.mine("01_x")) == FOLDED[:1], "it is what is committed"
    else:
        assert "01_x.ipynb is not a notebook" in told[1]
    assert texts(clone.mine()) == FOLDED


def test_a_copy_whose_records_are_gone(clone):
    clone.update()
    write_in(clone.mine(), (STUB, MINE), (None, "my note"), ("# 02 · Attention", "# My attention"))
    shutil.rmtree(clone.folder / ".course")
    clone.put(**{"02_attention": changed(LESSON, "The end of the lesson.", "The very end.")})
    clone.update()
    there = texts(clone.mine())
    assert there == ["# My attention", *FOLDED[1:5], MINE, FOLDED[6], "The very end.", "my note"]


def test_a_copy_restored_from_its_backup(clone):
    clone.update()
    write_in(clone.mine(), (STUB, MINE))
    clone.put(**{"02_attention": [*LESSON, cell("code", "more()")]})
    clone.update()
    write_in(clone.mine(), (MINE, "worse"))
    [backup] = clone.kept("backups")
    shutil.copy(backup, clone.mine())
    clone.update()
    assert texts(clone.mine()) == [*FOLDED[:5], MINE, *FOLDED[6:], "more()"]


def test_a_lesson_with_another_number_takes_the_learners_notebook_along(clone):
    clone.update()
    write_in(clone.mine(), (STUB, MINE), (None, "my note"))
    clone.put(**{"04_attention": [*LESSON, cell("code", "more()")]})
    assert "02_attention is 04_attention now." in clone.update()
    assert texts(clone.mine("04_attention")) == [*FOLDED[:5], MINE, *FOLDED[6:], "my note", "more()"]
    assert not clone.mine().exists() and clone.kept("backups")


def test_an_exercise_that_moved_to_another_lesson_takes_its_answer_along(clone):
    clone.update()
    write_in(clone.mine(), (STUB, MINE))
    clone.put(**{"02_attention": LESSON[:4], "03_mask": [cell("markdown", "# 03 · Masks"), *LESSON[4:]]})
    told = clone.update()
    assert "03_mask: your answer to 02-causal_mask came along from 02_attention." in told
    assert texts(clone.mine("03_mask")) == ["# 03 · Masks", FOLDED[4], MINE, *FOLDED[6:]]
    assert texts(clone.mine()) == [*FOLDED[:4], MINE], "and it is still where it was"


def test_an_answer_is_not_copied_while_its_exercise_stays(clone):
    clone.update()
    write_in(clone.mine(), (STUB, MINE))
    clone.put(**{"02_attention": LESSON, "03_mask": LESSON})
    clone.update()
    assert STUB in texts(clone.mine("03_mask"))


# --- what was written into the lessons themselves ---


def test_what_was_written_into_the_tracked_notebook_comes_along(clone):
    path = clone.notebooks / "02_attention.ipynb"
    write_in(path, (STUB, MINE), (None, "my note"), ("The end of the lesson.", "The end, say I."))
    before = path.read_bytes()
    wrote = "02_attention: 3 cells that you had written into notebooks/ came along into your copy; the file there is"
    assert clone.update()[1:] == [f"{wrote} as it was."]
    there = [*FOLDED[:5], MINE, FOLDED[6], "The end, say I.", "my note"]
    assert texts(clone.mine()) == there and path.read_bytes() == before
    assert not any(c.get("outputs") for c in read(clone.mine()))
    if clone.uses_git:  # what Git has committed is the lesson, whatever lies there
        assert clone.update() == [] and texts(clone.mine()) == there
        clone.mine().unlink()
        clone.update()
        assert texts(clone.mine()) == FOLDED, "once, and afresh the second time"
    clone.put(**{"02_attention": [*changed(LESSON, "So it is.", "So it was."), cell("code", "more()")]})
    clone.mine().unlink()
    shutil.rmtree(clone.folder)
    put(clone.mine(), json.loads(before)["cells"])  # cp -r notebooks workspace && git checkout notebooks && git pull
    clone.update()
    assert [text for text in texts(clone.mine()) if "So it was." not in text] == [*there[:3], *there[4:], "more()"]
    assert any("So it was." in text for text in texts(clone.mine()))


def test_a_tracked_answer_of_an_exercise_that_is_gone(tmp_path):
    lost = cell("code", "def gone(): return 1", "02-gone_for_good")
    clone = Clone(tmp_path, {"02_attention": [*LESSON, lost]}, git=False)
    clone.update()
    assert texts(clone.mine()) == [*FOLDED, lost["source"]]


def test_without_git_an_answer_that_somebody_wrote_is_told_from_its_stub(tmp_path):
    """What ships is the lesson with the stub, not the answer, and not the lesson without the cell."""
    lost = cell("code", "def gone(): return 1", "02-gone_for_good")
    clone = Clone(tmp_path, {"02_attention": [*LESSON, lost]}, git=False)
    write_in(clone.notebooks / "02_attention.ipynb", (STUB, MINE), ("The end of the lesson.", "The end, say I."))
    [lesson] = clone.lessons()
    ours, theirs = shipped(lesson)
    assert [source(c) for c in ours] == [source(c) for c in LESSON[:-1]]
    assert [source(c) for c in theirs if c["id"] == "02-causal_mask"] == [MINE]
    clone.update()
    [base] = clone.kept("base")
    assert STUB in texts(base) and MINE not in texts(base) and MINE in texts(clone.mine())
    # So a new text of the exercise's cell is seen to be new, and stands below the answer.
    newer = STUB.replace("def causal_mask", "# read the paper first\ndef causal_mask")
    clone.put(**{"02_attention": [cell("code", newer, "02-causal_mask") if source(c) == STUB else c for c in LESSON]})
    clone.update()
    there = texts(clone.mine())
    assert MINE in there and any("read the paper" in text for text in there)


# --- accidents ---

KILLED = """
import os, signal, sys
from pathlib import Path
from lib.course.own_copy.workspace import update
from lib.lesson.series import Lesson
left, folder, *paths = sys.argv[1:]
left, real = int(left), os.replace
def replace(part, path):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(part, path)
os.replace = replace
update(Path(folder), [Lesson(Path(path)) for path in paths])
print(os.replace and left)
"""


def test_killed_anywhere_nothing_is_lost_and_the_next_update_goes_on(tmp_path):
    """Before each file that is put in its place, for two lessons of which the learner has changed both."""
    clone = Clone(tmp_path, {"02_attention": LESSON, "03_heads": LESSON[:5]}, git=False)
    clone.update()
    write_in(clone.mine(), (STUB, MINE), (None, "my note"), ("The end of the lesson.", "The end, say I."))
    write_in(clone.mine("03_heads"), (None, "another note"))
    old = {stem: clone.mine(stem).read_text() for stem in ("02_attention", "03_heads")}
    new = [*changed(LESSON, "The end of the lesson.", "The end of this lesson."), cell("code", "more()")]
    clone.put(**{"02_attention": new, "03_heads": [*LESSON[:5], cell("code", "more()")]})
    shutil.copytree(clone.folder, tmp_path / "start")
    clone.update()
    done = {stem: clone.mine(stem).read_text() for stem in old}
    assert all(done[stem] != old[stem] for stem in old)
    for n in range(100):
        shutil.rmtree(clone.folder)
        shutil.copytree(tmp_path / "start", clone.folder)
        line = [sys.executable, "-c", KILLED, str(n), clone.folder, *(lesson.path for lesson in clone.lessons())]
        ran = subprocess.run(line, capture_output=True, text=True)
        if ran.returncode == 0:
            break
        assert ran.returncode == -signal.SIGKILL, ran.stderr
        for stem in old:
            assert clone.mine(stem).read_text() in (old[stem], done[stem]), "old or new, and nothing between"
            if clone.mine(stem).read_text() != old[stem]:
                assert old[stem] in [path.read_text() for path in clone.kept("backups")]
        clone.update()
        assert {stem: clone.mine(stem).read_text() for stem in old} == done
    assert n == 6, "three files for each of two lessons"


def test_saved_while_it_is_brought_up_to_date(clone, monkeypatch):
    clone.update()
    clone.put(**{"02_attention": [*LESSON, cell("code", "more()")]})
    real = workspace.write_atomic

    def and_saved(path, text):
        real(path, text)
        if "backups" in path.parts:
            write_in(clone.mine(), (STUB, MINE))

    monkeypatch.setattr(workspace, "write_atomic", and_saved)
    assert clone.update() == ["02_attention: it was saved at this very moment and is left as it is; run this again."]
    monkeypatch.undo()
    clone.update()
    assert texts(clone.mine()) == [*FOLDED[:5], MINE, *FOLDED[6:], "more()"]


def test_two_at_once(clone, monkeypatch):
    clone.update()
    monkeypatch.setattr(workspace, "locked", lambda path: filelock.FileLock(path.with_name(f".{path.name}.lock"), 0))
    with filelock.FileLock(clone.folder / ".course" / ".update.lock"):
        with pytest.raises(CourseError, match="another `course lab` is at work on it"):
            clone.update()


def test_a_folder_that_is_something_else(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "link").symlink_to(NOTEBOOKS)
    for folder, says in [
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "file" / "below", "cannot write"),
        (tmp_path / "thesis", "holds other things"),
        *((at, "the course's own") for at in (ROOT, ROOT.parent, NOTEBOOKS, NOTEBOOKS / "x", ROOT / "lib")),
        (tmp_path / "link", "the course's own"),
    ]:
        with pytest.raises(CourseError, match=f"{says}.*; choose .*--dir"):
            update(folder, series.series())
    assert os.listdir(tmp_path / "thesis") == ["chapter.tex"] and not (NOTEBOOKS / ".course").exists()


# --- the command, and those that read the learner's copy ---


def test_lab_opens_the_copy_at_its_first_lesson(tmp_path, monkeypatch):
    became = []
    monkeypatch.setattr(command, "_become", lambda line, env: became.append((line, env)) or 0)
    done = CliRunner().invoke(course, ["lab", "--dir", str(tmp_path / "w"), "--", "--no-browser", "--ip=0.0.0.0"])
    assert done.exit_code == 0, done.output
    [(line, env)] = became
    assert line == [sys.executable, "-c", command.LAB, "--notebook-dir", str(tmp_path / "w"),
                    "--LabApp.default_url=/lab/tree/00_start_here.ipynb",
                    "--ServerApp.kernel_spec_manager_class=lib.course.headless.this_python.ThisPython",
                    "--no-browser", "--ip=0.0.0.0"]  # fmt: skip
    assert env["COURSE_WORKSPACE"] == str(tmp_path / "w"), "a terminal in JupyterLab finds it, too"
    assert (tmp_path / "w" / "00_start_here.ipynb").is_file() and "13 lessons put into" in done.output


def test_lab_can_only_update(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_WORKSPACE", str(tmp_path / "w"))
    monkeypatch.setattr(command, "_become", None)
    done = CliRunner().invoke(course, ["lab", "--update"])
    assert done.exit_code == 0 and done.output.endswith(f"Up to date: {tmp_path / 'w'}\n")
    again = CliRunner().invoke(course, ["lab", "--update"])
    assert again.output == f"Up to date: {tmp_path / 'w'}\n"


def test_lab_says_what_is_wrong_in_a_line(tmp_path, monkeypatch):
    wrong = CliRunner().invoke(course, ["lab", "02"])
    assert isinstance(wrong.exception, CourseError) and "no use for '02'" in str(wrong.exception)
    monkeypatch.setattr(importlib_util(), "find_spec", lambda name: None)
    wrong = CliRunner().invoke(course, ["lab", "--dir", str(tmp_path / "w")])
    assert isinstance(wrong.exception, CourseError) and "make setup" in str(wrong.exception)


def importlib_util():
    return command.importlib.util


@pytest.mark.skipif(os.name != "posix", reason="elsewhere JupyterLab is a child")
def test_jupyterlab_stands_in_the_commands_place():
    line = ["/bin/sh", "-c", "echo $$ $MARK"]
    program = f"from lib.course.commands.lab import _become; _become({line}, {{'MARK': 'here'}})"
    ran = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert ran.communicate()[0].split() == [str(ran.pid), "here"]


def test_the_learners_copy_is_read_first(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_WORKSPACE", str(tmp_path / "w"))
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    [lesson] = series.find(["02"])
    assert own_copy(lesson) == lesson
    done = CliRunner().invoke(course, ["use", "02.causal_mask"])
    assert isinstance(done.exception, CourseError) and "no answer to 02.causal_mask found" in str(done.exception)
    update(tmp_path / "w", [lesson])
    write_in(tmp_path / "w" / lesson.path.name, (STUB, reference_source("02.causal_mask")))
    assert own_copy(lesson) == Lesson(tmp_path / "w" / lesson.path.name)
    done = CliRunner().invoke(course, ["use", "02.causal_mask"])
    assert done.exit_code == 0 and own.kept() == ["02.causal_mask"], done.output
    assert _own_copy(Path("02")) == tmp_path / "w" / lesson.path.name
    assert _own_copy(Path("nonesuch")) == Path("nonesuch") and _own_copy(tmp_path) == tmp_path


def test_the_default_place_is_out_of_gits_sight(monkeypatch):
    monkeypatch.delenv("COURSE_WORKSPACE", raising=False)
    assert workspace.place() == ROOT / "workspace"
    assert "/workspace/" in (ROOT / ".gitignore").read_text().split()
    assert "workspace" in (ROOT / ".dockerignore").read_text().split()
