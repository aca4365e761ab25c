"""The grades as files for people, spreadsheets and other systems. All are made from `Gradebook.standings()`.

A learner's name is any text at all: here it becomes neither a path, nor a formula, nor a second line. A grade made
without a sandbox says so in every file. Points that are not known are left empty, never zero.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lib.errors import CourseError
from lib.exercises.exercise import exercises
from lib.exercises.exercise import lessons as lessons_with_exercises
from lib.grading.cleaning import clean
from lib.grading.gradebook import Standing
from lib.grading.grades import Grade, Report
from lib.grading.submission import from_canvas
from lib.lesson.files import write_atomic
from lib.lesson.series import series

FORMAT, VERSION = "transformer-course grades", 1
UNSANDBOXED = "graded without a sandbox"


def write(standings: list[Standing], out: Path) -> list[Path]:
    """Write every export but nbgrader's under `out` and return the files. Raises CourseError where it can't."""
    try:
        texts = _texts(standings)
    except Exception:  # nobody's entry may cost the others theirs
        texts = _texts([s if _fits(s) else _unwritable(s) for s in standings])
    try:
        for name, text in texts.items():
            write_atomic(out / name, text)
    except OSError as error:
        raise CourseError(f"cannot write {error.filename or out}: {error.strerror}; choose another folder") from None
    return [out / name for name in texts]


def _texts(standings: list[Standing]) -> dict[str, str]:
    texts = {"grades.json": grades_json(standings), "grades.csv": grades_csv(standings),
             "gradebook.csv": gradebook_csv(standings), "canvas.csv": canvas_csv(standings),
             "moodle.csv": moodle_csv(standings)}
    texts |= {f"gradescope/{file_name(s.learner)}/results.json": gradescope_json(s) for s in standings}
    for text in texts.values():
        text.encode()
    return texts


def _fits(standing: Standing) -> bool:
    try:
        return bool(_texts([standing]))
    except Exception:
        return False


def _unwritable(standing: Standing) -> Standing:
    name = clean(standing.learner, 300)
    return Standing(name, (Report(name, "", "", "", problem="this learner's results cannot be written; the gradebook "
                                                            "has them, and a person should look at them"),))


# --- names that nobody vouches for ---


def file_name(learner: str) -> str:
    """A file name for a learner: safe on any system, the same each time, another for every other name."""
    digest = hashlib.sha256(learner.encode("utf-8", "surrogatepass")).hexdigest()
    ascii = unicodedata.normalize("NFKD", learner).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", ascii).strip("-")[:40].strip("-")
    return f"{readable}-{digest}" if readable else digest


def one_line(text: str) -> str:
    """Text on one line, in which nothing is unseen."""
    return clean(text, sys.maxsize)


# What a spreadsheet takes for the start of a formula (full-width and other forms of the signs, too), at the start of a
# text or behind anything that some spreadsheet, somewhere, takes for the end of a cell.
_SIGNS = r"=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u207a\u207b\u207c\u208a\u208b\u208c"
_FORMULA = re.compile(rf"(^|[,;|\t])(?=[\s\"'`]*[{_SIGNS}])")


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula, wherever it cuts: such a text gets an apostrophe in front."""
    if not isinstance(value, str):
        return "" if value is None else value
    return _FORMULA.sub(r"\1'", one_line(value))


LOGIN = re.compile(r"[@-][A-Za-z][\w.@-]*", re.ASCII)


def _csv(rows: Iterable[Iterable[Any]], keys: bool = False) -> str:
    """keys: another system finds its learners by these, so a login that begins with @ or - stays as it is. It has no
    sign in it that a spreadsheet could compute with; the tables for people have the apostrophe all the same."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(
        [v if keys and isinstance(v, str) and LOGIN.fullmatch(v) else _cell(v) for v in row] for row in rows)
    return file.getvalue()


# --- what the files are made from ---


def lesson_name(lesson: str) -> str:
    """The lesson's file name without its ending, as 02_attention; the number alone where there is no such lesson."""
    if not lesson:
        return "a file of no lesson"
    return next((known.stem for known in series() if known.number == lesson), lesson)


