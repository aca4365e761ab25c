"""`course grade`: judge submissions, keep the grades, tell everyone what they need to know."""

import contextlib
import hmac
import os
import re
import secrets
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lib.course.headless.runner import cores
from lib.errors import CourseError

MOST_FILES = 200  # of one learner
SHOWN = 20  # lines of each list on the terminal; the files have all


@click.command("grade")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("build/grades"),
              show_default=True, help="Folder for grades.json, the tables and the feedback pages.")
@click.option("--db", metavar="FILE|URL", help="The gradebook; default: gradebook.sqlite in the output folder.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Submissions side by side; default: one per core.")
@click.option("--timeout", type=click.FloatRange(min=1), default=40.0, show_default=True, metavar="SECONDS",
              help="What one answer may take; of computing, half as much.")
@click.option("--rules", type=click.Choice(["flag", "cost"]), default="flag", show_default=True,
              help="An answer that uses what it was to write: show a person, or give no points.")
@click.option("--learner", metavar="NAME", help="Whose a single notebook or folder is.")
@click.option("--seed", type=int, metavar="N", help="Draw the hidden inputs from N; default: fresh ones.")
@click.option("--regrade", is_flag=True, help="Judge anew what the gradebook has already.")
@click.option("--nbgrader", is_flag=True, help="Write nbgrader's gradebook.db too, for formgrader.")
@click.option("--unsandboxed", is_flag=True, help="Run answers without isolation. Every grade is marked so.")
def grade(
    paths: tuple[Path, ...],
    out: Path,
    db: str | None,
    jobs: int | None,
    timeout: float,
    rules: str,
    learner: str | None,
    seed: int | None,
    regrade: bool,
    nbgrader: bool,
    unsandboxed: bool,
) -> int:
    """Grade notebooks: one, a learner's folder, or a whole class.

    A class is a folder of learners' folders; a lesson's number is your own copy of that lesson. Answers run in a
    sandbox, verdicts are made outside it. Grades are kept as they are made: after an interruption, the same command
    finishes the rest; a file that has not changed is not judged again, unless its exercise has.

    Exit status 0: all was graded. 1: some submission could not be; the table says which and why.
    """
    from lib.grading.walls import begin

    paths = tuple(map(_own_copy, paths))
    console = Console()
    began, since = time.monotonic(), datetime.now(UTC)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CourseError(f"cannot make {out} ({error.strerror}); choose another folder with --out") from None
    hidden = tuple(str(p.absolute()) for p in (*paths, out))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # workers are forks of this process, which computes nothing
    begun = None
    with contextlib.suppress(CourseError):  # a worker will say it, if there is anything to judge
        begun = begin(not unsandboxed, hidden)  # a warm process takes as long to load PyTorch as we do
        click.get_current_context().call_on_close(begun.end)

    from lib.grading import exports, feedback
    from lib.grading.gradebook import Gradebook
    from lib.grading.pool import Settings, run
    from lib.grading.sandbox import Limits

    settings = Settings(Limits(wall=timeout, cpu=timeout / 2), not unsandboxed, rules == "cost", hidden)
    with Gradebook(db or out / "gradebook.sqlite") as book:
        work = Work(list(paths), out, learner, book, seed, regrade, not unsandboxed)
        try:
            with _bar(len(work.learners)) as (bar, task):

                def done(report) -> None:
                    report = work.noted(report)
                    if why := book.write(report):
                        work.notes.append((report.learner, Path(report.path), why))
                    name = _printable(report.learner)[:30]
                    bar.update(task, completed=work.finished(report.learner), description=name)

                account = run(work.jobs(), settings, jobs or cores(), done, begun)
        except KeyboardInterrupt:
            click.echo("course: interrupted; the same command goes on from here, nothing graded is lost", err=True)
            return 130
        standings = book.standings()
        changes = book.changes(since)
    exports.write(standings, out)
    feedback.write(standings, out / "feedback")
    if nbgrader:
        exports.nbgrader_db(standings, out / "gradebook.db")
    _summary(console, standings, changes, work, time.monotonic() - began)
    if account.startswith("from"):
        _say(console, f"Limits were counted {account}: docs/grading.md says what that means.")
    console.print(f"Grades, tables and feedback: {out}", highlight=False, markup=False, soft_wrap=True)
    return int(any(r.problem for s in standings if s.learner in work.learners for r in s.reports) or bool(work.notes))


def _own_copy(path: Path) -> Path:
    """The notebook that somebody means who gives a lesson's number or name; any other path as it is."""
    from lib.course.own_copy.workspace import own_copy
    from lib.lesson.series import find

    if path.exists():
        return path
    try:
        [lesson] = find([str(path)])
    except CourseError:
        return path
    return own_copy(lesson).path


