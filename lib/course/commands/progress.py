"""`course progress`: how far a learner is, over all lessons; shown, written to a file, or removed."""

from pathlib import Path

import click

from lib.errors import CourseError
from lib.lesson import predictions
from lib.lesson.files import write_atomic
from lib.lesson.handmade import parts
from lib.lesson.journal import Chapter, Overview, checks, exported, journal, standings


@click.command("progress")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE.html", help="Also write it as a page.")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE.json", help="Also write all that is kept.")
@click.option("--remove", is_flag=True, help="Remove all that is kept of you; asks first.")
def progress(html: Path | None, export: Path | None, remove: bool) -> None:
    """Show your progress: exercises, points, tries and predictions.

    Whenever a check in a lesson runs, its points are kept on this machine and nowhere else, beside your predictions:
    in your user folder, or in COURSE_HOME. The page is one file that asks nobody for anything.
    """
    for path, suffix in ((html, ".html"), (export, ".json")):
        if path is not None and path.suffix != suffix:
            raise CourseError(f"{path} does not end in {suffix}; give a file name that does")
    overview = _overview()
    for note in overview.notes:
        click.echo(note, err=True)
    _show(overview)
    if html is not None:
        from lib.course.progress_page import page

        _write(html, page(overview))
    if export is not None:
        _write(export, exported(overview))
    if remove:
        _remove()


def _overview() -> Overview:
    from lib.exercises.outline import outline
    from lib.lesson import series

    made, notes = checks()
    guesses = predictions.everything()
    chapters = []
    for lesson in series.series():
        try:
            title = lesson.title
        except CourseError as problem:  # a notebook that was saved with conflict markers, say
            title, notes = lesson.name, [*notes, str(problem)]
        here = standings(outline(lesson.number), made)
        chapters.append(Chapter(lesson.number, title, here, guesses.get(lesson.number, {})))
    return Overview(chapters, made, guesses, notes)


def _show(overview: Overview) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("lesson", overflow="ellipsis", no_wrap=True)
    for name in ("passed", "points", "tries", "predictions right"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in overview.chapters:
        found = predictions.calibration(part.guesses.values())
        table.add_row(
            part.title,
            f"{part.passed} of {len(part.standings)}",
            f"{part.points} of {part.out_of}",
            str(part.tries or ""),
            f"{found.right} of {found.known}" if found.known else "",
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100  # a pipe has no width
    console.print(table)
    click.echo(f"\nExercises: {overview.passed} of {overview.exercises} passed, "
               f"{overview.points} of {overview.out_of} points.")  # fmt: skip
    click.echo(predictions.summary(predictions.every(overview.guesses)))
    if overview.next is not None:
        e = overview.next.exercise
        click.echo(f"Next: {e.id}, {e.title} ({_n(e.points, 'point')}, about {_n(e.minutes, 'minute')}).")
    if line := parts.standing():
        click.echo(line)
    click.echo(f"Kept in {predictions.home()}")


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text)
    except OSError as problem:
        raise CourseError(f"cannot write {path}: {problem.strerror}; choose another file") from None
    click.echo(f"Written: {path}")


def _remove() -> None:
    home, kept = predictions.home(), journal()
    paths = [kept] * kept.exists()
    for pattern in ("guesses/[0-9][0-9].*", "ledger/[!.]*", "own/*.py", "mine/*.py"):
        paths += sorted(home.glob(pattern))
    if not paths:
        click.echo("Nothing is kept of you here.")
        return
    what = "all checks, predictions, decisions, answers in use and parts of your transformer"
    click.confirm(f"Remove {_n(len(paths), 'file')}: {what}?", abort=True)
    try:
        for path in [*paths, *home.glob(".*.lock"), *home.glob("guesses/.*.lock"), *home.glob("ledger/.*.lock")]:
            path.unlink(missing_ok=True)
    except OSError as problem:
        raise CourseError(f"cannot remove {path}: {problem.strerror}; remove it by hand") from None
    click.echo("Removed. Answers in your notebooks are as they were.")


def _n(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