def lesson_exercises(standings: list[Standing]) -> dict[str, dict[str, int]]:
    """{lesson: {exercise: points to be had}} of every lesson of ours that somebody handed in."""
    found: dict[str, dict[str, int]] = {}
    known = {lesson.number for lesson in series()} | set(lessons_with_exercises())
    for lesson in sorted({r.lesson for s in standings for r in s.reports} & known):
        found[lesson] = {e.id: e.points for e in exercises(lesson)}
        for s in standings:
            found[lesson] |= {g.exercise: g.out_of for r in s.reports if r.lesson == lesson for g in r.grades}
    return found


def _points(report: Report) -> int | None:
    """A lesson's points, None if they aren't known."""
    return None if report.problem and not report.grades else report.points


def _total(standing: Standing) -> int | None:
    return standing.points if any(_points(r) is not None for r in standing.reports) else None


def notes(standing: Standing, report: Report) -> list[str]:
    """What a reader of a lesson's points should know: it could not be graded, no sandbox, a person should look."""
    found = [report.problem] if report.problem else []
    found += [f"{g.exercise}: {g.problem}" for g in report.grades if g.problem]
    found += [f"{g.exercise}: the check itself failed" for g in report.grades if any(o.crashed for o in g.outcomes)]
    if not report.sandboxed:
        found.append(UNSANDBOXED)
    return found + [f"look at {f.exercise or 'the file'}: {f.what}" + (f" (line {f.line})" if f.line else "")
                    for f in report.flags]


# --- our own ---


def grades_json(standings: list[Standing]) -> str:
    """Everything that counts, in words that explain themselves. Never a hidden value (`Outcome.detail`)."""
    data = {
        "format": FORMAT,
        "version": VERSION,
        "sandboxed": all(r.sandboxed for s in standings for r in s.reports),
        "learners": [{
            "name": s.learner,
            "file_name": file_name(s.learner),
            "points": s.points,
            "out_of": s.out_of,
            "lessons": [{
                "lesson": r.lesson,
                "name": lesson_name(r.lesson),
                "path": r.path,
                "sha256": r.digest,
                "graded_at": s.graded_at[r.lesson].isoformat() if s.graded_at else None,
                "sandboxed": r.sandboxed,
                "problem": r.problem or None,
                "points": _points(r),
                "out_of": None if _points(r) is None else r.out_of,
                "exercises": [_exercise(g, s) for g in r.grades],
                "flags": [{"exercise": f.exercise, "what": f.what, "line": f.line} for f in r.flags],
            } for r in s.reports],
        } for s in standings],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _exercise(g: Grade, standing: Standing) -> dict[str, Any]:
    return {
        "exercise": g.exercise, "version": g.version, "points": g.points, "out_of": g.out_of, "attempted": g.attempted,
        "sandboxed": g.exercise not in standing.unsandboxed, "problem": g.problem or None,
        "properties": [{"name": o.name, "points": o.points, "out_of": o.out_of, "passed": o.passed,
                        "message": o.message or None, "check_failed": o.crashed} for o in g.outcomes],
    }


def grades_csv(standings: list[Standing]) -> str:
    """One row for each learner and exercise; a lesson that could not be graded is one row with the problem."""
    rows: list[list[Any]] = [["learner", "lesson", "exercise", "points", "out_of", "attempted", "version", "sandboxed",
                              "problem", "first_failure", "flags"]]
    for s in standings:
        for r in s.reports:
            flags = {e: "; ".join(f.what for f in r.flags if f.exercise == e) for e in {f.exercise for f in r.flags}}
            if r.problem or flags.get(""):
                rows.append([s.learner, r.lesson, "", None, None, "", "", _yes(r.sandboxed), r.problem, "",
                             flags.get("", "")])
            for g in r.grades:
                failure = g.first_failure
                rows.append([s.learner, r.lesson, g.exercise, g.points, g.out_of, _yes(g.attempted), g.version,
                             _yes(g.exercise not in s.unsandboxed), g.problem, failure.name if failure else "",
                             flags.get(g.exercise, "")])
    return _csv(rows)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def gradebook_csv(standings: list[Standing]) -> str:
    """A table of learners by lessons, with what can be had in the first row and notes in the last column."""
    lessons = {lesson: sum(points.values()) for lesson, points in lesson_exercises(standings).items()}
    rows: list[list[Any]] = [["learner", *map(lesson_name, lessons), "total", "notes"],
                             ["(points possible)", *lessons.values(), sum(lessons.values()), ""]]
    for s in standings:
        points = {r.lesson: _points(r) for r in s.reports}
        said = [f"{r.lesson or r.path}: {note}" for r in s.reports for note in notes(s, r)]
        rows.append([s.learner, *(points.get(lesson) for lesson in lessons), _total(s), "; ".join(said)])
    return _csv(rows)


# --- other systems ---


def canvas_csv(standings: list[Standing]) -> str:
    """Canvas's gradebook import: one assignment a lesson, the learner's name as SIS Login ID.

    An empty cell leaves what Canvas has. Grades made without a sandbox go into an assignment of their own.
    """
    columns, possible = [], []
    for lesson, points in lesson_exercises(standings).items():
        for sandboxed in (True, False):
            if any(r.lesson == lesson and r.sandboxed is sandboxed for s in standings for r in s.reports):
                columns.append((lesson, sandboxed))
                possible.append(sum(points.values()))
    names = [lesson_name(lesson) + ("" if sandboxed else f" ({UNSANDBOXED})") for lesson, sandboxed in columns]
    rows: list[list[Any]] = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *names],
                             ["    Points Possible", "", "", "", "", *possible]]
    for s in standings:
        points = {(r.lesson, r.sandboxed): _points(r) for r in s.reports}
        # A file that came from Canvas has Canvas's own number of its learner in its name.
        number = s.learner.rpartition("_")[2] if any(from_canvas(Path(r.path)) == s.learner for r in s.reports) else ""
        rows.append([s.learner, number, "", "" if number else s.learner, "", *map(points.get, columns)])
    return _csv(rows, keys=True)


