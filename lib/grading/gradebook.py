"""The gradebook: every grade there ever was, in a database, and which of them counts now.

SQLite in one file by default; any PostgreSQL by URL. What is written is never changed and never deleted: a
submission graded anew, after an exercise was mended, gets further rows, and the newest counts.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from lib.errors import CourseError
from lib.exercises.result import Outcome
from lib.grading.cleaning import clean
from lib.grading.grades import MOST, Flag, Grade, Report

SCHEMA = 1
SQLITE, POSTGRESQL = "sqlite", "postgresql"


class Moment(sa.TypeDecorator):
    """A time, kept as UTC without a zone (SQLite knows none), read with it."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


def _key() -> sa.Column:
    # SQLite counts only a column of exactly INTEGER by itself.
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, SQLITE), primary_key=True)


def _to(table: str) -> sa.Column:
    return sa.Column(f"{table}_id", sa.ForeignKey(f"{table}s.id"), nullable=False, index=True)


def _text(name: str) -> sa.Column:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column:
    return sa.Column(name, sa.Integer, nullable=False)


def _bool(name: str) -> sa.Column:
    return sa.Column(name, sa.Boolean, nullable=False)


def _moment(name: str) -> sa.Column:
    return sa.Column(name, Moment, nullable=False)


# seen_at: when it was last graded or found to be graded already; the newest counts.
META = sa.MetaData()
VERSION = sa.Table("gradebook_schema", META, sa.Column("version", sa.Integer, primary_key=True))
LEARNERS = sa.Table("learners", META, _key(), sa.Column("name", sa.Text, nullable=False, unique=True))
SUBMISSIONS = sa.Table(
    "submissions", META, _key(), _to("learner"), _text("lesson"), _text("path"), _text("digest"), _text("seed"),
    _bool("sandboxed"), sa.Column("seconds", sa.Float, nullable=False), _text("problem"), _moment("graded_at"),
    _moment("seen_at"), sa.UniqueConstraint("learner_id", "lesson", "digest"),
)
GRADES = sa.Table(
    "grades", META, _key(), _to("submission"), _text("exercise"), _text("version"), _number("points"),
    _number("out_of"), _bool("attempted"), _text("problem"), _text("outcomes"), _text("seed"), _bool("sandboxed"),
    _moment("graded_at"), _moment("seen_at"),
    sa.UniqueConstraint("submission_id", "exercise", "version", "sandboxed"),
)
FLAGS = sa.Table(
    "flags", META, _key(), _to("submission"), _text("exercise"), _text("what"), _number("line"),
    sa.UniqueConstraint("submission_id", "exercise", "what", "line"),
)


@dataclass(frozen=True)
class Standing:
    """What counts for one learner: per lesson the newest submission, per exercise its newest grade.

    reports: first those of files of no lesson (lesson "", with a problem), then one a lesson, in order; `sandboxed`
    is False where any grade was made without isolation. unsandboxed: the exercises of those. graded_at: {lesson: when}.
    """

    learner: str
    reports: tuple[Report, ...] = ()
    unsandboxed: frozenset[str] = frozenset()
    graded_at: dict[str, datetime] | None = None

    @property
    def points(self) -> int:
        return sum(r.points for r in self.reports)

    @property
    def out_of(self) -> int:
        return sum(r.out_of for r in self.reports)


@dataclass(frozen=True)
class Entry:
    """One grade in a learner's history, and the file it was for."""

    grade: Grade
    path: str
    digest: str
    seed: int
    sandboxed: bool
    graded_at: datetime


@dataclass(frozen=True)
class Change:
    """A grade that a re-grade of the same file changed."""

    learner: str
    exercise: str
    before: Grade
    after: Grade


