"""One page for each learner: what holds, what doesn't and what that usually means. Never a hidden value.

A page is one HTML file that asks nobody for anything: no script, no font, no picture from elsewhere. Everything in it
that came from outside is escaped.
"""

from html import escape
from pathlib import Path

from lib.errors import CourseError
from lib.exercises.exercise import Exercise, exercises
from lib.exercises.exercise import lessons as lessons_with_exercises
from lib.exercises.result import Outcome
from lib.grading.cleaning import clean
from lib.grading.exports import file_name, one_line
from lib.grading.gradebook import Standing
from lib.grading.grades import Grade, Report
from lib.lesson.files import write_atomic
from lib.lesson.series import series


def write(standings: list[Standing], out: Path) -> list[Path]:
    """Write a page for each learner under `out` and return the files. Raises CourseError where it can't."""
    paths = []
    try:
        for standing in standings:
            paths.append(out / f"{file_name(standing.learner)}.html")
            try:
                text = page(standing)
                text.encode()
            except Exception:  # nobody's page may cost the others theirs
                text = page(Standing(clean(standing.learner, 300), (UNWRITABLE,)))
            write_atomic(paths[-1], text)
    except OSError as error:
        raise CourseError(f"cannot write {error.filename or out}: {error.strerror}; choose another folder") from None
    return paths


def page(standing: Standing) -> str:
    """The whole page as HTML."""
    known = {e.id: e for r in standing.reports if r.lesson in lessons_with_exercises() for e in exercises(r.lesson)}
    lessons = "\n".join(_lesson(r, standing, known) for r in standing.reports)
    contents = "\n".join(
        f'<li><a href="#{_anchor(r)}">{_text(_title(r.lesson))}</a> {_score(r)}</li>'
        for r in standing.reports)
    unknown = sum(bool(r.problem) and not r.grades for r in standing.reports)
    missing = f" {unknown} file{'s' * (unknown != 1)} could not be graded." if unknown else ""
    return PAGE.format(
        title=escape(one_line(standing.learner)), name=_text(standing.learner), style=STYLE, contents=contents,
        lessons=lessons,
        total=f"{standing.points} of {_points(standing.out_of)} in what was graded.{missing}")


def _lesson(report: Report, standing: Standing, known: dict[str, Exercise]) -> str:
    anchor, title = _anchor(report), _text(_title(report.lesson))
    parts = [f'<section aria-labelledby="{anchor}">',
             f'<h2 id="{anchor}">{title} <small>{_score(report)}</small></h2>']
    if report.problem:
        parts.append(f'<p class="note">This could not be graded: {_sentence(report.problem)} Your points are '
                     "not known; they are not zero. Ask your instructor, or hand it in again.</p>")
    if not report.sandboxed:
        parts.append('<p class="note">Graded without a sandbox: take these points as provisional.</p>')
    if any(not f.exercise for f in report.flags):
        parts.append(LOOK)
    order = {id: i for i, id in enumerate(known)}  # as in the lesson
    parts += [_exercise(g, known.get(g.exercise), any(f.exercise == g.exercise for f in report.flags))
              for g in sorted(report.grades, key=lambda g: order.get(g.exercise, len(order)))]
    return "\n".join([*parts, "</section>"])


def _exercise(g: Grade, exercise: Exercise | None, flagged: bool) -> str:
    title = exercise.title if exercise else g.exercise
    parts = [f"<article>\n<h3>{_text(title)} <small>{g.points} of {_points(g.out_of)}</small></h3>"]
    if not g.attempted:
        parts.append("<p>Not attempted yet.</p>")
    if g.problem:
        parts.append(f'<p class="note">Your answer could not be tried to the end: {_sentence(g.problem)}</p>')
    if g.attempted and g.outcomes:
        parts += ["<ul>", *map(_property, g.outcomes), "</ul>"]
    if g.attempted and g.points == g.out_of and not g.problem:
        parts.append("<p>Full marks. It holds everywhere we looked: well done.</p>")
    elif exercise:
        hints = "\n".join(f"<details><summary>Hint {i} of {len(exercise.hints)}</summary><p>{_code(hint)}</p></details>"
                          for i, hint in enumerate(exercise.hints, 1))
        parts.append(hints)
    if flagged:
        parts.append(LOOK)
    return "\n".join([*parts, "</article>"])


