"""What a check says, as a card in the notebook. The words are those of the plain text; here they have a shape.

JupyterLab's own colours are used where it lends them, so a card is at home in a light theme and a dark one; elsewhere
it takes the page's. State is told in words and by a sign, never by colour alone. A notebook that is not trusted yet
loses the style, and reads well without.
"""

from html import escape

from lib.exercises.exercise import Exercise

ACCENT = {
    "passed": "var(--jp-success-color1, #2e8b57)",
    "failed": "var(--jp-error-color1, #d9534f)",
    "open": "var(--jp-border-color1, #8a8f98)",
}
BOX = ("border:1px solid var(--jp-border-color2, #8a8f98);border-left:6px solid {};border-radius:3px;"
       "padding:.5em 1em;margin:.25em 0;max-width:48em;font-family:var(--jp-content-font-family, inherit)")


def card(exercise: Exercise, result, hints: int = 0) -> str:
    """The HTML of a result. hints: how many of the three are earned; each is folded until it is asked for."""
    if not result.attempted:
        return _box("open", "○", "Not attempted yet", exercise, f"{_points(exercise.points)} to earn", [
            "<p>Write your answer in the cell above, run it, then run this cell.</p>"])
    score = f"{result.points} of {_points(result.out_of)}"
    rows = [_row(o, o is result.first_failure) for o in result.outcomes]
    body = [f'<ul style="list-style:none;padding-left:0;margin:.5em 0">{"".join(rows)}</ul>']
    if result.points == result.out_of:
        return _box("passed", "✓", "Passed", exercise, score, [
            *body, "<p>Full marks. It holds everywhere we looked: well done.</p>"])
    body += [f"<details><summary>Hint {n} of {len(exercise.hints)}</summary><p>{_text(hint)}</p></details>"
             for n, hint in enumerate(exercise.hints[:hints], 1)]
    return _box("failed", "✗", "Not yet", exercise, score, body)


def _box(state: str, sign: str, head: str, exercise: Exercise, score: str, body: list[str]) -> str:
    return (f'<div role="group" aria-label="{head}: {escape(exercise.title)}" style="{BOX.format(ACCENT[state])}">'
            f'<p><strong><span aria-hidden="true">{sign}</span> {head}</strong>: {escape(exercise.title)} '
            f"({score})</p>{''.join(body)}</div>")


def _row(outcome, first: bool) -> str:
    share = f"{outcome.points}/{outcome.out_of}"
    if outcome.passed:
        return f'<li><span aria-hidden="true">✓</span> holds: {_text(outcome.name)} ({share})</li>'
    if outcome.withheld:
        return (f'<li><span aria-hidden="true">✓</span> holds, but does not count yet: {_text(outcome.name)} ({share})'
                f'<p style="margin:.25em 0 .5em 1.4em">{_text(outcome.message)}</p></li>')
    said = ""
    if first:
        detail = f"<br><code>{escape(outcome.detail)}</code>" if outcome.detail else ""
        said = f'<p style="margin:.25em 0 .5em 1.4em">{_text(outcome.message)}{detail}</p>'
    return (f'<li><span aria-hidden="true">✗</span> <strong>does not hold</strong>: {_text(outcome.name)} ({share})'
            f"{said}</li>")


def _points(n: int) -> str:
    return f"{n} point" if n == 1 else f"{n} points"


def _text(text: str) -> str:
    """Escaped, with `code` where backquotes stand in pairs."""
    pieces = escape(text).split("`")
    if len(pieces) % 2 == 0:
        return "`".join(pieces)
    return "".join(f"<code>{piece}</code>" if n % 2 else piece for n, piece in enumerate(pieces))
