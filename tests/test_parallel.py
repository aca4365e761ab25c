"""Several processes train one model: the same curve as one, and nothing lost when a worker is killed."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

from lib import training
from lib.course.cli import main
from lib.errors import CourseError
from lib.parallel import ALONE, Team, join
from lib.training import TrainConfig
from lib.transformer import Config, Transformer

pytestmark = pytest.mark.usefixtures("one_thread")

# Seven rows for two processes: unequal shares, where a plain mean of means would be wrong.
OPTIONS = "--preset smoke --steps 24 --eval-every 8 --batch-size 7 --accumulate 2 --checkpoint-every 5".split()

# `course train`, except that the worker named dies in its team's first life.
WORKER = """
    import os, signal, sys
    from lib import parallel
    from lib.course.cli import main
    from lib.course.train_command import Run
    watch = Run.watch
    def dies(self, done, loss):
        if str(self.team.rank) == os.environ.get("DIES") and done == 13 and parallel.restarts() == 0:
            (self.out / "died").write_text("at step 13")
            os.kill(os.getpid(), signal.SIGKILL)
        return watch(self, done, loss)
    Run.watch = dies
    main(["train", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "worker.py").write_text(textwrap.dedent(WORKER))
    return folder


def torchrun(folder, name: str, dies: str = "") -> dict:
    """A run of two processes; the parts of its record and weights that must not depend on how many there are."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", str(folder / "worker.py"), *OPTIONS, "--out", str(folder / name)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DIES": dies}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (folder / name / "died").exists() == bool(dies)
    return seen(folder / name)


def seen(out) -> dict:
    return json.loads((out / "record.json").read_text()) | {"weights": load_file(out / "model.safetensors")}


@pytest.fixture(scope="module")
def two(folder):
    return torchrun(folder, "two")


def test_two_processes_and_accumulation_give_the_curve_of_one(folder, two):
    options = [*OPTIONS, "--batch-size", "14", "--accumulate", "1", "--eval-batches", "1"]  # as many windows
    options += ["--out", str(folder / "one")]
    with pytest.raises(SystemExit) as end:
        main(["train", *options])
    assert end.value.code == 0
    one = seen(folder / "one")
    assert (one["processes"], two["processes"]) == (1, 2) and one["tokens"] == two["tokens"]
    assert one["train_loss"][-1] < one["train_loss"][0] - 0.3, "a curve that goes nowhere shows nothing"
    for what in ("train_loss", "val_loss"):
        torch.testing.assert_close(torch.tensor(two[what]), torch.tensor(one[what]), atol=1e-4, rtol=0)
    for name, p in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], p, atol=2e-3, rtol=0)


@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_killed_worker_is_restarted_and_the_run_ends_at_the_same_weights(folder, two, victim):
    again = torchrun(folder, f"killed-{victim}", dies=victim)
    assert again["train_loss"] == two["train_loss"] and again["val_loss"] == two["val_loss"]
    assert again["weights"].keys() == two["weights"].keys()
    assert all(torch.equal(again["weights"][name], p) for name, p in two["weights"].items())
    assert [s["step"] for s in again["samples"]] == [0, 8, 16, 24]


# --- without starting anything ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_row_is_somebodys_and_shares_are_even(size):
    for rows in range(size, 3 * size + 1):
        parts = [list(range(rows))[Team(rank, size).share(rows)] for rank in range(size)]
        assert [row for part in parts for row in part] == list(range(rows))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1 and min(map(len, parts)) >= 1


def test_more_processes_than_rows():
    model = Transformer(Config.llama(vocab_size=9, block_size=4, n_layer=1, n_head=1, d_model=4))
    with pytest.raises(CourseError, match="3 processes cannot share a batch of 2 rows; start at most 2 processes"):
        training.train(model, torch.arange(50) % 9, None, TrainConfig(batch_size=2, block_size=4), team=Team(0, 3))


class Pair(Team):
    """One of two, with the other made up: it has our gradients, and wants to leave after step `tired`."""

    def __init__(self, tired: int):
        super().__init__(0, 2)
        object.__setattr__(self, "tired", tired)
        object.__setattr__(self, "steps", [])

    def add_up(self, tensors):
        self.steps.append(1)
        for t in tensors[:-1]:
            t *= 2
        tensors[-1] += float(len(self.steps) == self.tired)

    def follow(self, tensors):
        pass

    def agree(self, value, what):
        pass


@pytest.mark.parametrize(("theirs", "ours", "end"), [(5, 99, 5), (0, 5, 6), (0, 99, 9)])
def test_when_one_wants_to_leave_all_leave_together(tmp_path, theirs, ours, end):
    torch.manual_seed(0)
    model = Transformer(Config.llama(vocab_size=9, block_size=4, n_layer=1, n_head=1, d_model=4))
    config = TrainConfig(steps=9, batch_size=2, block_size=4, warmup=0)
    history = training.train(
        model, torch.arange(50) % 9, None, config, folder=tmp_path, watch=lambda done, loss: done >= ours,
        team=Pair(theirs),
    )  # fmt: skip
    assert history.step == end, "ours is heard with the next gradients, theirs at once"
    with training.safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        assert len(json.loads(file.metadata()["about"])["history"]["train_loss"]) == end


def test_alone_without_torchrun():
    with join(torch.device("cpu")) as (team, device):
        assert team is ALONE and team.leader and device.type == "cpu"
        x = torch.ones(2)
        team.add_up([x])
        team.follow([x])
        team.agree(3, "anything")
        assert x.tolist() == [1, 1]


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CourseError, match=r"this machine has 1 GPU\(s\) and more processes; use --nproc-per-node 1"):
        with join(torch.device("cuda")):
            pass
