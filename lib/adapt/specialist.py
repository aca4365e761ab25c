"""A model for one job only, trained from nothing: the same Transformer a hundred times smaller, with words of its own.

It reads the dialogues of lib.shop.dialogues and writes their summaries, and can do nothing else. Its tokenizer learned
from those dialogues too; digits stay apart, so that a number is copied digit by digit.
"""

import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lib.adapt.finetuning import finetune
from lib.adapt.summaries import rows
from lib.errors import CourseError
from lib.shop import dialogues
from lib.shop.dialogues import Example
from lib.sources.places import DATA
from lib.tokenizer import BPETokenizer, are_merges
from lib.trainer.history import History
from lib.training import TrainConfig, no_progress
from lib.transformer import Config, Transformer

VOCABULARY = 700  # 256 bytes and what the dialogues' words are worth; two signs more make the vocabulary
SIZES = dict(block_size=256, n_layer=4, n_head=4, d_model=128, d_ff=320, rope_theta=1000.0)
EXAMPLES = 160_000  # each read about once by the recipe
RECIPE = TrainConfig(
    steps=6000, batch_size=32, optimizer="muon", muon_lr=0.02, lr=3e-3, weight_decay=0.0, warmup=30, min_lr=0.02
)
FILE = DATA / "specialist.safetensors"  # by this recipe, on a GPU


class SpecialistTokenizer:
    """Byte-pair encoding, and two signs: one after the conversation, one after the summary."""

    def __init__(self, words: BPETokenizer):
        self.words = words
        self.answer_id, self.eos_id = words.vocab_size, words.vocab_size + 1
        self.vocab_size = words.vocab_size + 2

    @classmethod
    def train(cls, texts: Iterable[str]) -> "SpecialistTokenizer":
        return cls(BPETokenizer.train(re.sub(r"\d", "\n", "\n".join(texts)), VOCABULARY))  # it never sees a digit

    def encode(self, text: str) -> list[int]:
        return self.words.encode(text)

    def decode(self, ids) -> str:
        return self.words.decode(id for id in map(int, ids) if id < self.answer_id)

    def token(self, id: int) -> str:
        return {self.answer_id: "<answer>", self.eos_id: "<end>"}.get(int(id)) or self.words.decode([int(id)])

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """The conversation alone: the specialist knows no other instruction than its own."""
        return [*self.encode(messages[-1]["content"]), self.answer_id]


def examples(n: int, seed: int = 0) -> list[Example]:
    """n training dialogues about orders that never were: other numbers, and items that nobody bought together.

    From real orders it would learn by heart what was bought together, and write that. Like the
    fine-tuned model's, they are more varied than those that it is judged on.
    """
    rng = random.Random(f"numbers {seed}")
    made = dialogues.make("train", n, seed, made_up=True, varied=True)
    return [dialogues.renumber(example, rng) for example in made]


def drills(n: int, seed: int = 0) -> list[Example]:
    """n exercises in nothing but copying: three order numbers, and the same again.

    Without them the specialist learns in a few hundred steps all but the numbers, and those not at all.
    """
    rng = random.Random(f"drills {seed}")
    lines = [" and ".join(f"order #W{rng.randrange(10**6, 10**7)}" for _ in range(3)) for _ in range(n)]
    return [Example(f"Customer: {line}.", f"{line}.") for line in lines]


def new(tokenizer: SpecialistTokenizer, seed: int = 0, **changes) -> Transformer:
    """An untrained specialist."""
    torch.manual_seed(seed)
    return Transformer(Config.llama(vocab_size=tokenizer.vocab_size, **SIZES | changes))


def train(
    n: int = EXAMPLES,
    config: TrainConfig = RECIPE,
    folder: str | Path | None = None,
    progress: Callable = no_progress,
    watch: Callable[[int, float], None] = lambda done, loss: None,
    workers: int = 1,
    device: str | torch.device = "cpu",
    **changes,
) -> tuple[Transformer, SpecialistTokenizer, History]:
    """The whole recipe: tokenizer, model, and training on n dialogues and drills; returns them and what the run saw.

    folder: for a checkpoint to go on from. workers: threads that share each batch. device: where it is trained.
    changes: to SIZES.
    """
    data = examples(n, config.seed)
    tokenizer = SpecialistTokenizer.train(text for e in data[:2000] for text in (e.dialogue, e.summary))
    model = new(tokenizer, config.seed, **changes).to(device)
    lines = rows(tokenizer, [*data, *drills(n // 5, config.seed)])
    history = finetune(model, lines, config, folder, progress, watch, workers)
    return model, tokenizer, history


def save(model: Transformer, tokenizer: SpecialistTokenizer, path: str | Path) -> None:
    """One safetensors file, in float16, that holds the model and its tokenizer; it appears whole or not at all."""
    about = dict(config=model.config.to_dict(), pairs=tokenizer.words._pairs)
    path = Path(path)
    part = path.with_suffix(".part")
    try:
        tensors = {name: p.detach().cpu().half().contiguous() for name, p in model.named_parameters()}
        save_file(tensors, part, metadata={"specialist": json.dumps(about, allow_nan=False)})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise CourseError(f"cannot write {path} ({' '.join(str(error).split())}); choose another folder") from None


def load(path: str | Path = FILE) -> tuple[Transformer, SpecialistTokenizer]:
    """What `save` wrote; the one that comes with the course. Raises CourseError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["specialist"])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
        model = Transformer(Config(**about["config"]))
        tensors.setdefault("head.weight", tensors["embedding.weight"])  # a tied head is not kept
        model.load_state_dict(tensors)
        if not are_merges(about["pairs"]):
            raise ValueError("its pairs are no merges")
        words = BPETokenizer(map(tuple, about["pairs"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise CourseError(f"{path} is not a specialist's file ({why}); train and save one") from None
    return model.eval(), SpecialistTokenizer(words)
