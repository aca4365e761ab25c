"""Checkpoints: a killed run loses nothing, and what is damaged or belongs to another run is refused."""

import dataclasses
import errno
import json
import os
import random
import subprocess
import sys
import textwrap
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import SMALL, same, tiny

from lib.errors import CourseError
from lib.trainer import checkpoint
from lib.training import TrainConfig, train

pytestmark = pytest.mark.usefixtures("one_thread")

# For each kind, starts a run and kills it six times over: at a random step, half-way through writing a random
# checkpoint, or from outside at a random moment. Then lets it finish, and lets another run that nobody disturbs.
# Children are forked, so that a start costs no import.
KILLED = """
    import json, os, random, signal, sys, time
    from pathlib import Path
    import torch
    import torch._dynamo  # what an optimizer imports as it is made: a second, which each child would take anew
    from safetensors.torch import save_file
    from lib.trainer import checkpoint
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
        checkpoint.save_file = half

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
    headers = [safe_open(path, framework="pt").metadata() for path in paths]
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
    with safe_open(path, framework="pt") as file:
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
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    del tensors["model/norm.weight"]
    save_file(tensors, path, about)
    assert "is not a whole checkpoint" in refusal(tmp_path, text, config)


@pytest.mark.parametrize("key", ["model/norm.weight", "optimizer/0/exp_avg/norm.weight", "optimizer/9/step/norm.weight",
                                 "optimizer/0/exp_avg/other.weight", "model/other.weight", "other"])  # fmt: skip
def test_a_tensor_that_does_not_fit_changes_nothing(tmp_path, text, key):
    config, path = stopped(tmp_path, text)
    with safe_open(path, framework="pt") as file:
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
        patch.setattr(*((checkpoint, "save_file") if at == "save_file" else (Path, "replace")), full)
        with pytest.raises(CourseError, match=r"No space left on device.*free some space"):
            train(tiny(), text, text, config, folder=tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"] and path.read_bytes() == before
    resumed, whole = tiny(), tiny()
    train(resumed, text, text, config, folder=tmp_path)
    train(whole, text, text, config)
    assert same(resumed, whole)
