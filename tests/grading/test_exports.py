"""What leaves the gradebook: in the form each reader expects, safe whatever a learner is called."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lib.errors import CourseError
from lib.exercises.result import Outcome
from lib.grading import exports
from lib.grading.exports import UNSANDBOXED, file_name, one_line, student_id
from lib.grading.gradebook import Standing
from lib.grading.grades import Flag, Grade, Report

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HIDDEN = "expected 0.123, got 9.87"
MASK = Grade("02.causal_mask", "v1", 1, 3, True, (
    Outcome("by hand", 1, 1), Outcome("any length", 0, 2, "It is transposed.", HIDDEN)))
STUB = Grade("02.attention", "v1", 0, 5, False, (Outcome("adds up", 0, 5, "This part still raises."),))
SLOW = Grade("02.attention", "v1", 0, 5, True, (), "it ran out of time")
LESSON = Report("ann", "02", "ann/02.ipynb", "d1", 7, True, 1.6, (STUB, MASK),
                (Flag("02.causal_mask", "calls tril", 3),))
BROKEN = Report("bob", "02", "bob/02.ipynb", "d2", problem="the file is not JSON")
ANN = Standing("ann", (LESSON,), frozenset(), {"02": NOW})
BOB = Standing("bob", (BROKEN,), frozenset(), {"02": NOW})
CYD = Standing("cyd", (replace(LESSON, learner="cyd", sandboxed=False, grades=(SLOW, MASK), flags=()),),
               frozenset({"02.attention", "02.causal_mask"}), {"02": NOW})
CLASS = [ANN, BOB, CYD]
POSSIBLE = sum(exports.lesson_exercises(CLASS)["02"].values())

NAMES = ["=HYPERLINK(\"http://x\",\"y\")", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", " =1", "\t=1", "\r=1", "＝1",
         "＋1", "a\nb", "a\r\nb,c\"d", "../../etc/passwd", "a/b", "a\\b", "CON", "..", "", " ", "Ann", "ann", "Ánn",
         "名前", "\u202egnp.exe", "x" * 500, "\x00", "'=1", "ann-" + "0" * 64]


def named(name):
    return replace(ANN, learner=name, reports=(replace(LESSON, learner=name),))


def table(text):
    return list(csv.reader(io.StringIO(text)))


ALL_CSV = [exports.grades_csv, exports.gradebook_csv, exports.canvas_csv, exports.moodle_csv]


# --- names ---


def test_file_names_are_safe_distinct_and_stable():
    names = [file_name(name) for name in NAMES]
    assert len({name.lower() for name in names}) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and 64 <= len(name) < 120 for name in names)
    assert file_name("Ann B").startswith("ann-b-1923efbf9444") and len(file_name("Ann B")) == 6 + 64


def test_student_ids_are_the_names_where_nbgrader_can_use_them():
    ids = [student_id(name) for name in NAMES]
    assert len(set(ids)) == len(ids) and student_id("ann.b@example.org") == "ann.b@example.org"
    assert student_id(file_name("a/b")) != student_id("a/b")


@pytest.mark.parametrize("export", ALL_CSV)
@pytest.mark.parametrize("name", NAMES)
def test_no_name_becomes_a_formula_or_a_second_row(export, name):
    rows = table(export([named(name)]))
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == len(table(export([ANN])))
    for row in rows:
        for cell in row:
            assert cell.strip()[:1] not in ("=", "+", "-", "@", "＝", "＋"), cell
            assert cell.isprintable(), cell


@pytest.mark.parametrize("login", ["@ann", "-bob", "@ann.b-c", "-x@example.org", "ann", "@Ünn"])
def test_a_login_stays_what_another_system_finds_its_learner_by(login):
    """The tables for people have the apostrophe all the same."""
    mark = "'" if login[0] in "@-" else ""
    key = login if login.isascii() else mark + login
    assert table(exports.canvas_csv([named(login)]))[2][3] == table(exports.moodle_csv([named(login)]))[1][0] == key
    assert table(exports.gradebook_csv([named(login)]))[2][0] == mark + login


def test_canvas_finds_who_came_from_there_by_its_own_number():
    name = "leeann_12345"
    report = replace(LESSON, learner=name, path=f"class/{name}_67890_02_attention.ipynb")
    assert table(exports.canvas_csv([replace(ANN, learner=name, reports=(report,))]))[2][:4] == [name, "12345", "", ""]
    assert table(exports.canvas_csv([named("student_01")]))[2][:4] == ["student_01", "", "", "student_01"]


def test_what_a_learner_wrote_becomes_no_formula_either():
    wrong = replace(MASK, problem="=1+1", outcomes=())
    text = exports.grades_csv([replace(ANN, reports=(replace(LESSON, grades=(wrong,), flags=()),))])
    assert "'=1+1" in text


def test_one_line_keeps_letters_of_every_script():
    for text in ("名前", "نرم\u200cافزار", "Zoë", "🙂"):
        assert one_line(text) == text
    assert one_line("a\nb\u202e\x00") == "a\\nb\\u202e\\x00"


# --- our own ---


def test_json_explains_itself_and_hides_what_is_hidden():
    text = exports.grades_json(CLASS)
    data = json.loads(text)
    assert (data["format"], data["version"], data["sandboxed"]) == ("transformer-course grades", 1, False)
    ann, bob, cyd = data["learners"]
    (lesson,) = ann["lessons"]
    assert (ann["name"], ann["points"], ann["out_of"]) == ("ann", 1, 8)
    assert (lesson["name"], lesson["sha256"], lesson["graded_at"]) == ("02_attention", "d1", NOW.isoformat())
    assert lesson["flags"] == [{"exercise": "02.causal_mask", "what": "calls tril", "line": 3}]
    stub, mask = lesson["exercises"]
    assert (stub["attempted"], stub["problem"], mask["version"], mask["sandboxed"]) == (False, None, "v1", True)
    assert [(p["name"], p["passed"], p["points"], p["out_of"]) for p in mask["properties"]] == [
        ("by hand", True, 1, 1), ("any length", False, 0, 2)]
    (lesson,) = bob["lessons"]
    assert lesson["points"] is None and lesson["problem"] == "the file is not JSON"
    assert not cyd["lessons"][0]["sandboxed"] and not cyd["lessons"][0]["exercises"][0]["sandboxed"]


def test_nothing_hidden_in_any_export(tmp_path, nbgrader):
    for path in exports.write(CLASS, tmp_path):
        assert HIDDEN not in path.read_text(encoding="utf-8")
    exports.nbgrader_db(CLASS, tmp_path / "gradebook.db")
    assert HIDDEN.encode() not in (tmp_path / "gradebook.db").read_bytes()


def test_one_row_for_each_learner_and_exercise():
    header, *rows = table(exports.grades_csv(CLASS))
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(r["learner"], r["exercise"], r["points"], r["out_of"], r["sandboxed"]) for r in rows] == [
        ("ann", "02.attention", "0", "5", "yes"), ("ann", "02.causal_mask", "1", "3", "yes"),
        ("bob", "", "", "", "yes"),
        ("cyd", "02.attention", "0", "5", "no"), ("cyd", "02.causal_mask", "1", "3", "no")]
    assert [r["attempted"] for r in rows[:2]] == ["no", "yes"]
    assert (rows[1]["first_failure"], rows[1]["flags"]) == ("any length", "calls tril")
    assert (rows[2]["problem"], rows[3]["problem"]) == ("the file is not JSON", "it ran out of time")


def test_totals_by_lesson():
    next_one = replace(LESSON, lesson="03", grades=(Grade("03.x", "v", 2, 2, True),), flags=())
    two = replace(ANN, reports=(LESSON, next_one))
    header, possible, ann, bob, cyd = table(exports.gradebook_csv([two, BOB, CYD]))
    assert header == ["learner", "02_attention", "03_multi_head_attention", "total", "notes"]
    assert possible[1] == str(POSSIBLE) and int(possible[3]) == int(possible[1]) + int(possible[2])
    assert ann[:4] == ["ann", "1", "2", "3"] and "calls tril (line 3)" in ann[4]
    assert bob[:4] == ["bob", "", "", ""] and "the file is not JSON" in bob[4]
    assert UNSANDBOXED in cyd[4] and "it ran out of time" in cyd[4]


def test_a_file_of_no_lesson_is_named_and_makes_no_column(tmp_path, nbgrader):
    odd = Standing("dan", (Report("dan", "", "dan/x.ipynb", "", problem="no exercise in it"),), frozenset(), {"": NOW})
    for export in (exports.gradebook_csv, exports.canvas_csv, exports.moodle_csv):
        assert table(export([ANN, odd]))[0] == table(export([ANN]))[0]
    assert table(exports.gradebook_csv([odd]))[-1] == ["dan", "", "dan/x.ipynb: no exercise in it"]
    assert "no exercise in it" in exports.grades_csv([odd])
    assert json.loads(exports.grades_json([odd]))["learners"][0]["lessons"][0]["problem"] == "no exercise in it"
    assert "a file of no lesson: not graded" in exports.gradescope_json(odd)
    exports.nbgrader_db([odd], tmp_path / "gradebook.db")


# --- other systems ---


def test_canvas_has_its_five_columns_and_its_second_row():
    header, possible, ann, bob, cyd = table(exports.canvas_csv(CLASS))
    assert header == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section",
                      "02_attention", f"02_attention ({UNSANDBOXED})"]
    assert possible[0].strip() == "Points Possible" and possible[5:] == [str(POSSIBLE)] * 2
    assert ann == ["ann", "", "", "ann", "", "1", ""]
    assert bob[5:] == ["", ""], "not known is not zero"
    assert cyd[5:] == ["", "1"], "a grade without a sandbox never mixes with the others"
    assert len(table(exports.canvas_csv([ANN]))[0]) == 6


def test_moodle_has_a_user_a_grade_and_feedback():
    header, ann, bob, cyd = table(exports.moodle_csv(CLASS))
    assert header == ["Username", "02_attention", "Feedback: 02_attention"]
    assert ann == ["ann", "1", "02.attention 0 of 5; 02.causal_mask 1 of 3"]
    assert bob == ["bob", "", "Not graded: the file is not JSON"] and UNSANDBOXED in cyd[2]


def test_gradescope_takes_it():
    keys = {"score", "execution_time", "output", "output_format", "test_output_format", "test_name_format",
            "visibility", "stdout_visibility", "extra_data", "tests", "leaderboard"}
    case = {"score", "max_score", "status", "name", "name_format", "number", "output", "output_format", "tags",
            "visibility", "extra_data"}
    for standing in CLASS:
        data = json.loads(exports.gradescope_json(standing))
        assert set(data) <= keys and all(set(test) <= case for test in data["tests"])
        assert data["score"] == standing.points == sum(test.get("score", 0) for test in data["tests"])
        assert all(test.get("status", "passed") in ("passed", "failed") for test in data["tests"])
    ann, bob, cyd = (json.loads(exports.gradescope_json(s))["tests"] for s in CLASS)
    assert [(t["name"], t["score"], t["max_score"], t.get("output")) for t in ann] == [
        ("02.attention: adds up", 0, 5, "Not attempted."), ("02.causal_mask: by hand", 1, 1, None),
        ("02.causal_mask: any length", 0, 2, "It is transposed.")]
    assert bob == [{"name": "02_attention: not graded", "output": "the file is not JSON", "visibility": "visible"}]
    assert cyd[0]["output"] == "it ran out of time" and all(UNSANDBOXED in t["name"] for t in cyd)


def test_files_are_written_one_results_json_a_learner(tmp_path):
    standings = [named(name) for name in NAMES]
    paths = exports.write(standings, tmp_path)
    assert len(list(tmp_path.glob("gradescope/*/results.json"))) == len(NAMES)
    assert all(path.resolve().is_relative_to(tmp_path.resolve()) for path in paths)
    before = {path: path.read_bytes() for path in paths}
    exports.write(standings, tmp_path)
    assert before == {path: path.read_bytes() for path in paths}
    assert not list(tmp_path.rglob("*.part"))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match=r"cannot write .*; choose another"):
        exports.write(CLASS, tmp_path / "file")
    with pytest.raises(CourseError, match="cannot write"):
        exports.nbgrader_db(CLASS, tmp_path / "file" / "gradebook.db")


def test_an_empty_class(tmp_path, nbgrader):
    exports.write([], tmp_path)
    assert json.loads((tmp_path / "grades.json").read_text())["learners"] == []
    exports.nbgrader_db([], tmp_path / "gradebook.db")


# --- nbgrader ---


@pytest.fixture
def nbgrader(monkeypatch):
    """nbgrader's API, with the version of its schema asked of alembic once: a process of seconds each time."""
    from nbgrader import api

    if not hasattr(api, "version_of_schema"):
        with exports._commands_found():
            api.version_of_schema = api.get_alembic_version()
    monkeypatch.setattr(api, "get_alembic_version", lambda: api.version_of_schema)
    return api


