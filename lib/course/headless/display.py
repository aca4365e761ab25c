"""What a headless run shows: progress while it goes, a table at the end, an HTML index to keep."""

import html
from pathlib import Path
from urllib.parse import quote

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lib.course.headless.runner import Result, Task
from lib.errors import CourseError
from lib.lesson.files import write_atomic

STYLES = {"ok": "green", "failed": "bold red", "stopped": "yellow", "running": "cyan", "waiting": "dim"}


class Progress:
    """A live line per lesson on a terminal; elsewhere one plain line when a lesson begins and when it ends."""

    def __init__(self, console: Console):
        self.console = console
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, tasks: list[Task], changed: Task | None) -> None:
        if self.live:
            self.live.update(_lines(tasks), refresh=True)
        elif changed is not None:
            done = "started" if changed.state == "running" else f"{changed.state}, {changed.seconds:.1f} s"
            error = f": {changed.error}" if changed.error else ""
            self.console.print(f"{changed.job.name}: {done}{error}", markup=False, highlight=False, soft_wrap=True)


def _lines(tasks: list[Task]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for task in tasks:
        share = task.cell / task.cells if task.cells else 0.0
        if task.state == "ok":
            share = 1.0
        bar = "━" * round(20 * share)
        where = f"cell {task.cell} of {task.cells}" if task.cells else ""
        table.add_row(
            task.job.name,
            Text(bar, STYLES[task.state]) + Text("━" * (20 - len(bar)), "dim"),
            where,
            f"{task.seconds:.0f} s" if task.started else "",
            Text(task.state, STYLES[task.state]),
        )
    return table


def summary(console: Console, results: list[Result], kept: set[str], wall: float) -> None:
    """The table of a run, then one line for each lesson that failed."""
    table = Table(box=None, pad_edge=False)
    table.add_column("lesson", no_wrap=True)
    table.add_column("seconds", justify="right")
    table.add_column("cells", justify="right")
    table.add_column("result")
    for result in results:
        note = " (kept)" if result.name in kept else ""
        table.add_row(
            result.name, f"{result.seconds:.1f}", str(result.cells), Text(result.state + note, STYLES[result.state])
        )
    console.print(table)
    good = sum(result.state == "ok" for result in results)
    console.print(f"{good} of {len(results)} lessons ok, {wall:.1f} s", highlight=False)
    for result in results:
        if result.error:
            console.print(f"{result.name}, {result.error}", style="red", markup=False, highlight=False, soft_wrap=True)


def index(out: Path, results: list[Result]) -> Path:
    """Write `index.html`, one self-contained page that links to the executed notebooks."""
    rows = []
    for result in results:
        there = (out / f"{result.name}.ipynb").exists()
        name = html.escape(result.name)
        link = f'<a href="{quote(result.name)}.ipynb">{name}</a>' if there else name
        error = f'<div class="error">{html.escape(result.error)}</div>' if result.error else ""
        rows.append(
            f"<tr><td>{link}</td><td>{html.escape(result.title)}{error}</td><td>{html.escape(result.preset)}</td>"
            f'<td class="n">{result.seconds:.1f}</td><td class="n">{result.cells}</td>'
            f'<td class="{result.state}">{result.state}</td></tr>'
        )
    good = sum(result.state == "ok" for result in results)
    page = PAGE.replace("@ROWS@", "\n".join(rows)).replace("@GOOD@", f"{good} of {len(results)}")
    path = out / "index.html"
    try:
        write_atomic(path, page)
    except OSError as problem:
        raise CourseError(f"cannot write {path}: {problem.strerror}; choose another --out") from None
    return path


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark">
<title>Lessons, executed</title>
<style>
body { background: #14161a; color: #e6e6e6; font: 16px/1.5 system-ui, sans-serif;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
a { color: #8ab4f8; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #33373f; }
th { color: #b6bcc6; font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
.ok { color: #7ddc9a; } .failed { color: #ff8f8f; font-weight: 700; } .stopped { color: #f2c96d; }
.error { color: #ffb3b3; font: .875rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>Lessons, executed</h1>
<p>@GOOD@ lessons ok. Open a notebook in JupyterLab to see its outputs.</p>
<div class="wide"><table>
<thead><tr><th>Lesson</th><th>Title</th><th>Preset</th><th class="n">Seconds</th><th class="n">Cells</th>
<th>Result</th></tr></thead>
<tbody>
@ROWS@
</tbody>
</table></div>
</body>
</html>
"""
