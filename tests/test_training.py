"""Training: it learns, it states its rates, it accumulates rightly, and says in one line what cannot be."""

import dataclasses
import inspect
import math
import random
import time
from itertools import islice, pairwise

import pytest
import torch
from tiny import SIZES, SMALL, same, tiny

from lib import corpus, training
from lib.errors import CourseError
from lib.trainer.history import History
from lib.trainer.parallel import Team
from lib.trainer.part import Part
from lib.training import TrainConfig, evaluate, make_optimizers, next_token_loss, schedule, train
from lib.transformer import Config, Transformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def text():
    return torch.randint(17, (300,), generator=torch.Generator().manual_seed(1))


# --- it learns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_a_tiny_model_overfits(optimizer):
    line = torch.arange(60) * 7 % 17  # each token has one successor
    line = torch.cat([line, line])
    model = tiny()
    history = train(model, line, line, TrainConfig(steps=150, block_size=16, lr=1e-2, warmup=10, optimizer=optimizer))
    assert abs(history.train_loss[0] - math.log(17)) < 0.15
    assert history.train_loss[-1] < 0.1 and history.val_loss[-1] < 0.1
    assert history.step == 150 and history.tokens == 150 * 12 * 16
    assert history.val_steps == [0, 150]
    assert not model.training


def test_the_same_config_gives_the_same_run_and_another_seed_another(text):
    runs = [tiny(dropout=0.2) for _ in range(3)]
    histories = []
    for model, seed in zip(runs, (0, 0, 1), strict=True):
        torch.rand(random.randint(1, 50))  # whatever was drawn before is no part of the run
        histories.append(train(model, text, text, TrainConfig(**SMALL, seed=seed)))
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])
    assert histories[0].train_loss == histories[1].train_loss


def test_dropout_differs_from_step_to_step(text, monkeypatch):
    batch = corpus.batches(text, 4, 8, 0, 0)
    monkeypatch.setattr(corpus, "batches", lambda *_: batch)
    losses = train(tiny(dropout=0.5), text, None, TrainConfig(**SMALL | dict(lr=0.0))).train_loss
    assert len(set(losses)) == len(losses)


def test_training_leaves_the_callers_random_state_alone(text):
    model = tiny(dropout=0.2)
    before = torch.get_rng_state()
    train(model, text, text, TrainConfig(**SMALL))
    assert torch.equal(before, torch.get_rng_state())


def test_evaluations_come_when_asked_for(text):
    seen = []
    history = train(
        tiny(), text, text, TrainConfig(**SMALL), lambda step, h: seen.append((step, h.step, h.val_loss[-1]))
    )
    assert [step for step, _, _ in seen] == [0, 5, 10, 12] == history.val_steps
    assert all(step == known for step, known, _ in seen), "the history a listener sees is up to date"
    assert [loss for _, _, loss in seen] == history.val_loss
    assert train(tiny(), text, None, TrainConfig(**SMALL)).val_loss == []


def test_what_a_run_saw_is_settled_and_timed_without_evaluations(text):
    began = time.perf_counter()
    history = train(tiny(), text, None, TrainConfig(**SMALL))
    assert len(history.train_loss) == 12 and all(isinstance(loss, float) for loss in history.train_loss)
    assert 0 < history.seconds <= time.perf_counter() - began
    assert history.tokens == 12 * 4 * 8


def test_a_run_with_a_folder_goes_on_where_it_was(text, tmp_path):
    half, whole = tiny(dropout=0.1), tiny(dropout=0.1)
    config = TrainConfig(**SMALL)
    train(half, text, text, config, folder=tmp_path, watch=lambda done, loss: done == 7)
    assert not half.training
    resumed = tiny(dropout=0.1)
    heard = []
    history = train(resumed, text, text, config, lambda step, h: heard.append(step), folder=tmp_path)
    unbroken = train(whole, text, text, config)
    assert same(resumed, whole) and history.train_loss == unbroken.train_loss
    assert history.val_steps == [0, 5, 10, 12] and heard == [10, 12], "what was seen before is not seen again"


