"""What a learner's transformer is made of, and what of it has passed.

A part is kept as source in COURSE_HOME/mine when its check gives full marks in a notebook. Nothing here needs torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lib.errors import CourseError
from lib.lesson.files import write_atomic
from lib.lesson.predictions import home


@dataclass(frozen=True)
class Part:
    """One exercise whose answer is a part of the model. id: the exercise's; what: what it does there.

    called: the name that the answer defines, where it isn't the id's.
    """

    id: str
    what: str
    called: str = ""

    @property
    def name(self) -> str:
        return self.called or self.id.split(".")[1]

    @property
    def section(self) -> str:
        """What of the file it belongs to: the lesson that adds it, or "" for the model itself."""
        return self.id[:2] if self.id[:2] in SECTIONS else ""


SECTIONS = ("05", "07", "11")  # training, writing, LoRA: each joins the file with the first of its parts


# In the order in which they stand in the file: each uses only what is above it.
PARTS = (
    Part("01.merge", "glues two pieces"),
    Part("01.apply_merges", "cuts words into pieces"),
    Part("01.embed", "turns pieces into vectors"),
    Part("01.rotary", "says where a token stands"),
    Part("02.causal_mask", "hides the future"),
    Part("02.attention", "looks up"),
    Part("03.split_heads", "cuts the width into heads"),
    Part("03.merge_heads", "puts the heads side by side"),
    Part("03.repeat_kv", "shares keys and values"),
    Part("03.multi_head", "is the attention layer"),
    Part("04.rms_norm", "forgets length"),
    Part("04.gated_mlp", "thinks, position by position"),
    Part("04.pre_norm_block", "wires a Block"),
    Part("04.transformer", "is the whole model"),
    Part("05.cross_entropy", "says how surprised it is"),
    Part("05.training_step", "learns"),
    Part("07.sample", "draws a token"),
    Part("07.cache", "remembers what has been read", "Cache"),
    Part("07.write_text", "writes, and reads nothing twice"),
    Part("11.merged", "puts a LoRA into a weight"),
)
IDS = tuple(part.id for part in PARTS)


def folder() -> Path:
    return home() / "mine"


def path(id: str) -> Path:
    return folder() / f"{id}.py"


def keep(id: str, source: str) -> None:
    """Keep the source of an answer that has passed. Raises CourseError where the folder cannot be written."""
    try:
        write_atomic(path(id), f"# Your answer to {id}, a part of your transformer (course mine).\n{source}")
    except OSError as problem:
        why = problem.strerror or problem
        raise CourseError(f"{id} is not kept, {folder()}: {why}; set COURSE_HOME to your own folder") from None


def forget(ids: Iterable[str]) -> list[str]:
    """Give parts back to the course; returns which were the learner's."""
    gone = [known(id) for id in ids if path(known(id)).is_file()]
    for id in gone:
        try:
            path(id).unlink()
        except OSError as problem:
            raise CourseError(f"{path(id)} cannot be removed: {problem.strerror}; delete it by hand") from None
    return gone


def known(id: str) -> str:
    """The id, if it is a part's. Raises CourseError for any other."""
    if id not in IDS:
        raise CourseError(f"{id!r} is no part of the model; the parts are: {', '.join(IDS)}")
    return id


def kept() -> tuple[dict[str, str], list[str]]:
    """{id: source} of what has passed, in the file's order; and a line on each kept file that cannot be read."""
    sources, notes = {}, []
    for id in IDS:
        try:
            sources[id] = path(id).read_text(encoding="utf-8").partition("\n")[2]
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as problem:
            why = getattr(problem, "strerror", None) or "it is not UTF-8"
            notes.append(f"Your {id} is left out, {path(id)} cannot be read: {why}.")
    for stray in sorted(folder().glob("[0-9][0-9].*.py")):
        if stray.stem not in IDS:
            notes.append(f"{stray} is no part that this version of the course knows; it stays where it is.")
    return sources, notes


def standing() -> str:
    """One line: how many parts are the learner's, and which comes next. "" while none is."""
    mine = [id for id in IDS if path(id).is_file()]
    if not mine:
        return ""
    missing = [id for id in IDS if id not in mine]
    rest = f"next: {missing[0]}" if missing else "all of it"
    return f"Your transformer: {len(mine)} of {len(IDS)} parts are yours, {rest}."
