"""Training: it learns, it states its rates, it accumulates rightly, and a killed run loses nothing."""

import dataclasses
import errno
import json
import math
import os
import random
import shutil
import subprocess
import sys
import textwrap
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib import corpus, training
from lib.errors import CourseError
from lib.training import Muon, TrainConfig, evaluate, make_optimizers, next_token_loss, schedule, train
from lib.transformer import Config, Transformer

SIZES = dict(vocab_size=17, block_size=16, n_layer=2, n_head=2, d_model=16)
SMALL = dict(steps=12, batch_size=4, block_size=8, warmup=3, eval_every=5, eval_batches=2)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def text():
    return torch.randint(17, (300,), generator=torch.Generator().manual_seed(1))


def tiny(**fields) -> Transformer:
    torch.manual_seed(0)
    return Transformer(Config.llama(**(SIZES | fields)))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


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


def test_stopping_the_progress_bar_stops_the_run(text):
    history = train(tiny(), text, None, TrainConfig(**SMALL), progress=lambda steps, label: islice(steps, 7))
    whole = train(tiny(), text, None, TrainConfig(**SMALL))
    assert history.train_loss == whole.train_loss[:7]


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


@pytest.mark.parametrize("size", [(3, 16, 16), (2, 40, 12), (1, 8, 64)])
def test_muon_brings_singular_values_near_one(size):
    g = torch.randn(size, generator=torch.Generator().manual_seed(0))
    out = Muon.orthogonalise(g)
    assert out.shape == g.shape
    s = torch.linalg.svdvals(out)
    assert 0.6 < s.min() and s.max() < 1.3
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(out.flatten(1), (u @ v).flatten(1))  # the nearest orthogonal
    assert cosine.min() > 0.97


def test_muon_ignores_the_gradients_size_and_survives_zero():
    g = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Muon.orthogonalise(1000 * g), Muon.orthogonalise(g), atol=1e-4, rtol=1e-4)
    assert Muon.orthogonalise(torch.zeros(1, 8, 8)).abs().max() == 0


def test_a_step_of_muon_by_hand():
    gradients = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0))
    p = torch.nn.Parameter(torch.ones(12, 4))
    optimizer = Muon([p], lr=0.1, momentum=0.9, weight_decay=0.5)
    momentum, want = torch.zeros(12, 4), torch.ones(12, 4)
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()
        momentum = 0.9 * momentum + 0.1 * g
        update = Muon.orthogonalise((0.1 * g + 0.9 * momentum)[None])[0]
        want = want * (1 - 0.1 * 0.5) - 0.1 * math.sqrt(3) * update
        torch.testing.assert_close(p.data, want)


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


def test_gradients_are_clipped(text, monkeypatch):
    seen = []
    real = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, most: seen.append(most) or real(p, most))
    train(tiny(), text, None, TrainConfig(**SMALL, grad_clip=0.25))
    assert seen == [0.25] * 12
    train(tiny(), text, None, TrainConfig(**SMALL, grad_clip=0.0))
    assert len(seen) == 12


# --- accumulation, evaluation, precision, compile -----------------------------------------------------------


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


