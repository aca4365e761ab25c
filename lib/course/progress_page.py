"""A learner's progress as one HTML file that asks nobody for anything: no script, no font, no picture."""

from html import escape

from lib.lesson import predictions
from lib.lesson.handmade import parts as handmade
from lib.lesson.journal import Chapter, Overview, Standing
from lib.lesson.predictions import Guess

MARKS = {"passed": "✓", "begun": "◐", "not attempted": "○"}
BANDS = ((0, 50), (50, 70), (70, 90), (90, 101))  # per cent sure, from and below


def page(overview: Overview) -> str:
    """The whole page."""
    guesses = predictions.every(overview.guesses)
    following = overview.next
    parts = [
        f'<p class="total"><strong>{overview.passed} of {overview.exercises}</strong> exercises passed, '
        f"<strong>{overview.points} of {overview.out_of}</strong> points.</p>",
        _bar(overview.points, overview.out_of),
    ]
    if following is not None:
        e = following.exercise
        parts.append(f"<p>Next: <code>{escape(e.id)}</code>, {escape(e.title)} ({_n(e.points, 'point')}, "
                     f"about {_n(e.minutes, 'minute')}).</p>")  # fmt: skip
    if line := handmade.standing():
        parts.append(f"<p>{escape(line)}</p>")
    parts += [f'<p class="note">{escape(note)}</p>' for note in overview.notes]
    parts += map(_chapter, overview.chapters)
    parts += ["<section><h2>Predictions</h2>", *(f"<p>{escape(line)}</p>" for line in
              predictions.summary(guesses).splitlines()), _bands(guesses), "</section>"]  # fmt: skip
    return PAGE.replace("@STYLE@", STYLE).replace("@BODY@", "\n".join(parts))


def _chapter(chapter: Chapter) -> str:
    found = predictions.calibration(chapter.guesses.values())
    guessed = f"; {found.right} of {found.known} predictions right" if found.known else ""
    rows = "\n".join(map(_row, chapter.standings))
    return (f"<section><h2>{escape(chapter.title)}</h2>\n"
            f"<p>{chapter.points} of {_n(chapter.out_of, 'point')}{guessed}.</p>\n"
            '<table><thead><tr><th scope="col">Exercise</th><th scope="col">State</th><th scope="col" class="n">Points'
            f'</th><th scope="col" class="n">Tries</th></tr></thead>\n<tbody>\n{rows}\n</tbody></table></section>')


def _row(s: Standing) -> str:
    return (f'<tr><th scope="row">{escape(s.exercise.title)}</th>'
            f'<td class="{s.state.split()[0]}"><span aria-hidden="true">{MARKS[s.state]}</span> {s.state}</td>'
            f'<td class="n">{s.points} of {s.exercise.points}</td><td class="n">{s.tries or ""}</td></tr>')


def _bands(guesses: list[Guess]) -> str:
    """How sure against how often right, where the learner said how sure; "" if nowhere."""
    rated = [(guess.sure, guess.right) for guess in guesses if guess.right is not None and guess.sure is not None]
    rows = []
    for low, high in BANDS:
        inside = [right for sure, right in rated if low <= 100 * sure < high]
        if inside:
            rows.append(f'<tr><th scope="row">{low} to {min(high, 100)} %</th><td class="n">{len(inside)}</td>'
                        f'<td class="n">{sum(inside)} ({sum(inside) / len(inside):.0%})</td></tr>')
    if not rows:
        return ""
    return ('<table><thead><tr><th scope="col">You were</th><th scope="col" class="n">Predictions</th>'
            '<th scope="col" class="n">Right</th></tr></thead>\n<tbody>\n' + "\n".join(rows) + "\n</tbody></table>")


def _bar(part: int, whole: int) -> str:
    return f'<progress max="{max(whole, 1)}" value="{part}" aria-label="points">{part} of {whole}</progress>'


def _n(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


# Contrast at least 7 to 1 for text, in the light and in the dark.
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #c9ced6; --note: #eef1f5;
        --passed: #10602f; --begun: #6b4300; --not: #4a5260; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --paper: #14161a; --line: #3b414b; --note: #22262d;
          --passed: #86e0a5; --begun: #f2c96d; --not: #b6bcc6; }
}
body { background: var(--paper); color: var(--ink); font: 1.0625rem/1.55 system-ui, sans-serif; max-width: 46rem;
       margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0 .5rem; }
progress { width: 100%; height: 1rem; accent-color: var(--passed); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
thead th { color: var(--not); font-weight: 600; }
tbody th { font-weight: 400; }
td { white-space: nowrap; }
th:nth-child(2):not(.n) { width: 9rem; }
.n { width: 5.5rem; text-align: right; font-variant-numeric: tabular-nums; }
.passed { color: var(--passed); } .begun { color: var(--begun); } .not { color: var(--not); }
.note { background: var(--note); border-left: .25rem solid var(--not); padding: .5rem .75rem; }
code { font: .92em ui-monospace, monospace; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>My progress</title>
<style>@STYLE@</style>
</head>
<body>
<main>
<h1>My progress</h1>
@BODY@
</main>
</body>
</html>
"""