class Recorder(Part):
    """Notes each moment of a run; halves every loss, and ends the run after the third step."""

    def __init__(self, model):
        self.model, self.told = model, []

    def begin(self, history):
        self.told.append(("begin", history.step, self.model.training))

    def before(self, step):
        self.told.append(("before", step, torch.initial_seed()))

    def weigh(self, loss):
        self.told.append(("weigh", loss.requires_grad))
        return loss / 2

    def gradients(self, loss):
        self.told.append(("gradients", round(loss.item(), 4), self.model.p.grad.item(), self.model.p.item()))

    def after(self, done, loss, ending=False):
        self.told.append(("after", done, self.model.p.grad, round(self.model.p.item(), 4)))
        return done == 3


class Slope(torch.nn.Module):
    """One number; its loss is the number times what the batch says, so its gradient is known."""

    def __init__(self):
        super().__init__()
        self.p = torch.nn.Parameter(torch.tensor(1.0))


def test_the_loop_step_by_step():
    model, history, looks = Slope().eval(), History(), []
    part = Recorder(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["peak"] = 0.1
    config = TrainConfig(steps=9, accumulate=2, warmup=2, schedule="constant", seed=3, eval_every=2, grad_clip=0)
    training.loop(
        model, [optimizer], lambda step: [(torch.tensor(2.0), None), (torch.tensor(6.0), None)],
        lambda model, x, y: model.p * x, config, history, looks.append, parts=[part],
    )  # fmt: skip
    # Two batches, each half of a step's loss, halved by the part: a gradient of 2; at first at half the rate.
    values = [1.0, 1 - 0.05 * 2, 1 - 0.05 * 2 - 0.1 * 2, 1 - 0.05 * 2 - 0.2 * 2]
    expected = [("begin", 0, False)]
    for step in range(3):
        at, after = values[step], values[step + 1]
        expected += [("before", step, 3 * 1_000_003 + step), ("weigh", True), ("weigh", True),
                     ("gradients", pytest.approx(2 * at, abs=1e-4), pytest.approx(2.0), pytest.approx(at, abs=1e-4)),
                     ("after", step + 1, None, pytest.approx(after, abs=1e-4))]  # fmt: skip
    assert part.told == expected
    assert looks == [0, 2] and not model.training and history.step == 3
    assert history.train_loss == pytest.approx([2 * at for at in values[:3]])


def test_a_loop_that_goes_on_does_not_look_anew():
    model, looks = Slope(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["peak"] = 1.0
    history = History(train_loss=[0.5, 0.5])
    seen = []
    training.loop(
        model, [optimizer], lambda step: seen.append(step) or [(torch.tensor(1.0), None)],
        lambda model, x, y: model.p * x, TrainConfig(steps=5, eval_every=10), history, looks.append,
    )  # fmt: skip
    assert seen == [2, 3, 4] and looks == [5] and history.step == 5


def test_stopping_the_progress_bar_stops_the_run(text):
    history = train(tiny(), text, None, TrainConfig(**SMALL), progress=lambda steps, label: islice(steps, 7))
    whole = train(tiny(), text, None, TrainConfig(**SMALL))
    assert history.train_loss == whole.train_loss[:7]


def test_the_plain_loop_stays_plain():
    """What goes along with it is for lib.trainer's parts."""
    source = inspect.getsource(training.loop)
    body = source.replace(training.loop.__doc__, "")
    assert body.count("\n") <= 50
    for word in ("team", "rank", "shard", "pin", "path", "folder", "checkpoint", "watch", "compile", "autocast"):
        assert word not in body, word


# --- rates --------------------------------------------------------------------------------------------------


def test_cosine_by_hand():
    config = TrainConfig(steps=110, warmup=10, min_lr=0.1)
    assert [schedule(s, config) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert [schedule(s, config) for s in (10, 35, 60, 110)] == pytest.approx(
        [1.0, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55, 0.1]
    )


def test_wsd_holds_then_falls_in_a_straight_line():
    config = TrainConfig(steps=110, warmup=10, schedule="wsd", cooldown=0.4, min_lr=0.0)
    assert {schedule(s, config) for s in range(10, 71)} == {1.0}
    assert [schedule(s, config) for s in (80, 90, 110)] == pytest.approx([0.75, 0.5, 0.0], abs=1e-12)
    assert schedule(109, dataclasses.replace(config, cooldown=0.0)) == 1.0


def test_constant_and_no_warmup():
    config = TrainConfig(steps=50, warmup=0, schedule="constant")
    assert {schedule(s, config) for s in range(50)} == {1.0}


@pytest.mark.parametrize("name", training.SCHEDULES)
def test_a_schedule_never_rises_after_the_warm_up_nor_leaves_its_band(name):
    config = TrainConfig(steps=200, warmup=20, schedule=name, min_lr=0.1)
    rates = [schedule(s, config) for s in range(200)]
    assert max(rates) == 1.0 and min(rates[20:]) >= 0.1
    assert all(a >= b for a, b in pairwise(rates[19:]))
    assert all(a < b for a, b in pairwise(rates[:20]))


def test_the_rate_reaches_the_optimizer(text):
    """With a rate of zero nothing moves; Adam's first step moves every entry by lr x its share, up to decay."""
    model = tiny()
    train(model, text, None, TrainConfig(**SMALL | dict(steps=1, lr=0.0)))
    assert same(model, tiny())
    train(model, text, None, TrainConfig(**SMALL | dict(steps=1, lr=0.3), weight_decay=0.0))
    moved = (model.blocks[0].mlp.up.weight - tiny().blocks[0].mlp.up.weight).abs()
    torch.testing.assert_close(moved.max(), torch.tensor(0.3 / 3), rtol=1e-3, atol=0)


# --- optimizers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_every_parameter_has_one_optimizer_and_vectors_are_not_decayed(optimizer, tie):
    model = Transformer(Config.gpt2(**SIZES, tie=tie))
    decay = {}
    for each in make_optimizers(model, TrainConfig(optimizer=optimizer, weight_decay=0.3)):
        for group in each.param_groups:
            for p in group["params"]:
                assert p not in decay
                decay[p] = group["weight_decay"], type(each).__name__
    names = {name: decay[p] for name, p in model.named_parameters()}
    assert len(decay) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        assert names[name][0] == (0.3 if p.ndim == 2 else 0.0), name
        hidden = p.ndim == 2 and name.startswith("blocks.")
        assert names[name][1] == ("Muon" if optimizer == "muon" and hidden else "AdamW"), name


def test_optimizers_have_what_the_config_says():
    config = TrainConfig(optimizer="muon", lr=0.3, muon_lr=0.7, betas=(0.5, 0.6), weight_decay=0.2)
    adamw, muon = make_optimizers(tiny(), config)
    for group in adamw.param_groups:
        assert (group["lr"], group["peak"], tuple(group["betas"]), group["fused"]) == (0.3, 0.3, (0.5, 0.6), True)
    assert [(group["lr"], group["peak"], group["weight_decay"]) for group in muon.param_groups] == [(0.7, 0.7, 0.2)]
    (alone,) = make_optimizers(torch.nn.Linear(2, 2), config)  # no blocks: nothing for Muon
    assert isinstance(alone, torch.optim.AdamW) and sum(len(group["params"]) for group in alone.param_groups) == 2
    (lone,) = make_optimizers(torch.nn.Embedding(2, 2), TrainConfig())
    assert len(lone.param_groups) == 1, "a group without parameters is none"


def test_gradients_are_clipped(text, monkeypatch):
    seen = []
    real = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, most: seen.append(most) or real(p, most))
    train(tiny(), text, None, TrainConfig(**SMALL, grad_clip=0.25))
    assert seen == [0.25] * 12
    train(tiny(), text, None, TrainConfig(**SMALL, grad_clip=0.0))
    assert len(seen) == 12


# --- accumulation, evaluation ------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3])
def test_k_small_batches_are_one_large(text, k):
    small, big = tiny(), tiny()
    a = train(small, text, None, TrainConfig(**SMALL, accumulate=k))
    b = train(big, text, None, TrainConfig(**SMALL | dict(batch_size=4 * k)))
    assert a.tokens == b.tokens == 12 * 4 * k * 8
    torch.testing.assert_close(torch.tensor(a.train_loss), torch.tensor(b.train_loss), atol=1e-5, rtol=0)
    for p, q in zip(small.parameters(), big.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=2e-5, rtol=0)


def test_loss_is_the_mean_surprise(text):
    x, y = corpus.batches(text, 4, 8, 0, 0)
    logits = tiny()(x).double()
    chance = logits.softmax(-1).gather(-1, y[..., None])
    torch.testing.assert_close(next_token_loss(tiny(), x, y).double(), -chance.log().mean())


def test_evaluate_by_hand(text):
    model = tiny()
    rows = torch.stack([text[i : i + 9] for i in (0, 72, 145, 218, 291)])  # 5 windows of 300 - 9 + 1 starts
    want = next_token_loss(model, rows[:, :-1], rows[:, 1:]).item()
    assert evaluate(model, text, 1, 8, 5) == pytest.approx(want, abs=1e-6)
    assert evaluate(model, text, 1, 8) == pytest.approx(evaluate(model, text, 1, 8, 20), abs=1e-9)
    with pytest.raises(CourseError, match="has 8 tokens, fewer than a block of 8 and one more"):
        evaluate(model, text[:8], 1, 8)


def test_evaluate_is_deterministic_covers_the_text_and_leaves_the_model_as_it_was(text):
    model = tiny(dropout=0.3).train()
    first = evaluate(model, text, 4, 8, 5)
    torch.rand(3)
    assert evaluate(model, text, 4, 8, 5) == first
    assert model.training
    model.eval()
    assert evaluate(model, text, 4, 8, 5) == first and not model.training
    assert all(p.grad is None for p in model.parameters())
    assert evaluate(model, text, 7, 8, 20) == pytest.approx(evaluate(model, text, 20, 8, 7), abs=1e-6)
    assert evaluate(model, text.to(torch.uint8), 4, 8, 5) == first

    seen = []

    def spy(x):
        seen.append(x)
        return torch.zeros(*x.shape, 300)

    class Spy(torch.nn.Linear):
        forward = staticmethod(spy)

    evaluate(Spy(1, 1), torch.arange(300), 4, 8, 3)
    assert seen[0][0, 0] == 0 and seen[-1][-1, -1] == 298  # the last target is the text's last token
    evaluate(Spy(1, 1), torch.arange(9), 4, 8, 3)  # one block and one more token is just enough


# --- the recipe ----------------------------------------------------------------------------------------------


def test_what_a_run_is_by_default_and_that_it_stays_so():
    config = TrainConfig()
    assert dataclasses.asdict(config) == dict(
        steps=2000, batch_size=12, block_size=64, accumulate=1, optimizer="adamw", lr=1e-3, muon_lr=0.02,
        weight_decay=0.1, betas=(0.9, 0.99), grad_clip=1.0, schedule="cosine", warmup=100, min_lr=0.1, cooldown=0.4,
        precision="float32", compile=False, seed=0, eval_every=200, eval_batches=20, checkpoint_every=0,
    )  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 3
    least = dict.fromkeys(("steps", "batch_size", "block_size", "accumulate", "eval_every", "eval_batches"), 1)
    none = dict.fromkeys(("seed", "warmup", "checkpoint_every", "lr", "muon_lr", "weight_decay", "grad_clip"), 0)
    TrainConfig(**least, **none, min_lr=0.0, cooldown=1.0)
    TrainConfig(min_lr=1.0, cooldown=0.0)


def test_a_team_is_asked_only_where_there_is_one(text, monkeypatch):
    asked = []

    class Noted(Part):
        def __init__(self, team, model, config, watch):
            asked.append(team.size)

    monkeypatch.setattr(training, "Together", Noted)
    monkeypatch.setattr(training, "Sound", lambda *_: Part())
    train(tiny(), text, None, TrainConfig(**SMALL | dict(steps=1)))
    assert not asked
    train(tiny(), text, None, TrainConfig(**SMALL | dict(steps=1)), team=Team(0, 2))
    assert asked == [2]


def test_precision_and_compiler_are_the_configs(text, monkeypatch):
    asked = []
    real = training.in_precision
    noting = lambda what, name, device: asked.append(name) or real(what, name, device)  # noqa: E731
    monkeypatch.setattr(training, "in_precision", noting)
    monkeypatch.setattr(training, "Compiled", lambda model: asked.append("compiled") or model)
    train(tiny(), text, None, TrainConfig(**SMALL | dict(steps=1), precision="bfloat16"))
    assert asked == ["bfloat16", "bfloat16"]
    train(tiny(), text, None, TrainConfig(**SMALL | dict(steps=1), compile=True))
    assert asked[2:] == ["float32", "float32", "compiled"]


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(optimizer="adm"), "unknown optimizer 'adm'; choose adamw, muon"),
        (dict(schedule="cosin"), "unknown schedule 'cosin'; choose cosine, wsd, constant"),
        (dict(precision="float16"), "unknown precision 'float16'; choose float32, bfloat16"),
        (dict(steps=0), "steps must be at least 1, not 0"),
        (dict(accumulate=0), "accumulate must be at least 1"),
        (dict(seed=-1), "seed must be 0 or more, not -1"),
        (dict(lr=-1e-3), "lr must be 0 or more"),
        (dict(lr=math.nan), "lr must be 0 or more, not nan"),
        (dict(lr=math.inf), "lr must be 0 or more, not inf"),
        (dict(weight_decay=math.inf), "weight_decay must be 0 or more, not inf"),
        (dict(steps=2**31), "steps must be below 2,147,483,648, not 2147483648"),
        (dict(seed=2**43), "seed must be below 8,796,093,022,208, not 8796093022208"),
        (dict(min_lr=1e-4 * 2e4), "min_lr is a share"),
        (dict(cooldown=-0.1), "cooldown is a share"),
    ],
)
def test_a_config_that_cannot_be(fields, says):
    with pytest.raises(CourseError, match=says):
        TrainConfig(**fields)