class Gradebook:
    """Grades in a database; a context manager. Every method raises CourseError, one line, where it can't be used.

    where: the path of a SQLite file, made if it isn't there, or a URL (sqlite:///FILE, postgresql://USER@HOST/NAME).
    timeout: seconds to wait while another program holds the database. Any number of graders may write at once.
    """

    def __init__(self, where: str | Path, timeout: float = 30):
        self.where, self._timeout = str(where), timeout
        self._engine = self._connect()
        try:
            with self._explained():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Gradebook":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    # --- what is there ---

    def graded(self, learner: str, lesson: str, digest: str, isolated: bool = False) -> dict[str, str]:
        """{exercise: version of its newest grade} for this very file. isolated: leave out unsandboxed grades."""
        query = self._of(GRADES.c.exercise, GRADES.c.version).where(
            LEARNERS.c.name == plain(learner), SUBMISSIONS.c.lesson == lesson, SUBMISSIONS.c.digest == digest)
        if isolated:
            query = query.where(GRADES.c.sandboxed)
        return {row.exercise: row.version for row in self._read(query.order_by(GRADES.c.seen_at, GRADES.c.id))}

    def problem(self, learner: str, lesson: str, digest: str) -> str | None:
        """Why this very file could not be graded; "" if it could, None if the gradebook doesn't know it."""
        rows = self._read(sa.select(SUBMISSIONS.c.problem).join(LEARNERS).where(
            LEARNERS.c.name == plain(learner), SUBMISSIONS.c.lesson == lesson, SUBMISSIONS.c.digest == digest))
        return rows[0].problem if rows else None

    def standings(self) -> list[Standing]:
        """What counts now, by learner's name."""
        newest: dict[tuple[str, str, str], Any] = {}
        for row in self._read(sa.select(SUBMISSIONS, LEARNERS.c.name).join(LEARNERS).order_by(
                SUBMISSIONS.c.seen_at, SUBMISSIONS.c.id)):
            # A file of no lesson counts by its path, until something else of this learner's stands there.
            newest.pop((row.name, "", row.path), None)
            newest[row.name, row.lesson, "" if row.lesson else row.path] = row
        grades: dict[int, dict[str, Any]] = {row.id: {} for row in newest.values()}
        for row in self._read(sa.select(GRADES).order_by(GRADES.c.seen_at, GRADES.c.id)):
            if row.submission_id in grades:
                mine = grades[row.submission_id]
                old = mine.get(row.exercise)
                if not old or old.version != row.version or row.sandboxed:  # of one version, the sandboxed counts
                    mine[row.exercise] = row
        flags: dict[int, list[Flag]] = {}
        for row in self._read(sa.select(FLAGS).order_by(FLAGS.c.exercise, FLAGS.c.line, FLAGS.c.id)):
            flags.setdefault(row.submission_id, []).append(Flag(row.exercise, row.what, row.line or None))
        found: dict[str, list[Any]] = {}
        for key in sorted(newest):
            found.setdefault(key[0], []).append(newest[key])
        standings = []
        for name, rows in found.items():
            kept = {row.id: [grades[row.id][e] for e in sorted(grades[row.id])] for row in rows}
            reports = tuple(Report(
                name, row.lesson, row.path, "" if row.digest in (row.path, _place(row.path)) else row.digest,
                int(row.seed),
                all(g.sandboxed for g in kept[row.id]) if kept[row.id] else row.sandboxed, row.seconds,
                tuple(map(_grade, kept[row.id])), tuple(flags.get(row.id, ())), row.problem) for row in rows)
            loose = frozenset(g.exercise for row in rows for g in kept[row.id] if not g.sandboxed)
            standings.append(Standing(name, reports, loose, {row.lesson: row.graded_at for row in rows}))
        return standings

    def history(self, learner: str, exercise: str) -> list[Entry]:
        """Every grade of a learner's exercise there ever was, oldest first."""
        rows = self._read(self._of(GRADES, SUBMISSIONS.c.path, SUBMISSIONS.c.digest).where(
            LEARNERS.c.name == plain(learner), GRADES.c.exercise == exercise).order_by(GRADES.c.id))
        return [Entry(_grade(r), r.path, r.digest, int(r.seed), r.sandboxed, r.graded_at) for r in rows]

    def changes(self, since: datetime) -> list[Change]:
        """Which points a re-grade of the same file changed after `since` (with a time zone), and from what to what.

        Only of files that count: a learner's newest of each lesson.
        """
        if since.tzinfo is None:
            raise CourseError("changes(since) needs a time with its zone; use datetime.now(UTC)")
        counts = {(s.learner, r.lesson, r.digest) for s in self.standings() for r in s.reports}
        rows: dict[tuple[str, str], list[Any]] = {}
        for row in self._read(self._of(GRADES, LEARNERS.c.name, SUBMISSIONS.c.lesson, SUBMISSIONS.c.digest).order_by(
                LEARNERS.c.name, GRADES.c.exercise, GRADES.c.id)):
            if (row.name, row.lesson, row.digest) in counts:
                rows.setdefault((row.name, row.exercise), []).append(row)
        changes = []
        for key, grades in rows.items():
            then = [g for g in grades if g.graded_at <= since]
            if then:
                # Of a grade found again since, it is forgotten when it had last been seen before.
                before = max(then, key=lambda g: (g.seen_at if g.seen_at <= since else g.graded_at, g.id))
                after = max(grades, key=lambda g: (g.seen_at, g.id))
                if (before.points, before.out_of) != (after.points, after.out_of):
                    changes.append(Change(*key, _grade(before), _grade(after)))
        return changes

    # --- what is new ---

    def write(self, report: Report) -> str:
        """Keep a report, all of it or nothing; when this returns, it is on the disk. Twice is the same as once.

        A grade that is there already for this file and version stays as it is. A report without grades and problem
        only says that this file is the learner's newest again. Of what no database takes, only that it could not be
        kept is kept, so that it costs nobody else anything; then this returns the reason, else "".
        """
        try:
            self._write(report)
            return ""
        except (NotKept, UnicodeError, OverflowError, ValueError, TypeError) as error:
            why = f"its result cannot be kept in the gradebook ({type(error).__name__}); a person should look at it"
            with contextlib.suppress(NotKept, UnicodeError, OverflowError, ValueError, TypeError):
                digest = report.digest or hashlib.sha256(repr(report.path).encode()).hexdigest()
                self._write(Report(report.learner, report.lesson, report.path, digest, problem=why))
            return why

    def _write(self, report: Report) -> None:
        now = datetime.now(UTC)
        learner = {"name": report.learner}  # all of a report's text is fit to be kept (lib.grading.grades)
        seed, ran = str(report.seed), bool(report.grades or report.problem)
        with self._writing() as connection:
            self._put(connection, LEARNERS, [learner], ["name"])
            mine = {"learner_id": self._id(connection, LEARNERS, learner), "lesson": report.lesson,
                    "digest": report.digest or _place(report.path)}
            self._put(connection, SUBMISSIONS, [mine | {
                "path": report.path, "seed": seed, "sandboxed": report.sandboxed, "seconds": report.seconds,
                "problem": report.problem, "graded_at": now, "seen_at": now}],
                list(mine), ["seen_at", *(["path", "seed", "sandboxed", "seconds", "problem"] if ran else [])])
            of = {"submission_id": self._id(connection, SUBMISSIONS, mine)}
            self._put(connection, GRADES, [of | {
                "exercise": g.exercise, "version": g.version, "sandboxed": report.sandboxed, "points": g.points,
                "out_of": g.out_of, "attempted": g.attempted, "problem": g.problem, "seed": seed,
                "outcomes": json.dumps([asdict(o) for o in g.outcomes], allow_nan=False),
                "graded_at": now, "seen_at": now}
                for g in sorted(report.grades, key=lambda g: g.exercise)],  # one order, so that no two wait in a ring
                ["submission_id", "exercise", "version", "sandboxed"], ["seen_at"])
            again = [g.exercise for g in report.grades]  # what was flagged there before need not hold any more
            connection.execute(FLAGS.delete().where(
                FLAGS.c.submission_id == of["submission_id"], FLAGS.c.exercise.in_(again)))
            flags = [of | {"exercise": f.exercise, "what": f.what, "line": f.line or 0} for f in report.flags]
            self._put(connection, FLAGS, sorted(flags, key=lambda f: (f["exercise"], f["what"], f["line"])),
                      ["submission_id", "exercise", "what", "line"])

    # --- the database ---

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._explained(), self._engine.connect() as connection:
            connection = connection.execution_options(course_writes=True)
            with connection.begin():
                yield connection

    def _put(self, connection: sa.Connection, table: sa.Table, rows: list[dict], key: list[str],
             again: list[str] | None = None) -> None:
        """Insert rows; of one whose key is there already, only the columns `again` are changed."""
        insert = (sqlite if self._engine.dialect.name == SQLITE else postgresql).insert(table)
        if again:
            insert = insert.on_conflict_do_update(index_elements=key, set_={c: insert.excluded[c] for c in again})
        else:
            insert = insert.on_conflict_do_nothing(index_elements=key)
        if rows:
            connection.execute(insert, rows)

    def _id(self, connection: sa.Connection, table: sa.Table, key: dict) -> int:
        return connection.execute(sa.select(table.c.id).filter_by(**key)).scalar_one()

    def _of(self, *columns: Any) -> sa.Select:
        return sa.select(*columns).select_from(GRADES.join(SUBMISSIONS).join(LEARNERS))

    def _read(self, query: sa.Select) -> list[Any]:
        with self._explained(), self._engine.connect() as connection:
            return list(connection.execute(query))

    def _connect(self) -> sa.Engine:
        try:
            url = sa.make_url(self.where) if "://" in self.where else sa.URL.create(SQLITE, database=self.where)
        except (exc.ArgumentError, ValueError):
            raise CourseError(f"{_hidden(self.where)} is no database URL; {FORMS}") from None
        self.where = url.database or ":memory:" if url.drivername == SQLITE else url.render_as_string()
        if url.drivername == "postgres":
            url = url.set(drivername=POSTGRESQL)
        kind, _, driver = url.drivername.partition("+")
        if kind not in (SQLITE, POSTGRESQL):
            raise CourseError(f"the gradebook can't be kept in {kind!r}; {FORMS}")
        if kind == POSTGRESQL and not driver:
            url = url.set(drivername="postgresql+psycopg")
        session = f"-c lock_timeout={int(self._timeout * 1000)} {url.query.get('options', '')}"
        options = {"timeout": self._timeout} if kind == SQLITE else {
            "connect_timeout": max(2, round(min(self._timeout, 10))), "options": session}
        try:
            engine = sa.create_engine(url, connect_args=options, pool_pre_ping=kind == POSTGRESQL)
        except ModuleNotFoundError as error:
            raise CourseError(f"{self.where} needs the Python package {error.name}; `pip install {error.name}`, "
                              "or write postgresql:// for the driver that the course installs") from None
        except (exc.NoSuchModuleError, exc.ArgumentError):
            raise CourseError(f"there is no driver {driver!r} for {kind}; {FORMS}") from None
        if kind == SQLITE:
            sa.event.listen(engine, "connect", self._tune)
            sa.event.listen(engine, "begin", _begin)
        return engine

    def _tune(self, connection: Any, _: Any) -> None:
        """A log beside the file (WAL), so that readers and a writer don't stop each other; flushed at each commit."""
        connection.isolation_level = None  # we begin transactions ourselves
        deadline = time.monotonic() + self._timeout
        while connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break  # some file systems can't; then it stays as it was
            except Exception as error:  # while two graders make one file, this one asks without waiting
                code = getattr(error, "sqlite_errorname", "")
                if code.startswith("SQLITE_READONLY"):
                    break
                if not code.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    def _prepare(self) -> None:
        """Make the tables in an empty database; else see that they are of this schema."""
        with self._engine.begin() as connection:
            names = set(sa.inspect(connection).get_table_names())
        if VERSION.name not in names:
            with self._writing() as connection:
                if connection.dialect.name == POSTGRESQL:  # two graders may both find it empty
                    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(20170612)")
                names = set(sa.inspect(connection).get_table_names())
                if VERSION.name not in names:
                    strange = names if connection.dialect.name == SQLITE else names & set(META.tables)
                    if strange:
                        raise CourseError(f"{self.where} is another program's database (it has the table "
                                          f"{min(strange)!r}); name a file of its own for the gradebook")
                    META.create_all(connection)
                    connection.execute(VERSION.insert().values(version=SCHEMA))
        with self._engine.begin() as connection:
            found = connection.execute(sa.select(sa.func.max(VERSION.c.version))).scalar() or 0
        if found > SCHEMA:
            raise CourseError(f"{self.where} was written by a newer version of the course (schema {found}, this one "
                              f"knows {SCHEMA}); update the course")
        if found < SCHEMA:
            raise CourseError(f"{self.where} was written by an older version of the course (schema {found}, this one "
                              f"needs {SCHEMA}); keep it as it is and grade into a new file")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what a database says into one line for a person."""
        try:
            yield
        except exc.DBAPIError as error:
            raise CourseError(self._explain(error.orig)) from None
        except exc.SQLAlchemyError as error:
            raise CourseError(f"the gradebook {self.where}: {str(error).splitlines()[0]}") from None

    def _explain(self, error: Any) -> str:
        code = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
        said = " ".join(str(error).split())
        if code.startswith(ITS_OWN):
            raise NotKept(f"the gradebook {self.where} does not take an entry: {said[:200]}") from None
        for known, means in SAID.items():
            if code.startswith(known):
                return f"the gradebook {self.where} {means}"
        if self._engine.dialect.name == POSTGRESQL and not code:
            return f"cannot enter the database {self.where}: {said}; is it running, is the URL right?"
        return f"the gradebook {self.where}: {said} ({code or type(error).__name__})"


class NotKept(CourseError):
    """What was to be written is of a kind or size that no database takes: the entry's trouble, not the database's."""


# SQLite: too big, of a wrong type. PostgreSQL: data exceptions, and what is longer than an index or a row may be.
ITS_OWN = ("SQLITE_TOOBIG", "SQLITE_MISMATCH", "SQLITE_CONSTRAINT_DATATYPE", "22", "54")
FORMS = "give a file name, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"

# The start of SQLite's error name or of PostgreSQL's SQLSTATE, and what to do.
_LOCKED = "is held by another program; close what has it open, then try again: nothing that was written is lost"
_READONLY = "may only be read; give yourself the right to write to it, or use another"
_FULL = "can't grow: the disk is full; make room, then run the same command again: nothing that was written is lost"
SAID = {
    "SQLITE_BUSY": _LOCKED, "SQLITE_LOCKED": _LOCKED, "55P03": _LOCKED,
    "SQLITE_READONLY": _READONLY, "25006": _READONLY, "42501": _READONLY,
    "SQLITE_FULL": _FULL, "53100": _FULL, "SQLITE_IOERR_WRITE": _FULL,
    "SQLITE_NOTADB": "is not a database; name another file, or move this one away",
    "SQLITE_CORRUPT": "is damaged; move it away and restore a copy, or grade anew into a new file",
    "SQLITE_CANTOPEN": "can't be opened; its folder must exist, and you must be allowed to write there",
    "42P01": "has lost a table; grade anew into another database",
}


def plain(learner: str) -> str:
    """A learner's name as a record has it."""
    return clean(learner, MOST["learner"])


def _place(path: str) -> str:
    """What stands for the digest of a file that nobody could read: where it was. An index takes no long text."""
    return f"at {hashlib.sha256(path.encode()).hexdigest()}"


def _begin(connection: sa.Connection) -> None:
    # A writer takes the lock at once: one that reads first and then finds another writing would have to give up.
    writes = connection.get_execution_options().get("course_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _hidden(url: str) -> str:
    """A malformed URL without what may be a password in it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}" if "@" in rest else url


def _grade(row: Any) -> Grade:
    known = {f.name for f in fields(Outcome)}
    outcomes = tuple(Outcome(**{k: v for k, v in o.items() if k in known}) for o in json.loads(row.outcomes))
    return Grade(row.exercise, row.version, row.points, row.out_of, row.attempted, outcomes, row.problem)
