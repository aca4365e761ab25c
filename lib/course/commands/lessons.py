"""`course lessons`: what there is to read."""

import click


@click.command("lessons")
def lessons() -> None:
    """List the lessons: number, title, file."""
    from rich.console import Console
    from rich.table import Table

    from lib.lesson import series

    table = Table(box=None)
    for column in ("lesson", "title", "file"):
        table.add_column(column, no_wrap=column != "title")
    for lesson in series.find():
        table.add_row(lesson.number, lesson.title, lesson.path.name)
    Console().print(table)