def _property(o: Outcome) -> str:
    mark = ('<span class="pass"><span aria-hidden="true">✓</span> holds</span>' if o.passed else
            '<span class="pass"><span aria-hidden="true">✓</span> holds, but does not count yet</span>'
            if o.withheld else
            '<span class="fail"><span aria-hidden="true">✗</span> does not hold</span>')
    said = ""
    if o.crashed:
        said = "<p>The check itself failed here. That is not your doing; a person will look at it.</p>"
    elif not o.passed and o.message:
        said = f"<p>{_code(o.message)}</p>"
    return f"<li>{mark}: {_code(o.name)} ({o.points} of {_points(o.out_of)}){said}</li>"


def _score(report: Report) -> str:
    return "not graded" if report.problem and not report.grades else f"{report.points} of {_points(report.out_of)}"


def _points(n: int) -> str:
    return f"{n} point" if n == 1 else f"{n} points"


def _title(lesson: str) -> str:
    """The lesson's first heading, as "02 · Attention"; without the notebook, its number."""
    if not lesson:
        return "A file of no lesson"
    return next((known.title for known in series() if known.number == lesson), f"Lesson {lesson}")


def _anchor(report: Report) -> str:
    return f"lesson-{file_name(report.lesson or report.path)}"


def _text(text: str) -> str:
    return f"<bdi>{escape(one_line(text))}</bdi>"


def _sentence(text: str) -> str:
    return _text(text.rstrip(".") + ".")


def _code(text: str) -> str:
    """Text of ours or of the learner's with `code` in backquotes."""
    pieces = escape(one_line(text)).split("`")
    if len(pieces) % 2 == 0:  # a backquote without its partner is only a backquote
        return "`".join(pieces)
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


UNWRITABLE = Report("", "", "", "", problem="something in it cannot be shown; your instructor has been told")
LOOK = '<p class="note">A person will also look at this. You need not do anything.</p>'

# Contrast at least 7 to 1 for text, in the light and in the dark.
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #4a5260; --paper: #fff; --line: #c9ced6; --link: #0b4fa8;
        --pass: #10602f; --fail: #9c1c1c; --note: #eef1f5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #b6bcc6; --paper: #14161a; --line: #3b414b; --link: #9cc3ff;
          --pass: #86e0a5; --fail: #ffaaa5; --note: #22262d; }
}
body { background: var(--paper); color: var(--ink); font: 1.0625rem/1.55 system-ui, sans-serif; max-width: 44rem;
       margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 1rem; padding-top: 1rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.06rem; margin: 0 0 .5rem; }
small { color: var(--soft); font-size: .9em; font-weight: 400; white-space: nowrap; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
article { margin: 1.5rem 0; padding: 1rem; border: 1px solid var(--line); border-radius: .5rem; }
article > :last-child { margin-bottom: 0; }
ul { padding-left: 0; list-style: none; margin: .5rem 0; }
li { margin: .35rem 0; }
li p { margin: .25rem 0 .5rem 1.4rem; }
.pass { color: var(--pass); font-weight: 600; } .fail { color: var(--fail); font-weight: 600; }
.note { background: var(--note); border-left: .25rem solid var(--soft); padding: .5rem .75rem; }
code { font: .92em ui-monospace, monospace; background: var(--note); padding: .05em .25em; border-radius: .2em; }
details { margin: .35rem 0; }
summary { cursor: pointer; color: var(--link); }
details p { margin: .25rem 0 .5rem 1.1rem; }
@media print { details > p { display: block; } body { margin: 0; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>Feedback for {title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>Feedback for {name}</h1>
<p>{total}</p>
<nav aria-label="Lessons"><ul>
{contents}
</ul></nav>
{lessons}
</main>
</body>
</html>
"""