def test_bfloat16_runs_and_stays_close(text):
    a = train(tiny(), text, text, TrainConfig(**SMALL))
    model = tiny()
    b = train(model, text, text, TrainConfig(**SMALL, precision="bfloat16"))
    assert a.train_loss != b.train_loss
    torch.testing.assert_close(torch.tensor(a.val_loss), torch.tensor(b.val_loss), atol=0.05, rtol=0)
    assert all(p.dtype is torch.float32 for p in model.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on loading its compiler
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compile_gives_the_same_losses(text):
    plain = train(tiny(n_layer=1), text, text, TrainConfig(**SMALL))  # one layer: the compiler takes seconds for each
    fast = train(tiny(n_layer=1), text, text, TrainConfig(**SMALL, compile=True))
    torch.testing.assert_close(torch.tensor(fast.train_loss), torch.tensor(plain.train_loss), atol=1e-4, rtol=0)


def test_compile_without_a_compiler_says_so(tmp_path):
    code = """
        import torch
        from lib.errors import CourseError
        from lib.training import TrainConfig, train
        from lib.transformer import Config, Transformer
        try:
            model = Transformer(Config.llama(vocab_size=5, block_size=4, n_layer=1, n_head=1, d_model=4))
            train(model, torch.arange(50) % 5, None, TrainConfig(steps=1, block_size=4, compile=True))
        except CourseError as error:
            print(error)
    """
    env = {**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.startswith("torch.compile failed (") and done.stdout.count("\n") == 1, done.stderr
    assert "set compile=False" in done.stdout


# --- checkpoints --------------------------------------------------------------------------------------------

# For each kind, starts a run and kills it six times over: at a random step, half-way through writing a random
# checkpoint, or from outside at a random moment. Then lets it finish, and lets another run that nobody disturbs.
# Children are forked, so that a start costs no import.
KILLED = """
    import json, os, random, signal, sys, time
    from pathlib import Path
    import torch
    import torch._dynamo  # what an optimizer imports as it is made: a second, which each child would take anew
    from safetensors.torch import save_file
    from lib import training
    from lib.training import TrainConfig, train
    from lib.transformer import Config, Transformer

    top, seed, kinds = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    rng = random.Random(seed)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def dies_at_a_step(numbers, label):
        first, after = None, rng.randint(0, 11)
        for step in numbers:
            first = step if first is None else first
            if step - first == after:
                die()
            yield step

    def dies_while_writing():
        left = rng.randint(0, 2)
        def half(tensors, path, metadata):
            nonlocal left
            save_file(tensors, path, metadata)
            if left == 0:
                os.truncate(path, os.path.getsize(path) // 2)
                die()
            left -= 1
        training.save_file = half

    def slow(numbers, label):
        for step in numbers:
            time.sleep(0.005)
            yield step

    def all_of(numbers, label):
        return numbers

    def run(kind, folder, progress):
        optimizer, dropout = kind.split("-")
        torch.manual_seed(0)
        config = Config.llama(vocab_size=17, block_size=16, n_layer=2, n_head=2, d_model=16, dropout=float(dropout))
        model = Transformer(config)
        text = torch.randint(17, (300,), generator=torch.Generator().manual_seed(1))
        history = train(
            model, text, text,
            TrainConfig(steps=100, batch_size=4, block_size=8, warmup=5, accumulate=2, optimizer=optimizer,
                        eval_every=7, eval_batches=2, checkpoint_every=4),
            folder=folder, progress=progress,
        )
        losses = [history.train_loss, history.val_steps, history.val_loss, history.tokens]
        save_file(dict(model.named_parameters()), Path(folder) / "final.safetensors", {"losses": json.dumps(losses)})

    for kind in kinds:
        ways = ["step", "writing", "moment"] * 2
        rng.shuffle(ways)
        deaths = []
        for way in [*ways, None, "whole"]:
            rng.random()  # each child inherits another state
            child = os.fork()
            if child == 0:
                if way == "writing":
                    dies_while_writing()
                folder = f"{top}/{kind}" + "/whole" * (way == "whole")
                run(kind, folder, {"step": dies_at_a_step, "moment": slow}.get(way, all_of))
                os._exit(0)
            if way == "moment":
                time.sleep(rng.uniform(0.0, 0.1))
                os.kill(child, signal.SIGKILL)
            deaths.append(os.waitpid(child, 0)[1])
        print(*deaths)
"""
KINDS = ["adamw-0.0", "adamw-0.2", "muon-0.2"]  # optimizer and dropout


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of the runs, the seed of their deaths, and how each process of each kind ended."""
    top, seed = tmp_path_factory.mktemp("killed"), random.randrange(10**6)
    (top / "killed.py").write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(top / "killed.py"), str(top), str(seed), *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (seed, done.stderr)
    return top, seed, dict(zip(KINDS, map(str.split, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_again_and_again_ends_with_the_same_bits(killed, kind):
    top, seed, deaths = killed
    assert deaths[kind] == ["9"] * 6 + ["0", "0"], f"seed {seed}: not killed as planned"
    paths = top / kind / "final.safetensors", top / kind / "whole" / "final.safetensors"
    resumed, whole = map(load_file, paths)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole), f"seed {seed}"
    headers = [training.safe_open(path, framework="pt").metadata() for path in paths]
    assert headers[0] == headers[1], f"seed {seed}"


def stopped(folder, text, steps=8, **fields):
    """A run that stopped early, with a checkpoint after step 4 or 8."""
    config = TrainConfig(**SMALL, checkpoint_every=4, **fields)
    train(tiny(), text, text, config, folder=folder, progress=lambda numbers, label: islice(numbers, steps))
    return config, folder / "checkpoint.safetensors"


def test_a_finished_run_only_loads(tmp_path, text):
    first, again = tiny(), tiny()
    config = TrainConfig(**SMALL)
    a = train(first, text, text, config, folder=tmp_path)
    b = train(again, text, text, config, folder=tmp_path)
    assert same(first, again) and a.train_loss == b.train_loss and a.val_steps == b.val_steps
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]


def test_looking_more_often_does_not_change_where_a_run_goes(tmp_path, text):
    config, _ = stopped(tmp_path, text)
    resumed, whole = tiny(), tiny()
    train(resumed, text, text, dataclasses.replace(config, eval_every=1, checkpoint_every=1), folder=tmp_path)
    train(whole, text, text, config)
    assert same(resumed, whole)


def refusal(folder, text, config, model=None):
    model = model or tiny()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(CourseError) as caught:
        train(model, text, text, config, folder=folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True)), "half loaded"
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, 0.99])
def test_a_truncated_checkpoint(tmp_path, text, keep):
    config, path = stopped(tmp_path, text)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    assert "is not a whole checkpoint" in refusal(tmp_path, text, config)


def rewrite(path, **about):
    with training.safe_open(path, framework="pt") as file:
        old = json.loads(file.metadata()["about"])
    save_file(load_file(path), path, {"about": json.dumps(old | about)})


def test_a_newer_version(tmp_path, text):
    config, path = stopped(tmp_path, text)
    rewrite(path, version=2)
    assert "has checkpoint version 2, this code reads 1" in refusal(tmp_path, text, config)
    save_file(load_file(path), path, {"about": '{"version": 2}'})
    assert "has checkpoint version 2" in refusal(tmp_path, text, config)


@pytest.mark.parametrize("metadata", [None, "{}", "[]", "x", '{"version": 1}'])
def test_some_other_safetensors_file(tmp_path, text, metadata):
    about = None if metadata is None else {"about": metadata}
    save_file({"a": torch.zeros(2)}, tmp_path / "checkpoint.safetensors", about)
    assert "is not a whole checkpoint" in refusal(tmp_path, text, TrainConfig(**SMALL))


def test_a_checkpoint_that_lacks_a_tensor(tmp_path, text):
    config, path = stopped(tmp_path, text)
    with training.safe_open(path, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    del tensors["model/norm.weight"]
    save_file(tensors, path, about)
    assert "is not a whole checkpoint" in refusal(tmp_path, text, config)


@pytest.mark.parametrize("key", ["model/norm.weight", "optimizer/0/exp_avg/norm.weight", "optimizer/9/step/norm.weight",
                                 "optimizer/0/exp_avg/other.weight", "model/other.weight", "other"])  # fmt: skip
def test_a_tensor_that_does_not_fit_changes_nothing(tmp_path, text, key):
    config, path = stopped(tmp_path, text)
    with training.safe_open(path, framework="pt") as file:
        about = file.metadata()
    save_file(load_file(path) | {key: torch.ones(3)}, path, about)
    assert f"({key} does not fit)" in refusal(tmp_path, text, config)


def test_a_checkpoint_of_another_model_run_or_text(tmp_path, text):
    config, _ = stopped(tmp_path, text)
    assert "made with d_model=16, this run has d_model=32" in refusal(tmp_path, text, config, tiny(d_model=32))
    assert "made with dropout=0.0, this run has dropout=0.1" in refusal(tmp_path, text, config, tiny(dropout=0.1))
    for change in (dict(lr=0.5), dict(steps=13), dict(seed=3), dict(optimizer="muon"), dict(precision="bfloat16")):
        [name] = change
        assert f"this run has {name}={change[name]}" in refusal(tmp_path, text, dataclasses.replace(config, **change))
    assert "another text" in refusal(tmp_path, text.flip(0), config)
    assert "another text" in refusal(tmp_path, text[:-1], config)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders that refuse writing are made differently here")
def test_a_folder_that_cannot_be_written(tmp_path, text):
    blocked = tmp_path / "file"
    blocked.write_text("")  # a folder below a file: refused to root as well
    with pytest.raises(CourseError, match=r"cannot write .*choose another folder"):
        train(tiny(), text, text, TrainConfig(**SMALL), folder=blocked / "runs")
    if os.geteuid():
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(CourseError, match=r"cannot write .*choose another folder"):
            train(tiny(), text, text, TrainConfig(**SMALL), folder=locked)


@pytest.mark.parametrize("at", ["save_file", "replace"])
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, text, monkeypatch, at):
    config, path = stopped(tmp_path, text, steps=4)
    before = path.read_bytes()

    def full(*arguments, **options):
        path.with_suffix(".part").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((training, "save_file") if at == "save_file" else (Path, "replace")), full)
        with pytest.raises(CourseError, match=r"No space left on device.*free some space"):
            train(tiny(), text, text, config, folder=tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"] and path.read_bytes() == before
    resumed, whole = tiny(), tiny()
    train(resumed, text, text, config, folder=tmp_path)
    train(whole, text, text, config)
    assert same(resumed, whole)


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
        (dict(min_lr=1e-4 * 2e4), "min_lr is a share"),
        (dict(cooldown=-0.1), "cooldown is a share"),
    ],
)
def test_a_config_that_cannot_be(fields, says):
    with pytest.raises(CourseError, match=says):
        TrainConfig(**fields)


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
