"""The shop's job for a small model: a conversation with a customer, in one line. Its data, recipe and results."""

import json
from collections.abc import Sequence
from pathlib import Path

from lib.adapt.finetuning import Row
from lib.adapt.replies import reply
from lib.errors import CourseError
from lib.shop import dialogues
from lib.shop.dialogues import Example
from lib.sources.places import DATA
from lib.transformer import Transformer

ADAPTER = DATA / "summary_adapter"  # made by RECIPE: `python benchmarks/finetuning.py adapter` makes it anew
EXAMPLES = 480  # each read once by the recipe


def training_set(n: int = EXAMPLES, seed: int = 0) -> list[Example]:
    """The recipe's conversations: more varied than those that it is measured on."""
    return dialogues.make("train", n, seed, varied=True)


def row(tokenizer, example: Example) -> Row:
    """The conversation in the model's own chat template, then the summary and the token that ends a turn."""
    prompt = tokenizer.chat(dialogues.messages(example.dialogue))
    return Row((*prompt, *tokenizer.encode(example.summary), tokenizer.eos_id), len(prompt))


def rows(tokenizer, examples: Sequence[Example], most: int = 512) -> list[Row]:
    """All examples as tokens. Raises CourseError for one that is empty, comes twice, or exceeds `most` tokens."""
    dialogues.check(examples)
    made = [row(tokenizer, example) for example in examples]
    lengths = iter(made)
    dialogues.check(examples, most, lambda example: len(next(lengths).tokens))
    return made


def summarise(model: Transformer, tokenizer, conversations: Sequence[str], **options) -> list[str]:
    """The model's one-line summary of each conversation; options as for `reply`."""
    return reply(model, tokenizer, [tokenizer.chat(dialogues.messages(text)) for text in conversations], **options)


def studies(file: str | Path = DATA / "finetuning.json") -> dict:
    """What `python benchmarks/finetuning.py methods curve` measured when the course was made.

    machine: where. held_out: how many conversations of each kind judged. runs: for each method, examples, steps, seed,
    learning (how many weights), and by split the share that was right and ROUGE-1.
    Raises CourseError for a file that is missing or damaged.
    """
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
        return {what: found[what] for what in ("machine", "held_out", "runs")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(f"{file} is missing or damaged ({error}); restore it with `git checkout -- data`") from None
