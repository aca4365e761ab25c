"""`course site`: the static website, made from the executed lessons as they are committed."""

import contextlib
import html
import importlib.metadata
import io
import json
import re
import shutil
import tempfile
import warnings
from pathlib import Path

import click

from lib.course.own_copy.suspense import folded, kept_back
from lib.errors import CourseError
from lib.lesson.series import Lesson, find, source
from lib.sources.places import ROOT

HAND_WRITTEN = ROOT / "docs" / "site"
MARK = ".course-site"  # what tells an earlier site from a folder that somebody needs
LINK = re.compile(r"\[([^\]]*)\]\((\d\d_\w+\.ipynb)[^)]*\)")
ELSEWHERE = re.compile(r"(?<!!)\[([^\]]*)\]\(\.\./[^)]*\)")  # a guide's link to a file that is not on the site
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FONT = "STIXTwoMath-Regular.ttf"


@click.command("site")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write; default: build/site.")
@click.option("--lessons", metavar="LESSON,...", help="Only these, as 02,03; default: all.")
def site(out: Path | None, lessons: str | None) -> None:
    """Build the website from the lessons as they are committed.

    Nothing is executed. It works from a folder as well as from a server, and loads nothing from another host. An
    earlier site in the folder is replaced whole or not at all.
    """
    names = [name.strip() for name in (lessons or "").split(",") if name.strip()]
    index = build(find(names), out or ROOT / "build" / "site")
    click.echo(f"The website: {index}")


def build(lessons: list[Lesson], out: Path) -> Path:
    """Write the site to `out` and return its home page.

    Raises CourseError, and leaves an earlier site as it was, where Sphinx warns of anything: a link that leads
    nowhere, a heading that skips a level.
    """
    out = out.absolute()
    _see_that_it_may_go(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as part:
            pages, made = Path(part) / "pages", Path(part) / "site"
            _lay_out(lessons, pages)
            _render(pages, made, Path(part) / "doctrees")
            for path in made.rglob("*.map"):  # two megabytes for who debugs the theme
                path.unlink()
            (made / MARK).touch()
            if out.exists():
                out.replace(Path(part) / "old")
            made.replace(out)
    except OSError as error:
        raise CourseError(f"cannot write the site to {out} ({error.strerror}); choose another --out") from None
    return out / "index.html"


def _see_that_it_may_go(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise CourseError(f"{out} is not a folder; choose another with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise CourseError(f"{out} is not empty and no earlier site; choose another folder with --out, or empty it")


def _lay_out(lessons: list[Lesson], pages: Path) -> None:
    """Every page as Sphinx reads it: what is written by hand, the lessons, what is made from data."""
    from lib.course.website.pages import claims_page, expectations_page, lessons_page
    from lib.course.website.reference import pages as reference

    static = pages / "_static"
    for folder in (static, pages / "notebooks", pages / "reference", pages / "guides"):
        folder.mkdir(parents=True)
    for path in HAND_WRITTEN.iterdir():
        shutil.copyfile(path, (static if path.suffix == ".css" else pages) / path.name)
    shutil.copyfile(ROOT / "docs" / "lesson.png", pages / "lesson.png")
    font = importlib.metadata.distribution("ziamath").locate_file(f"ziamath/fonts/{FONT}")
    shutil.copyfile(font, static / FONT)
    made = {"lessons": lessons_page(lessons), "expectations": expectations_page(lessons)}
    made["claims"] = claims_page(lessons)
    made |= {f"reference/{name}": text for name, text in reference(lessons).items()}
    for path in (ROOT / "docs").glob("*.md"):
        if path.with_suffix("").is_dir():  # a guide's pictures lie in a folder of its name
            shutil.copytree(path.with_suffix(""), pages / "guides" / path.stem)
        made[f"guides/{path.stem}"] = ELSEWHERE.sub(r"\1", path.read_text(encoding="utf-8"))
    for name, text in made.items():
        (pages / f"{name}.md").write_text(text, encoding="utf-8")
    for lesson in lessons:
        text = json.dumps(for_the_web(lesson.notebook, {other.path.name for other in lessons}), allow_nan=False)
        (pages / "notebooks" / lesson.path.name).write_text(text, encoding="utf-8")


def for_the_web(notebook: dict, here: set[str]) -> dict:
    """A copy of a notebook whose figures keep their alternative text and have their caption set as one.

    The outcome of a prediction is folded until the reader opens it: outputs, prose, and code that gives it away. here:
    file names of the lessons in this site; a link to any other leaves its words behind.
    """
    kept = kept_back(notebook["cells"])
    cells = [_cell(cell, here) for cell in folded(notebook["cells"])]
    for i in kept.outputs:
        whole = i in kept.code
        words = "Show the code and what happened" if whole else "Show what happened"
        cells[i] = _folded(cells[i], "hide-cell" if whole else "hide-output", words)
    return notebook | {"cells": cells}


def _folded(cell: dict, tag: str, words: str) -> dict:
    """A code cell that MyST-NB is to fold, with these words to open it."""
    about = cell["metadata"]
    shown = about.get("mystnb", {}) | {"code_prompt_show": words}
    return cell | {"metadata": about | {"tags": [*about.get("tags", []), tag], "mystnb": shown}}


def _cell(cell: dict, here: set[str]) -> dict:
    if cell.get("cell_type") == "markdown":
        return cell | {"source": LINK.sub(lambda m: m[0] if m[2] in here else m[1], source(cell))}
    alt = ""
    outputs = []
    for output in cell.get("outputs", []):
        alt = output.get("metadata", {}).get("image/png", {}).get("alt", "") or alt
        first, _, rest = source({"source": output.get("text", "")}).partition("\n")
        if alt and first == f"Figure: {alt}":
            words = f'<p class="figure-caption">{html.escape(alt)}</p>'
            outputs.append({"output_type": "display_data", "metadata": {}, "data": {"text/html": words}})
            if not rest:
                continue
            output = output | {"text": rest}
        outputs.append(output)
    if not alt:
        return cell
    return cell | {"outputs": outputs, "metadata": cell["metadata"] | {"mystnb": {"image": {"alt": alt}}}}


def _render(pages: Path, out: Path, doctrees: Path) -> None:
    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    log = io.StringIO()
    try:
        with contextlib.redirect_stderr(log), warnings.catch_warnings(), patch_docutils(pages), docutils_namespace():
            warnings.simplefilter("ignore", DeprecationWarning)  # what the theme still asks of Sphinx
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            app = Sphinx(pages, pages, out, doctrees, "html", status=None, warning=log, freshenv=True)
            app.build(force_all=True)
    except SphinxError as error:
        raise CourseError(f"Sphinx could not build the site: {error}") from None
    told = [line for line in COLOUR.sub("", log.getvalue()).splitlines() if line.strip()]
    if told:
        more = f" (and {len(told) - 1} more lines)" if len(told) > 1 else ""
        raise CourseError(f"the site has a mistake: {told[0].replace(f'{pages}/', '')}{more}")