class Work:
    """What there is to do, learner by learner, read only when its turn comes.

    learners: {name: their files}. notes: (learner, file, why it could not be graded). older: those that newer ones
    replace. judged, kept: lessons judged now, and known already.
    """

    def __init__(
        self, paths: list[Path], out: Path, learner: str | None, book, seed: int | None, regrade: bool, isolated: bool
    ):
        from lib.grading.cleaning import learner as name
        from lib.grading.submission import find

        self.book, self.out, self.seed, self.regrade, self.isolated = book, out, seed, regrade, isolated
        self.learners: dict[str, list] = {}
        for found in find(paths, learner, out):
            self.learners.setdefault(name(found.learner), []).append(found)
        self.notes: list[tuple[str, Path, str]] = []
        self.older: list[tuple[str, Path, str]] = []
        self.chosen: dict[tuple[str, str], str] = {}
        self.judged = self.kept = 0
        self._open: Counter[str] = Counter()
        self._read = 0

    def jobs(self):
        """Every lesson that is to be judged."""
        for who, files in self.learners.items():
            jobs = list(self._of(who, files))
            self._open[who] = len(jobs)
            self._read += 1
            yield from jobs

    def finished(self, who: str) -> int:
        """One of a learner's lessons is done: with how many learners are we through?"""
        self.judged += 1
        self._open[who] -= 1
        return self._read - sum(n > 0 for n in self._open.values())

    def noted(self, report):
        """The report, with what a person should know of how its file was chosen."""
        from lib.grading.grades import Flag

        said = self.chosen.get((report.learner, report.lesson))
        return replace(report, flags=(*report.flags, Flag("", said))) if said else report

    def _of(self, who: str, files: list):
        from lib.exercises.exercise import exercises
        from lib.grading.grades import Report
        from lib.grading.held import version
        from lib.grading.pool import Job
        from lib.grading.reading import read
        from lib.grading.submission import home, lessons, newest
        from lib.lesson.series import series

        handed_in: dict[str, list] = {}
        known = {lesson.number for lesson in series()}
        if len(files) > MOST_FILES:
            rest = f"{len(files)} files handed in; only the first {MOST_FILES} were looked at"
            self.notes.append((who, files[MOST_FILES].path, rest))
        for found in files[:MOST_FILES]:
            file = None if found.problem else read(found.path)
            problem = found.problem or file.problem
            here = {} if problem else lessons(file.cells)
            if not problem and not here:
                problem = "it holds no exercise of this course"
            if problem:
                self.notes.append((who, found.path, problem))
                digest = file.digest if file else ""
                lesson = home(found.path) if home(found.path) in known else ""
                self.book.write(Report(who, lesson, str(found.path), digest, problem=problem))
            for lesson, share in here.items():
                handed_in.setdefault(lesson, []).append((share, found.path, file))
        for lesson, several in handed_in.items():
            # A pasted cell brings its id along: of several notebooks, the one that is of the lesson most of all counts.
            named = [one for one in several if home(one[1]) == lesson] or several
            whole = [one for one in named if one[0] >= 0.5] or named
            alike = {re.sub(r"[\W_]*(\(\d+\)|copy\d*|\d+)$", "", one[1].stem.lower()) for one in whole}
            if len(alike) > 1 and not home(whole[0][1]) and whole[0][0] >= 0.5:
                names = " and ".join(sorted(one[1].name for one in whole)[:2])
                why = f"several notebooks of lesson {lesson}, {names}: whose are they? Give each learner a folder"
                for _, path, _ in whole:
                    self.notes.append((who, path, why))
                self.book.write(Report(who, lesson, str(whole[0][1]), whole[0][2].digest, problem=why))
                continue
            _, path, file = max(whole, key=lambda one: (newest(one[1]), one[0]))
            for other, left_out, _ in several:
                if left_out != path and other >= 0.5:
                    counts = f"{_told(path, left_out)} counts"
                    self.older.append((who, left_out, f"a second notebook of lesson {lesson}; {counts}"))
                    self.chosen[who, lesson] = f"several were handed in; {counts}"
            wanted = {e.id: version(e) for e in exercises(lesson)}
            graded = {} if self.regrade else self.book.graded(who, lesson, file.digest, isolated=self.isolated)
            todo = frozenset(id for id, version in wanted.items() if graded.get(id) != version)
            if todo:
                seed = secrets.randbits(62) if self.seed is None else _drawn(self.seed, self.out)
                yield Job(who, lesson, str(path), file.digest, file.cells, seed, todo)
            else:
                self.kept += 1
                # it is the learner's newest again
                self.book.write(self.noted(Report(who, lesson, str(path), file.digest)))


def _told(path: Path, other: Path) -> str:
    """A file's name, with its folder where another has the same name."""
    return path.name if path.name != other.name else f"{path.parent.name}/{path.name}"


