"""Which exercises' answers may stand in lib's place, and which of the learner's are kept to do so (lib.lesson.own)."""

from pathlib import Path

from lib.lesson.predictions import own_folder

NAMES = {
    "02.causal_mask": "causal mask", "02.attention": "attention", "03.split_heads": "head splitting",
    "03.merge_heads": "head merging", "04.pre_norm_block": "Block",
}  # fmt: skip


def kept() -> list[str]:
    """The ids of the answers that are switched on, in the order of the lessons."""
    return [id for id in NAMES if place(id).is_file()]


def place(id: str) -> Path:
    """The file that an answer is kept in."""
    return own_folder() / f"{id}.py"
