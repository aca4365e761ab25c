"""`course mine`: the learner's own transformer, one file that grows with every exercise passed."""

from pathlib import Path

import click

from lib.errors import CourseError
from lib.lesson.handmade import parts

PROMPT = "The capital of France is"


@click.command("mine")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.py", help="Write the file there.")
@click.option("--speak", is_flag=False, flag_value=PROMPT, metavar="[PROMPT]", help=f'Let it write on; "{PROMPT}".')
@click.option("--tokens", type=click.IntRange(1, 200), default=8, show_default=True, help="How many to write.")
@click.option("--model", type=click.Path(path_type=Path), metavar="FOLDER", help="Whose weights; SmolLM2's by default.")
@click.option("--add", type=click.Path(path_type=Path), metavar="NOTEBOOK", help="Take the parts that pass from there.")
@click.option("--forget", metavar="EXERCISE", help="Give a part back to the course.")
def mine(
    out: Path | None, speak: str | None, tokens: int, model: Path | None, add: Path | None, forget: str | None
) -> None:
    """Show your own transformer: what you have written of it.

    It is one file. A part joins whenever its check passes in a lesson; wherever one is missing the course's stands in.
    Once all are yours, the file needs nothing of the course: it reads a real model's weights and writes.
    """
    if forget:
        gone = parts.forget([forget])
        click.echo(f"The course's {forget} stands in again." if gone else f"{forget} was the course's already.")
    if add:
        _add(add)
    from lib.lesson.handmade import trial

    path, ours, notes = trial.refresh()
    for note in notes:
        click.echo(note, err=True)
    if out:
        _write(out, path)
    if speak is not None:
        _speak(speak, tokens, model)
        return
    click.echo("\n".join(trial.table(ours)))
    click.echo(f"{len(ours)} of {len(parts.PARTS)} parts are yours: {path}")


def _add(notebook: Path) -> None:
    from lib.exercises.exercise import exercise
    from lib.exercises.standing import standing_alone
    from lib.lesson import series
    from lib.lesson.own import tried

    [lesson] = series.find([str(notebook)])
    for id in parts.IDS:
        if id[:2] == lesson.number and (source := standing_alone(lesson.code, exercise(id))):
            _, problem = tried(exercise(id), source)
            if not problem:
                parts.keep(id, source)
            click.echo(f"{id}: {problem or 'joins your transformer.'}")


def _speak(prompt: str, tokens: int, model: Path | None) -> None:
    from lib.lesson.handmade import trial

    if not prompt.strip():
        raise CourseError("the prompt is empty; write at least one word")
    said = trial.speak(prompt, model, tokens)
    click.echo(said.text)
    beside, cache = "", any(id[:2] == "07" for id in said.mine)
    if model is None:
        beside = f", the course's model {trial.libs_rate(prompt, tokens, cache):.1f}"
    speed = f"{said.rate:.1f} tokens a second{beside}, {'with' if cache else 'without'} a cache"
    click.echo(f"{len(said.mine)} of {len(parts.PARTS)} parts are yours; {speed}.")


def _write(out: Path, path: Path) -> None:
    from lib.lesson.files import write_atomic

    if out.suffix != ".py":
        raise CourseError(f"{out} does not end in .py; give a file name that does")
    try:
        write_atomic(out, path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise CourseError(f"cannot write {out}: {problem.strerror}; choose another file") from None
    click.echo(f"Written: {out}")
