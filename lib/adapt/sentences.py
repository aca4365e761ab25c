"""A sentence encoder taught one job: all of its weights learn, with a linear read-out on top.

The read-out's steps are far larger than the encoder's: it starts from nothing, while the encoder has much to lose.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from lib.errors import CourseError
from lib.training import no_progress
from lib.weights.encoder import SentenceEncoder

SCALE = 10.0  # vectors of length 1 leave a linear read-out too little to work with


def tune_encoder(
    encoder: SentenceEncoder,
    texts: Sequence[str],
    labels: Sequence[str],
    epochs: int = 2,
    batch: int = 16,
    lr: float = 2e-5,
    seed: int = 0,
    progress: Callable[[Iterable[int], str], Iterable[int]] = no_progress,
) -> Callable[[str], str]:
    """Teach `encoder`, in place, which label a text has; returns the reader, text → label.

    Raises CourseError if texts and labels are not as many, or there are fewer than two different labels.
    """
    names = sorted(set(labels))
    if len(texts) != len(labels) or len(names) < 2:
        raise CourseError("pass one label for each text, and at least two different ones")
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    read_out = nn.Linear(encoder.model.config.hidden_size, len(names))
    weights = [{"params": encoder.model.parameters(), "lr": lr}, {"params": read_out.parameters(), "lr": 1e-2}]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.0)
    steps = [part for _ in range(epochs) for part in torch.randperm(len(texts), generator=rng).split(batch)]
    for i in progress(range(len(steps)), "fine-tuning"):
        chosen = steps[i].tolist()
        logits = read_out(SCALE * encoder.encode([texts[j] for j in chosen]))  # (B, labels)
        loss = F.cross_entropy(logits, torch.tensor([names.index(labels[j]) for j in chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def read(text: str) -> str:
        return names[read_out(SCALE * encoder([text]))[0].argmax()]

    return read
