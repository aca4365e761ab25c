"""`course explore`: look into a running model, and change it while it runs."""

import os
from pathlib import Path

import click

from lib.errors import CourseError
from lib.sources.places import ROOT


@click.command("explore")
@click.argument("source", metavar="DIR|smollm2")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Where to write the page; default: build/explore/NAME.html.")
@click.option("--text", metavar="TEXT", help="What it begins with; any other can be typed in the page.")
@click.option("--serve", is_flag=True, help="No file: a server on this machine, with the real model behind the page.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N",
              help="The server's port, and a reason to start one; default: one that is free.")
def explore(source: str, out: Path | None, text: str | None, serve: bool, port: int | None) -> int:
    """Look into a running model, step by step.

    One page shows the way from a text to the next token: pieces, embedding, each head's scores, weights and mixture,
    the MLP's features, the stream and what it would say if read early, and the chances of the next token, with the real
    numbers. Change the text, switch off the mask, a head or a feature, and see at once what moves.

    A model is a folder in Hugging Face's format with its tokenizer, one that `course train` wrote, or `smollm2`. The
    page is one file that holds the model and needs neither network nor server. A model of more than five million
    weights is too large for that: `--serve` shows it in the same page, from this machine and to this machine alone.
    """
    from lib.course.commands.generate import load_model
    from lib.view.page import LARGEST, page, too_large

    serve = serve or port is not None
    if serve and out is not None:
        raise CourseError("--out writes a page, --serve and --port start a server; take one of the two")
    if text is not None and len(text) > 20_000:
        raise CourseError(f"--text has {len(text):,} characters, and a model reads a few hundred; give a shorter one")
    model, tokenizer = load_model(source)
    name = os.path.basename(os.path.abspath(source)) or "model"
    if not serve and too_large(model):
        raise CourseError(f"{source} is too large for a page (more than {LARGEST:,} weights); look at it through a "
                          f"server: course explore {source} --serve")  # fmt: skip
    html = page(model, tokenizer, name, text, served=serve)
    if serve:
        from lib.view.host import host

        return host(model, html, port or 0, click.echo)
    if out is not None and out.exists() and not out.is_file():
        raise CourseError(f"{out} is not a file; choose another --out")
    out = out or ROOT / "build" / "explore" / f"{name}.html"
    if not out.parent.is_dir() and out.parent != ROOT / "build" / "explore":
        raise CourseError(f"there is no folder {out.parent}; make it, or choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        half = out.with_name(f".{out.name}.{os.getpid()}.part")
        half.write_text(html, encoding="utf-8", newline="\n")
        half.replace(out)
    except OSError as problem:
        raise CourseError(f"cannot write {out} ({problem.strerror}); choose another --out") from None
    click.echo(f"{out} ({len(html) / 1e6:.1f} MB): open it in a browser")
    return 0