def _drawn(seed: int, out: Path) -> int:
    """What hidden inputs are drawn from, told a seed: trying seeds finds it for nobody without the key in `out`."""
    path = out / "seed.key"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), open(path, "x", opener=_for_us) as file:
            file.write(secrets.token_hex(32))
    return int(hmac.new(path.read_bytes(), str(seed).encode(), "sha256").hexdigest()[:15], 16)


def _for_us(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, total: int):
        console = Console(stderr=True)
        who = TextColumn("{task.description}", markup=False)  # a learner's name
        columns = (who, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.progress.add_task("starting", total=total)

    def __enter__(self):
        self.progress.start()
        return self.progress, self.task

    def __exit__(self, *_) -> None:
        self.progress.stop()


def _summary(console: Console, standings, changes, work: Work, seconds: float) -> None:
    from lib.exercises.exercise import exercise
    from lib.grading.cleaning import learner

    lessons: dict[str, list] = {}
    for standing in standings:
        for report in standing.reports:
            if not report.problem:
                lessons.setdefault(report.lesson, []).append(report)
    table = Table(box=None, pad_edge=False)
    for name in ("lesson", "submissions", "mean points", "of", "full marks"):
        table.add_column(name, justify="left" if name == "lesson" else "right")
    for lesson, reports in sorted(lessons.items()):
        whole = max(r.out_of for r in reports)
        mean = sum(r.points for r in reports) / len(reports)
        full = sum(r.points == r.out_of > 0 for r in reports)
        table.add_row(lesson, str(len(reports)), f"{mean:.1f}", str(whole), str(full))
    console.print(table)

    share: dict[str, list[float]] = {}
    stumbles: dict[str, Counter] = {}
    for reports in lessons.values():
        for grade in (g for r in reports for g in r.grades if g.attempted):
            share.setdefault(grade.exercise, []).append(grade.points / grade.out_of)
            if first := grade.first_failure:
                stumbles.setdefault(grade.exercise, Counter())[first.name] += 1
    means = ((sum(s) / len(s), id) for id, s in share.items() if len(s) > 1)
    hardest = sorted((mean, id) for mean, id in means if mean < 1)[:3]
    for mean, id in hardest:
        common = stumbles.get(id, Counter()).most_common(1)
        why = f"; most often missed: {common[0][0]}" if common else ""
        _say(console, f"Hard: {id}, {exercise(id).title}: {mean:.0%} of its points{why}")

    look = []
    for standing in standings:  # a line each: nobody's flags hide another's
        theirs = []
        for report in standing.reports:
            for flag in report.flags:
                where = f", line {flag.line}" if flag.line else ""
                theirs.append(f"{flag.exercise}{where}: {flag.what}")
            theirs += [f"{g.exercise}: {g.problem}" for g in report.grades if g.problem]
        if theirs:
            more = f" (and {len(theirs) - 1} more)" if len(theirs) > 1 else ""
            look.append(f"{standing.learner}: {theirs[0]}{more}")
    _list(console, "Worth a person's look", look)
    _list(console, "Changed by this run", [
        f"{c.learner}: {c.exercise} from {c.before.points} to {c.after.points} of {c.after.out_of}" for c in changes
    ])  # fmt: skip
    _list(console, "Replaced by a newer one", [f"{who}: {path.name}: {why}" for who, path, why in work.older])
    left_out: dict[str, list[str]] = {}
    for who, path, why in work.notes:
        left_out.setdefault(who, []).append(why if learner(path.name) == who else f"{path.name}: {why}")
    _list(console, "Not graded", [
        f"{who}: {whys[0]}" + (f" (and {len(whys) - 1} more)" if whys[1:] else "") for who, whys in left_out.items()
    ])  # fmt: skip
    loose = sum(bool(s.unsandboxed) for s in standings)
    if loose:
        _say(console, f"Without isolation: grades of {loose} learners. They prove nothing against a dishonest answer.")
    what = f"{work.judged} notebook{'s' * (work.judged != 1)} judged"
    what += f", {work.kept} known already" if work.kept else ""
    _say(console, f"{what}, {seconds:.1f} s")


def _list(console: Console, title: str, lines: list[str]) -> None:
    if lines:
        _say(console, f"{title}:")
        for line in lines[:SHOWN]:
            _say(console, "  " + " ".join(line.split()))
        if len(lines) > SHOWN:
            _say(console, f"  and {len(lines) - SHOWN} more")


def _printable(text: str) -> str:
    """What a learner wrote, with whatever would command the terminal, or turn the line round, spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _say(console: Console, text: str) -> None:
    console.print(_printable(text), highlight=False, markup=False, soft_wrap=True)
