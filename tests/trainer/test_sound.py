"""A run that goes astray ends with its step and rate, and what it kept before stays."""

import math

import pytest
import torch
from tiny import SMALL, tiny

from lib import training, vision
from lib.adapt import finetuning
from lib.adapt.finetuning import Row
from lib.errors import CourseError
from lib.trainer.checkpoint import load_checkpoint
from lib.trainer.history import History
from lib.trainer.sound import Diverged, Sound
from lib.training import TrainConfig, make_optimizers
from lib.transformer import Config

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = torch.randint(0, 17, (2000,), generator=torch.Generator().manual_seed(0))


def run(model, folder=None, val=None, **fields):
    return training.train(model, TEXT, val, TrainConfig(**SMALL | fields), folder=folder)


def poison(monkeypatch, step, value, where="loss"):
    """From that step on (counted from 1), the loss or a weight is no number."""
    real, calls = training.next_token_loss, iter(range(1, 10_000))

    def loss_of(model, x, y):
        loss = real(model, x, y)
        if model.training and next(calls) >= step:
            if where == "loss":
                return loss * value
            next(model.parameters()).register_hook(lambda gradient: gradient * value)
        return loss

    monkeypatch.setattr(training, "next_token_loss", loss_of)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path, monkeypatch, value):
    poison(monkeypatch, 6, value)
    with pytest.raises(Diverged, match=r"diverged: the loss is -?(nan|inf) at step 6, learning rate 0\.000\d+") as end:
        run(tiny(), tmp_path, checkpoint_every=2, optimizer="adamw")
    assert end.value.step == 6 and len(end.value.history.train_loss) == 5
    model, config = tiny(), TrainConfig(**SMALL)
    path = tmp_path / "checkpoint.safetensors"
    text = training.fingerprint(TEXT)
    history = load_checkpoint(path, model, make_optimizers(model, config), config, text)
    assert history.step == 4 and all(p.isfinite().all() for p in model.parameters()), "the last good one"


@pytest.mark.parametrize("step", [4, 6, 12])
def test_weights_that_are_no_numbers_are_never_kept(tmp_path, monkeypatch, step):
    """The loss of the step is sound, and its update is not: seen when it is to be kept, and at the end of the run."""
    poison(monkeypatch, step, math.nan, "weight")
    with pytest.raises(Diverged, match=f"weights are not finite at step {step}"):
        run(tiny(), tmp_path, checkpoint_every=2, grad_clip=0)
    with pytest.raises(Diverged):
        poison(monkeypatch, 12, math.nan, "weight")
        run(tiny(), grad_clip=0)


def test_a_look_at_the_held_out_text_sees_it_first(monkeypatch):
    poison(monkeypatch, 5, math.nan, "weight")
    with pytest.raises(Diverged, match="the held-out loss is nan at step 5"):
        run(tiny(), val=TEXT[:100], grad_clip=0)


@pytest.mark.parametrize("fields", [dict(lr=1e30), dict(optimizer="muon", muon_lr=1e38), dict(lr=1e38, grad_clip=0.0),
                                    dict(lr=1e30, precision="bfloat16"), dict(lr=1e38, accumulate=2)], ids=str)
def test_rates_without_measure(tmp_path, fields):
    with pytest.raises(Diverged, match="take a smaller rate"):
        run(tiny(), tmp_path, TEXT[:100], **dict(checkpoint_every=1, warmup=0) | fields)


def test_fine_tuning_and_pictures_too():
    rows = [Row(tuple(range(1, 9)), 4)] * 8
    with pytest.raises(Diverged):
        finetuning.finetune(tiny(), rows, TrainConfig(**SMALL | dict(lr=1e38, warmup=0)))
    config = Config(vocab_size=10, block_size=16, n_layer=1, n_head=2, d_model=16, causal=False, position="learned")
    model = vision.VisionTransformer(config, (1, 8, 8), 2)
    pictures = torch.rand(20, 1, 8, 8)
    with pytest.raises(Diverged):
        vision.train_classifier(model, pictures, torch.arange(20) % 10, TrainConfig(**SMALL | dict(lr=1e38, warmup=0)))


def test_a_device_that_should_not_wait_is_looked_at_now_and_then():
    model, config = tiny(), TrainConfig(**SMALL | dict(steps=100))
    sound, history = Sound(model, make_optimizers(model, config), config), History()
    sound.begin(history)
    far = torch.zeros((), device="meta")  # like a GPU's: not to be looked at
    for step in range(1, 20):
        history.add(torch.tensor(math.nan if step > 4 else 1.0))
        sound.after(step, far)
    with pytest.raises(Diverged) as end:
        sound.after(20, far)
    assert end.value.step == 5 and history.train_loss == [1.0] * 4


@pytest.mark.parametrize("fields", [dict(lr=math.inf), dict(lr=math.nan), dict(muon_lr=math.inf),
                                    dict(weight_decay=math.nan), dict(grad_clip=math.nan), dict(min_lr=math.nan),
                                    dict(seed=2**43), dict(seed=10**30), dict(seed=-1)], ids=str)
def test_what_cannot_be_asked_for(fields):
    with pytest.raises(CourseError, match=next(iter(fields))):
        TrainConfig(**fields)


def test_the_largest_seed():
    assert run(tiny(), steps=2, seed=2**43 - 1).step == 2