def moodle_csv(standings: list[Standing]) -> str:
    """Moodle's CSV grade import: a column to map to the user, then a grade and a feedback column for each lesson."""
    lessons = list(lesson_exercises(standings))
    header = ["Username"]
    for lesson in lessons:
        header += [lesson_name(lesson), f"Feedback: {lesson_name(lesson)}"]
    rows: list[list[Any]] = [header]
    for s in standings:
        row: list[Any] = [s.learner]
        for lesson in lessons:
            report = next((r for r in s.reports if r.lesson == lesson), None)
            row += [_points(report), _said(report)] if report else ["", ""]
        rows.append(row)
    return _csv(rows, keys=True)


def _said(report: Report) -> str:
    """A lesson's grade in a sentence for its learner."""
    said = [f"Not graded: {report.problem}"] if report.problem else []
    said += [f"{g.exercise} {g.points} of {g.out_of}" for g in report.grades]
    return "; ".join(said + [UNSANDBOXED] * (not report.sandboxed))


def gradescope_json(standing: Standing) -> str:
    """One learner's results.json, as a Gradescope autograder writes it: a test case for each property."""
    tests: list[dict[str, Any]] = []
    for r in standing.reports:
        if r.problem:
            tests.append({"name": f"{lesson_name(r.lesson)}: not graded",
                          "output": one_line(r.problem), "visibility": "visible"})
        for g in r.grades:
            mark = f" ({UNSANDBOXED})" if g.exercise in standing.unsandboxed else ""
            whole = (sum(o.points for o in g.outcomes), sum(o.out_of for o in g.outcomes)) == (g.points, g.out_of)
            if whole and g.outcomes:
                tests += [_test(f"{g.exercise}: {o.name}{mark}", o.points, o.out_of,
                                "" if o.passed else o.message if g.attempted else "Not attempted.") for o in g.outcomes]
            else:
                tests.append(_test(f"{g.exercise}{mark}", g.points, g.out_of, "" if g.attempted else "Not attempted."))
            if g.problem:
                tests[-1]["output"] = " ".join(filter(None, (tests[-1].get("output"), one_line(g.problem))))
    unsafe = any(not r.sandboxed for r in standing.reports)
    data = {
        "score": standing.points,
        "execution_time": round(sum(r.seconds for r in standing.reports)),
        "output": f"{standing.points} of {standing.out_of} points." + (f" Some were {UNSANDBOXED}." if unsafe else ""),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
        "extra_data": {"learner": standing.learner, "sandboxed": not unsafe},
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _test(name: str, points: int, out_of: int, output: str) -> dict[str, Any]:
    test = {"name": name, "score": points, "max_score": out_of, "status": "passed" if points == out_of else "failed",
            "visibility": "visible"}
    return test | ({"output": one_line(output)} if output else {})


# --- nbgrader ---


def student_id(learner: str) -> str:
    """The learner's name where nbgrader can use it in a path, else a file name made from it."""
    safe = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", learner) and not re.search(r"[0-9a-f]{64}$", learner)
    return learner if safe else file_name(learner)


def nbgrader_db(standings: list[Standing], path: Path) -> None:
    """Write nbgrader's gradebook.db, through nbgrader's own API. Raises CourseError where nbgrader isn't installed.

    An assignment with one notebook for each lesson, a grade cell for each exercise. What is there already is brought
    up to date; what a person entered (manual scores, extra credit, comments) stays. A grade that a person should look
    at needs a manual grade: a lesson that could not be graded, a check that failed, a flag, no sandbox.
    """
    try:
        from nbgrader import api
    except ImportError as error:
        raise CourseError(f"nbgrader's gradebook needs nbgrader ({error}); pip install nbgrader") from None
    path = Path(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        if path.exists():
            shutil.copyfile(path, part)
            with closing(sqlite3.connect(part)) as database:  # what is none, nbgrader would leave open
                database.execute("PRAGMA schema_version")
        with _commands_found():
            book = api.Gradebook(f"sqlite:///{part}")
        try:
            book.db.execute(sa.text("PRAGMA synchronous = OFF"))  # it commits often; nobody reads this file yet
            with book.db.no_autoflush:  # it warns of its own half-made rows
                _fill(api, book, standings)
            book.db.commit()
        finally:
            book.close()
        os.chmod(part, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(part, path)
    except OSError as error:
        raise CourseError(f"cannot write {path}: {error.strerror}; choose another folder") from None
    except CourseError:
        raise
    except Exception as error:  # nbgrader's own errors have no common class
        said = " ".join(str(error).split())[:200]
        raise CourseError(f"{path} can't be brought up to date: {said}; move it away and try again") from None
    finally:
        if part and os.path.exists(part):
            os.unlink(part)


@contextmanager
def _commands_found() -> Iterator[None]:
    """nbgrader calls `alembic` by name; it stands beside this Python, which need not be on the path."""
    before = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _fill(api: Any, book: Any, standings: list[Standing]) -> None:
    cells: dict[str, dict[str, str]] = {}  # {lesson: {exercise: id of the grade cell}}
    for lesson, points in lesson_exercises(standings).items():
        name = lesson_name(lesson)
        book.update_or_create_assignment(name)
        book.update_or_create_notebook(name, name)
        cells[lesson] = {}
        for exercise, out_of in points.items():
            key = exercise.replace(".", "-")
            cell = book.update_or_create_grade_cell(f"{key}-check", name, name, max_score=out_of, cell_type="code")
            book.update_or_create_solution_cell(key, name, name)
            cells[lesson][exercise] = cell.id
    for s in standings:
        id = student_id(s.learner)
        book.update_or_create_student(id, last_name=one_line(s.learner))
        for r in s.reports:
            if r.lesson not in cells:
                continue
            name = lesson_name(r.lesson)
            submission = book.update_or_create_submission(
                name, id, **({"timestamp": s.graded_at[r.lesson].isoformat()} if s.graded_at else {}))
            (notebook,) = submission.notebooks
            there = {grade.cell_id: grade for grade in notebook.grades}
            looked = {f.exercise for f in r.flags} | s.unsandboxed
            scores = {g.exercise: g for g in r.grades}
            for exercise, cell in cells[r.lesson].items():
                grade = there.get(cell)
                if grade is None:  # the exercise is younger than the submission
                    grade = api.Grade(cell_id=cell, notebook_id=notebook.id)
                    book.db.add(grade)
                g = scores.get(exercise)
                grade.auto_score = g.points if g else None
                grade.needs_manual_grade = grade.manual_score is None and (
                    g is None or exercise in looked or "" in looked or any(o.crashed for o in g.outcomes))
            for comment in notebook.comments:
                g = scores.get(comment.name.replace("-", ".", 1))
                said = [r.problem or (g and g.problem)]
                said += [g.first_failure.message] if g and g.attempted and g.first_failure else []
                said += [UNSANDBOXED] if g and g.exercise in s.unsandboxed else []
                comment.auto_comment = one_line("; ".join(filter(None, said))) or None