def test_the_largest_numbers():
    config = TrainConfig(steps=2**31 - 1, seed=2**43 - 1, grad_clip=math.inf)
    torch.manual_seed(config.seed * 1_000_003 + config.steps)  # as `loop` does, which must not overflow


@pytest.mark.parametrize(("broken", "says"), [
    (lambda loss, training: loss * math.nan if training else loss, "the loss is nan at step 1, learning rate"),
    (lambda loss, training: loss if training else loss * math.inf, "the held-out loss is inf at step 0"),
])  # fmt: skip
def test_a_run_that_goes_astray(text, monkeypatch, broken, says):
    real = training.next_token_loss
    monkeypatch.setattr(training, "next_token_loss", lambda model, x, y: broken(real(model, x, y), model.training))
    seen = []
    with pytest.raises(CourseError, match=says):
        train(tiny(), text, text, TrainConfig(**SMALL | dict(eval_every=1)), lambda step, history: seen.append(step))
    assert seen == ([0] if "step 1" in says else [])


def test_a_text_of_another_tokenizer(text):
    for train_text, held_out in ((text + 1, None), (text, text + 1)):
        with pytest.raises(CourseError, match="token 17 is not among the model's 17; encode the text with"):
            train(tiny(), train_text, held_out, TrainConfig(**SMALL))


def test_a_block_longer_than_text_or_model(text):
    with pytest.raises(CourseError, match="block_size=17 is longer than the model's 16"):
        train(tiny(), text, text, TrainConfig(**SMALL | dict(block_size=17)))
    with pytest.raises(CourseError, match="corpus has 8 tokens and a block needs 9"):
        train(tiny(), text[:8], None, TrainConfig(**SMALL))
    with pytest.raises(CourseError, match="held-out text has 8 tokens"):
        train(tiny(), text, text[:8], TrainConfig(**SMALL))