def test_nbgraders_own_api_reads_the_grades(tmp_path, nbgrader):
    path = tmp_path / "gradebook.db"
    exports.nbgrader_db([*CLASS, named("a/b\n=1")], path)
    with nbgrader.Gradebook(f"sqlite:///{path}") as book:
        scores = {s.student.id: (s.score, s.needs_manual_grade) for s in book.assignment_submissions("02_attention")}
        assert scores == {"ann": (1, True), "bob": (0, True), "cyd": (1, True), student_id("a/b\n=1"): (1, True)}
        assert book.find_assignment("02_attention").max_score == POSSIBLE
        grade = book.find_grade("02-causal_mask-check", "02_attention", "02_attention", "ann")
        assert (grade.auto_score, grade.max_score, grade.needs_manual_grade) == (1, 3, True)  # flagged
        grade = book.find_grade("02-attention-check", "02_attention", "02_attention", "ann")
        assert (grade.auto_score, grade.needs_manual_grade) == (0, False)
        assert book.find_grade("02-attention-check", "02_attention", "02_attention", "bob").auto_score is None
        comment = book.find_comment("02-causal_mask", "02_attention", "02_attention", "cyd")
        assert comment.auto_comment == f"It is transposed.; {UNSANDBOXED}"


def test_what_a_person_entered_in_nbgrader_stays(tmp_path, nbgrader):
    path = tmp_path / "gradebook.db"
    exports.nbgrader_db([ANN], path)
    where = ("02-causal_mask-check", "02_attention", "02_attention", "ann")
    with nbgrader.Gradebook(f"sqlite:///{path}") as book:
        grade = book.find_grade(*where)
        grade.manual_score, grade.needs_manual_grade = 2.5, False
        book.find_comment("02-causal_mask", *where[1:]).manual_comment = "Nearly."
        book.db.commit()
    grades = (replace(MASK, points=3), Grade("02.new", "v", 4, 4, True))
    better = replace(ANN, reports=(replace(LESSON, grades=grades),))
    exports.nbgrader_db([better, CYD], path)
    with nbgrader.Gradebook(f"sqlite:///{path}") as book:
        grade = book.find_grade(*where)
        assert (grade.auto_score, grade.manual_score, grade.score, grade.needs_manual_grade) == (3, 2.5, 2.5, False)
        assert book.find_comment("02-causal_mask", *where[1:]).manual_comment == "Nearly."
        assert book.find_grade("02-new-check", *where[1:]).auto_score == 4
        assert len(book.assignment_submissions("02_attention")) == 2


def test_no_database_of_nbgraders(tmp_path, nbgrader):
    path = tmp_path / "gradebook.db"
    path.write_text("not one at all, in so many words " * 40)
    with pytest.raises(CourseError, match="move it away"):
        exports.nbgrader_db(CLASS, path)
    assert path.read_text().startswith("not one") and os.listdir(tmp_path) == ["gradebook.db"]


def test_without_nbgrader_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader", None)
    with pytest.raises(CourseError, match="pip install nbgrader"):
        exports.nbgrader_db(CLASS, tmp_path / "gradebook.db")


def test_nbgraders_command_exports_it(tmp_path, nbgrader):
    exports.nbgrader_db(CLASS, tmp_path / "gradebook.db")
    ran = subprocess.run([sys.executable, "-m", "nbgrader", "export", "--to", "all.csv"], cwd=tmp_path,
                         capture_output=True, text=True, env=os.environ | {"HOME": str(tmp_path)})
    assert ran.returncode == 0, ran.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text())))
    assert {(r["student_id"], float(r["score"]), float(r["max_score"])) for r in rows} == {
        ("ann", 1, POSSIBLE), ("bob", 0, POSSIBLE), ("cyd", 1, POSSIBLE)}
