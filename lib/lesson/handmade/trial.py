"""Let the learner's file speak: in a process of its own, on a real model's weights, beside somebody else's code."""

import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from lib.errors import CourseError
from lib.lesson.files import write_atomic
from lib.lesson.handmade import parts
from lib.lesson.handmade.assembly import as_module, assemble, sound
from lib.sources.catalogue import smollm2_folder

NAME = "my_transformer.py"


@dataclass(frozen=True)
class Spoken:
    """What the file said. pieces: the text of each new token; logits: (T, V), of the prompt; rate: tokens a second.

    mine: the ids of the parts that were the learner's; notes: a line on each that was left out.
    """

    text: str
    pieces: tuple[str, ...]
    logits: Tensor
    rate: float
    mine: tuple[str, ...]
    notes: tuple[str, ...]


def refresh() -> tuple[Path, tuple[str, ...], tuple[str, ...]]:
    """Write the file anew from what is kept: (path, ids of the learner's parts, notes)."""
    sources, notes = parts.kept()
    standing, more = sound(sources)
    path = parts.folder() / NAME
    try:
        write_atomic(path, assemble(standing))
    except OSError as problem:
        why = problem.strerror or problem
        raise CourseError(f"{path} cannot be written: {why}; set COURSE_HOME to your own folder") from None
    return path, tuple(standing), (*notes, *more)


def meter() -> None:
    """Print whose is what in the learner's file. Never raises."""
    try:
        _, mine, notes = refresh()
    except CourseError as problem:
        print(problem)
        return
    print("\n".join(table(mine)))
    for note in notes:
        print(note)
    print(f"{len(mine)} of {len(parts.PARTS)} parts are yours. To have the file: course mine --out my_transformer.py")


def table(mine: Iterable[str]) -> list[str]:
    """A line for each part: whose, which, what it does."""
    mine = set(mine)
    return [f"{'yours' if part.id in mine else 'course':<7} {part.id:<19} {part.what}" for part in parts.PARTS]


def load() -> types.ModuleType:
    """The learner's file as a module of this process: Model, train, write, Adapted. Prints whose part is left out, why.

    Where nothing or not all is the learner's, the course's parts stand in.
    """
    sources, notes = parts.kept()
    standing, more = sound(sources)
    for note in (*notes, *more):
        print(note)
    module = as_module(assemble(standing, whole=True))
    module.mine = tuple(standing)
    return module


def speak(prompt: str, folder: str | Path | None = None, n_new: int = 8) -> Spoken:
    """Run the learner's file alone, in a process of its own: the likeliest n_new tokens after the prompt.

    folder: a Llama-like model as Hugging Face saves it (SmolLM2's by default). Raises CourseError with the file's own
    last line if it fails.
    """
    path, mine, notes = refresh()
    folder = smollm2_folder() if folder is None else Path(folder)
    with tempfile.TemporaryDirectory() as place:
        scores = Path(place) / "scores.safetensors"
        command = [sys.executable, "-P", str(path), str(folder), "--tokens", str(n_new), "--scores", str(scores), "--"]
        ran = subprocess.run([*command, prompt], capture_output=True, text=True, encoding="utf-8", errors="replace")
        if ran.returncode:
            last = (ran.stderr.strip().splitlines() or [f"it ended with {ran.returncode}"])[-1][:300].rstrip(".")
            raise CourseError(f"your transformer stopped, {last}; to see more run it by hand: python {path} --help")
        said = load_file(scores)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    new = said["new"].tolist()
    pieces = tuple(tokenizer.decode([each]) for each in new)
    return Spoken(prompt + tokenizer.decode(new), pieces, said["logits"], 1 / float(said["seconds"]), mine, notes)


def libs_rate(prompt: str, n_new: int, cache: bool) -> float:
    """Tokens a second of lib's model: n_new tokens after the prompt, with a cache or by reading all anew for each."""
    import torch

    from lib.generation import generate
    from lib.weights.pretrained import load_smollm2

    model, tokenizer = load_smollm2()
    tokens = torch.tensor([tokenizer.encode(prompt)])  # (1, T)
    begun = time.perf_counter()
    if cache:
        generate(model, tokens, n_new)
    else:
        with torch.no_grad():
            for _ in range(n_new):
                new = model(tokens)[:, -1].argmax(-1, keepdim=True)  # (1, 1)
                tokens = torch.cat((tokens, new), dim=1)  # (1, T + 1)
    return n_new / (time.perf_counter() - begun)
