"""The transformer looks at pictures: cut into patches, a picture is a sequence, and the Block need not know.

The Block is lib.transformer's, with the mask left off: a patch may look at every other (Dosovitskiy et al. 2021).
A small convolutional network stands beside it for comparison, and one training function serves both.

Letters besides those of lib/__init__.py: C channels, Y and X height and width in pixels, P a patch's side.
Here T is the number of patches and V the number of classes.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.attention import EVERYONE
from lib.embedding import LearnedPositions, sinusoidal
from lib.errors import CourseError
from lib.trainer.delivery import deliver
from lib.trainer.history import History
from lib.trainer.precision import Compiled, in_precision
from lib.trainer.sound import Sound
from lib.training import TrainConfig, loop, make_optimizers, no_progress
from lib.transformer import Block, Config, initialise, make_norm

POSITIONS = ("learned", "sinusoidal", "none")


def patches(images: Tensor, size: int) -> Tensor:
    """Cut pictures into squares, row by row from the top left: (B, C, Y, X) → (B, T, C·P·P), T = (Y/P)·(X/P).

    A patch is written out channel by channel, each row by row. Raises CourseError if the squares leave a rest.
    """
    if images.ndim != 4:
        raise CourseError(f"pictures have shape (B, C, Y, X), not {tuple(images.shape)}; add the axis that is missing")
    B, C, Y, X = images.shape
    if size < 1 or Y % size or X % size:
        raise CourseError(f"patches of {size} x {size} do not divide a picture of {Y} x {X}; choose another size")
    grid = images.reshape(B, C, Y // size, size, X // size, size)  # (B, C, rows, P, columns, P)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2)  # (B, T, C·P·P)


def assemble(parts: Tensor, size: int, picture: Sequence[int]) -> Tensor:
    """The way back, for pictures of shape (C, Y, X): (B, T, C·P·P) → (B, C, Y, X)."""
    C, Y, X = picture
    if parts.shape[1:] != ((Y // size) * (X // size), C * size * size):
        raise CourseError(f"{tuple(parts.shape)} are not the {size} x {size} patches of a picture of {C} x {Y} x {X}")
    grid = parts.reshape(-1, Y // size, X // size, C, size, size)  # (B, rows, columns, C, P, P)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, C, Y, X)  # (B, C, Y, X)


def shuffle_patches(images: Tensor, size: int, order: Tensor) -> Tensor:
    """Pictures (B, C, Y, X) whose patch t is what was patch order[t] before: the same order (T,) for all of them."""
    parts = patches(images, size)  # (B, T, C·P·P)
    if sorted(order.tolist()) != list(range(parts.size(1))):
        raise CourseError(f"order must name each of the {parts.size(1)} patches once, as torch.randperm does")
    return assemble(parts[:, order.to(parts.device)], size, images.shape[1:])  # (B, C, Y, X)


class VisionTransformer(nn.Module):
    """Pictures in, a score for every class out.

    config: vocab_size is the number of classes, block_size the number of patches; causal=False, and position learned,
    sinusoidal or none. picture: (C, Y, X). patch: P. Raises CourseError for a config that does not fit the pictures.
    """

    def __init__(self, config: Config, picture: Sequence[int], patch: int):
        super().__init__()
        T, width = patches(torch.empty(1, *picture), patch).shape[1:]
        if config.block_size != T:
            raise CourseError(f"block_size={config.block_size}, but the picture has {T} patches; set block_size={T}")
        if config.causal:
            raise CourseError("a causal mask hides the rest of the picture from its first patches; set causal=False")
        if config.position not in POSITIONS:
            raise CourseError(
                f"position={config.position!r} is for places on a line; choose {', '.join(POSITIONS)} for a picture"
            )
        self.config, self.picture, self.patch = config, tuple(picture), patch
        self.embedding = nn.Linear(width, config.d_model)  # in a language model, a table of tokens
        if config.position == "learned":
            self.positions = LearnedPositions(T, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.d_model, config.vocab_size)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, C, Y, X) → logits (B, V). Raises CourseError for pictures of another shape."""
        if images.shape[1:] != self.picture:
            raise CourseError(f"this model reads pictures of (B, {', '.join(map(str, self.picture))}), "
                              f"not {tuple(images.shape)}")  # fmt: skip
        x = self.embedding(patches(2 * images - 1, self.patch))  # (B, T, D), from -1 … 1
        if self.config.position == "learned":
            x = x + self.positions.weight  # (B, T, D)
        elif self.config.position == "sinusoidal":
            x = x + sinusoidal(torch.arange(x.size(1), device=x.device), x.size(2)).to(x.dtype)  # (B, T, D)
        x = self.dropout(x)  # (B, T, D)
        for block in self.blocks:
            x = block(x, EVERYONE)  # (B, T, D)
        return self.head(self.norm(x.mean(dim=1)))  # (B, V): the mean over the patches is the picture


class SmallCNN(nn.Module):
    """Two layers of 3 x 3 filters, each followed by halving the picture, then one linear layer (LeCun et al. 1998).

    The filters are the same everywhere in the picture, and look at neighbours only: both are built in, not learnt.
    picture: (C, Y, X), Y and X multiples of 4. classes: V. width: filters in the first layer, half of the second's.
    """

    def __init__(self, picture: Sequence[int], classes: int, width: int = 16):
        super().__init__()
        C, Y, X = picture
        if Y % 4 or X % 4:
            raise CourseError(f"the picture is halved twice; {Y} x {X} does not divide by 4")
        self.picture = tuple(picture)
        self.conv1 = nn.Conv2d(C, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.head = nn.Linear(2 * width * (Y // 4) * (X // 4), classes)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, C, Y, X) → logits (B, V)."""
        if images.shape[1:] != self.picture:
            raise CourseError(f"this model reads pictures of (B, {', '.join(map(str, self.picture))}), "
                              f"not {tuple(images.shape)}")  # fmt: skip
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)  # (B, width, Y/2, X/2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (B, 2 width, Y/4, X/4)
        return self.head(x.flatten(1))  # (B, V)


def shifted(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each picture moved by whole pixels, what enters is 0: images (B, C, Y, X), down and right (B,)."""
    B, C, Y, X = images.shape
    reach = int(torch.stack((down, right)).abs().max())
    wide = F.pad(images, (reach,) * 4)  # (B, C, Y + 2 reach, X + 2 reach)
    rows = torch.arange(Y) + reach - down[:, None]  # (B, Y): where each row comes from
    columns = torch.arange(X) + reach - right[:, None]  # (B, X)
    b, c = torch.arange(B)[:, None, None, None], torch.arange(C)[None, :, None, None]
    return wide[b, c, rows[:, None, :, None], columns[:, None, None, :]]  # (B, C, Y, X)


def batch(images: Tensor, labels: Tensor, size: int, seed: int, step: int, shift: int = 0) -> tuple[Tensor, Tensor]:
    """The batch of step `step`: pictures (B, C, Y, X) and labels (B,), drawn from seed and step alone.

    shift: each picture is moved by up to so many pixels in both directions.
    """
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step))))
    at = torch.from_numpy(draw.integers(0, len(images), size=size)).to(images.device)  # (B,)
    x, y = images[at], labels[at]  # (B, C, Y, X), (B,)
    if shift:
        down, right = torch.from_numpy(draw.integers(-shift, shift + 1, size=(2, size)))  # (B,) each
        x = shifted(x, down, right)  # (B, C, Y, X)
    return x, y


def train_classifier(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: TrainConfig,
    shift: int = 0,
    on_eval: Callable[[int], None] = lambda step: None,
    progress: Callable[[Iterable[int], str], Iterable[int]] = no_progress,
) -> History:
    """Train in place on pictures (N, C, Y, X) and labels (N,); returns what the run saw.

    The loss is the mean cross-entropy of the right class, in nats. Like lib.training.train, a pure function of
    config, starting weights and pictures; block_size and checkpoint_every do not matter here, and History.tokens
    counts pictures. shift: see `batch`. on_eval(step) is called before the first step, every eval_every steps, and
    at the end. Raises CourseError for pictures and labels that do not belong together.
    """
    _check(images, labels)
    highest = int(labels.max())
    device = next(model.parameters()).device
    history = History()

    def batches(step: int) -> Iterable[tuple[Tensor, Tensor]]:
        pictures = config.batch_size * config.accumulate
        x, y = batch(images, labels, pictures, config.seed, step, shift)  # (A·B, C, Y, X), (A·B,)
        history.tokens += pictures
        return deliver(x, y, config.batch_size, device)

    def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits = model(x)  # (B, V)
        if highest >= logits.size(1):  # on a GPU the loss would fail, and say nothing
            raise CourseError(f"label {highest} is not among the model's {logits.size(1)} classes; check both")
        return F.cross_entropy(logits.float(), y)  # ()

    run = Compiled(model) if config.compile else model
    loss_of = in_precision(loss_of, config.precision, device)
    optimizers = make_optimizers(model, config)
    parts = [Sound(model, optimizers, config)]
    return loop(run, optimizers, batches, loss_of, config, history, on_eval, progress, parts)


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """The likeliest class of each picture: (N, C, Y, X) → (N,), on the CPU."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    found = [model(part.to(device)).argmax(-1).cpu() for part in images.split(batch_size)]  # (B,) each
    model.train(was_training)
    return torch.cat(found)  # (N,)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> float:
    """The share of pictures (N, C, Y, X) that are taken for what they are, labels (N,)."""
    _check(images, labels)
    return (predict(model, images, batch_size) == labels.cpu()).float().mean().item()


def _check(images: Tensor, labels: Tensor) -> None:
    if images.ndim != 4:
        raise CourseError(f"pictures have shape (B, C, Y, X), not {tuple(images.shape)}; add the axis that is missing")
    if not len(images) or labels.shape != images.shape[:1]:
        raise CourseError(f"{len(images)} pictures and labels of shape {tuple(labels.shape)}; give each picture one")
