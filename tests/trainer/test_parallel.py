"""Several processes train one model: the same curve as one, and nothing lost when a worker is killed."""

import json
import os
import runpy
import secrets
import subprocess
import sys
import textwrap

import pytest
import torch
from forked import Warm
from safetensors import safe_open
from safetensors.torch import load_file

from lib import training
from lib.course.cli import main
from lib.course.training_run.live import Run
from lib.device import threads
from lib.errors import CourseError
from lib.trainer.history import History
from lib.trainer.parallel import ALONE, Team, Together, join
from lib.training import TrainConfig
from lib.transformer import Config, Transformer

pytestmark = pytest.mark.usefixtures("one_thread")

# Seven rows for two processes: unequal shares, where a plain mean of means would be wrong.
OPTIONS = "--preset smoke --steps 24 --eval-every 8 --batch-size 7 --accumulate 2 --checkpoint-every 5".split()

# `course train`, except that a worker dies in its team's first life, or is politely asked to end.
WORKER = """
    import os, signal, sys, time
    from lib.trainer import parallel
    from lib.course.cli import main
    from lib.course.training_run.live import Run
    watch = Run.watch
    def dies(self, done, loss):
        if str(self.team.rank) == os.environ.get("DIES") and done == 13 and parallel.restarts() == 0:
            (self.out / "died").write_text("at step 13")
            os.kill(os.getpid(), signal.SIGKILL)
        if str(self.team.rank) == os.environ.get("LEAVES") and done == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        if str(self.team.rank) == os.environ.get("ASTRAY") and done == 15:
            p = list(self.model.parameters())[-1].detach()
            (p.to_local() if hasattr(p, "to_local") else p).fill_(float("nan"))
        return watch(self, done, loss)
    Run.watch = dies
    keep = Run.keep
    def slowly(self, history, state):
        time.sleep(2 * (state == "interrupted"))  # others must not leave meanwhile: torchrun would end the leader
        keep(self, history, state)
    Run.keep = slowly
    main(["train", *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "worker.py").write_text(textwrap.dedent(WORKER))
    (folder / "beside.py").write_text(textwrap.dedent(BESIDE))
    return folder


@pytest.fixture(scope="module")
def warm():
    with Warm("test_parallel", "torch._dynamo", "torch.distributed.fsdp", "matplotlib.pyplot") as warm:
        yield warm


LAUNCH = ["--standalone", "--nproc-per-node", "2"]


def start(warm, *command, restarts: int = 1, **environment: str) -> tuple[int, str]:
    """torchrun's own agent on a script, in a process that has loaded torch already; its exit status, what was said."""
    if sys.platform != "linux":  # elsewhere a process with torch in it is not to be forked
        return torchrun(*command, restarts=restarts, **environment)
    done = warm.call("test_parallel:agent", restarts, *map(str, command), **environment)
    return done.status, done.said


def agent(restarts: int, *command: str) -> None:
    """What `torchrun` does with its command line, but that the workers are forks: they have torch from the start."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    args = run.parse_args([*LAUNCH, "--max-restarts", str(restarts), *command])
    args.rdzv_backend, args.rdzv_endpoint, args.rdzv_id = "c10d", "localhost:0", secrets.token_hex(8)  # --standalone
    config, _, _ = run.config_from_args(args)
    config.start_method = "fork"
    try:
        elastic_launch(config, entrypoint=worker)(*command)
    except ChildFailedError as error:
        sys.exit(str(error))


def worker(*command: str) -> None:
    """A worker's life: the script as a program."""
    sys.argv = list(command)
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


def torchrun(*command, restarts: int = 1, **environment: str) -> tuple[int, str]:
    """The real command; its exit status, what was said."""
    launch = [sys.executable, "-m", "torch.distributed.run", *LAUNCH, "--max-restarts", str(restarts)]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run([*launch, *map(str, command)], env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


def team(warm, folder, name: str, *options: str, dies: str = "") -> dict:
    """A run of two processes; the parts of its record and weights that must not depend on how many there are."""
    status, said = start(warm, folder / "worker.py", *OPTIONS, *options, "--out", folder / name, DIES=dies)
    assert status == 0, said
    assert (folder / name / "died").exists() == bool(dies)
    return seen(folder / name)


def alone(*options) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", *map(str, options)])
    assert end.value.code == 0


def seen(out) -> dict:
    return json.loads((out / "record.json").read_text()) | {"weights": load_file(out / "model.safetensors")}


@pytest.fixture(scope="module")
def two(warm, folder):
    return team(warm, folder, "two")


@pytest.fixture(scope="module")
def sharded(warm, folder):
    return team(warm, folder, "sharded", "--shard")


@pytest.fixture(scope="module")
def one(folder):
    """All fourteen rows at once, and as many windows to look at."""
    with threads(1):
        alone(*OPTIONS, "--batch-size", 14, "--accumulate", 1, "--eval-batches", 1, "--out", folder / "one")
    return seen(folder / "one")


def the_same(several: dict, one: dict) -> None:
    assert several["tokens"] == one["tokens"]
    assert one["train_loss"][-1] < one["train_loss"][0] - 0.3, "a curve that goes nowhere shows nothing"
    for what in ("train_loss", "val_loss"):
        torch.testing.assert_close(torch.tensor(several[what]), torch.tensor(one[what]), atol=1e-4, rtol=0)
    for name, p in one["weights"].items():
        torch.testing.assert_close(several["weights"][name], p, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", ["two", "sharded"])
def test_two_processes_and_accumulation_give_the_curve_of_one(request, one, kind):
    several = request.getfixturevalue(kind)
    assert (one["processes"], several["processes"]) == (1, 2)
    assert (one["sharded"], several["sharded"]) == (False, kind == "sharded")
    the_same(several, one)


@pytest.mark.parametrize(("kind", "victim"), [("two", "0"), ("two", "1"), ("sharded", "1")])
def test_a_killed_worker_is_restarted_and_the_run_ends_at_the_same_weights(request, warm, folder, kind, victim):
    two = request.getfixturevalue(kind)
    again = team(warm, folder, f"{kind}-killed-{victim}", *["--shard"] * (kind == "sharded"), dies=victim)
    assert again["train_loss"] == two["train_loss"] and again["val_loss"] == two["val_loss"]
    assert again["weights"].keys() == two["weights"].keys()
    assert all(torch.equal(again["weights"][name], p) for name, p in two["weights"].items())
    assert [s["step"] for s in again["samples"]] == [0, 8, 16, 24]


# --- sharded ------------------------------------------------------------------------------------------------

# Models that are cut beside ones that are not: what they compute, and what a process holds of either.
BESIDE = """
    import copy, json, sys
    from pathlib import Path
    import torch
    from torch import nn
    from lib import training
    from lib.trainer.checkpoint import load_checkpoint, save_checkpoint
    from lib.trainer.parallel import ALONE, join, whole
    from lib.transformer import Config, Transformer

    def held(tensors):  # bytes of memory behind what this process holds of them
        local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in local}.values())

    def apart(cut, ordinary):
        return max((whole(a) - b).abs().max().item() for a, b in zip(cut, ordinary, strict=True))

    torch.set_num_threads(1)
    sizes = Config.llama(vocab_size=85, block_size=16, n_layer=2, n_head=2, d_model=34, head_dim=16, d_ff=51)
    x = torch.randint(85, (7, 17), generator=torch.Generator().manual_seed(0))
    told = {}
    with join(torch.device("cpu"), sharded=True) as (team, device):
        rows = team.share(7)  # three or four
        for kind in ("adamw", "muon"):
            config = training.TrainConfig(batch_size=7, block_size=16, optimizer=kind, muon_lr=0.05)
            torch.manual_seed(0)
            plain = Transformer(sizes)
            cut = team.place(copy.deepcopy(plain), device)
            steppers = {net: training.make_optimizers(net, config) for net in (cut, plain)}
            gradients, norms = [], []
            for _ in range(3):
                share = training.next_token_loss(cut, x[rows, :-1], x[rows, 1:]) * (rows.stop - rows.start) / 7
                share.backward()
                training.next_token_loss(plain, x[:, :-1], x[:, 1:]).backward()
                gradients.append(apart([p.grad for p in cut.parameters()], [p.grad for p in plain.parameters()]))
                a, b = (nn.utils.clip_grad_norm_(net.parameters(), 0.5) for net in (cut, plain))
                norms.append(abs(whole(a).item() / b.item() - 1))
                for net, optimizers in steppers.items():
                    for optimizer in optimizers:
                        optimizer.step()
                    net.zero_grad()
            about = dict(gradients=max(gradients), norm=b.item(), norms=max(norms))
            about["weights"] = apart(cut.parameters(), plain.parameters())
            looks = [training.evaluate(net, x.flatten(), 3, 16, 3, all) for net, all in ((cut, team), (plain, ALONE))]
            about["look"] = abs(looks[0] - looks[1])
            about["bytes"] = [
                held([*net.parameters(), *(v for o in opts for s in o.state.values() for v in s.values() if v.ndim)])
                for net, opts in steppers.items()
            ]
            path = Path(sys.argv[1]) / f"{kind}.safetensors"
            history = training.History(train_loss=[0.0] * 3)
            save_checkpoint(path, cut, steppers[cut], config, history, team=team)
            torch.distributed.barrier()
            torch.manual_seed(1)
            other = team.place(Transformer(sizes), device)
            fresh = training.make_optimizers(other, config)
            load_checkpoint(path, other, fresh, config)
            about["again"] = apart(other.parameters(), [whole(p) for p in cut.parameters()])
            states = [v for o in fresh for s in o.state.values() for v in s.values() if v.ndim]
            about["bytes"].append(held([*other.parameters(), *states]))
            told[kind] = about
        (Path(sys.argv[1]) / f"{team.rank}.json").write_text(json.dumps(told))
"""


@pytest.fixture(scope="module")
def beside(warm, folder) -> list[dict]:
    status, said = start(warm, folder / "beside.py", folder, restarts=0)
    assert status == 0, said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_model_that_is_cut_computes_the_same(beside, optimizer):
    for told in beside:
        about = told[optimizer]
        assert about["gradients"] < 1e-6, "not the mean over all seven rows"
        assert about["norms"] < 1e-5 and about["norm"] > 0.5, "the norm of a part, or one that clips nothing"
        assert about["weights"] < 1e-4
        assert about["look"] < 1e-5
        assert about["again"] == 0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_of_two_holds_half_of_the_weights_and_averages(beside, optimizer):
    for told in beside:
        cut, plain, resumed = told[optimizer]["bytes"]
        assert 0.49 < cut / plain < 0.53 and 0.49 < resumed / plain < 0.53


def test_a_sharded_run_that_was_asked_to_end_goes_on_in_one_process(warm, folder, sharded):
    out = folder / "asked"
    status, said = start(warm, folder / "worker.py", *OPTIONS, "--shard", "--out", out, restarts=0, LEAVES="1")
    assert status and "stopped after step 14 of 24, all saved" in said, said
    assert seen(out)["state"] == "interrupted"
    alone("--resume", "--out", out)
    the_same(seen(out), sharded)


def test_a_run_of_one_process_that_was_stopped_goes_on_sharded(warm, folder, sharded, monkeypatch):
    out = folder / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "watch", lambda self, done, loss: done == 13)
        with pytest.raises(SystemExit):
            main(["train", *OPTIONS, "--out", str(out)])
    assert len(seen(out)["train_loss"]) == 13
    the_same(team(warm, folder, "stopped", "--shard", "--resume"), sharded)


@pytest.mark.parametrize("shard", [[], ["--shard"]], ids=["whole", "cut"])
def test_a_team_that_diverges_says_it_once_and_keeps_the_last_good_checkpoint(warm, folder, shard):
    """What breaks is one process's share: all must see it, at the same step, and none is left waiting."""
    out = folder / f"astray{len(shard)}"
    options = [*OPTIONS, *shard, "--out", out]
    status, said = start(warm, folder / "worker.py", *options, restarts=0, ASTRAY="1")
    assert status and said.count("course: the run diverged: ") == 1 and " at step 15, " in said, said
    assert f"the last good checkpoint is {out / 'checkpoint.safetensors'}" in said, said
    kept = json.loads((out / "record.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert kept["state"] == "diverged" and 14 <= len(kept["train_loss"]) <= 15
    with safe_open(out / "checkpoint.safetensors", framework="pt") as file:
        assert len(json.loads(file.metadata()["about"])["history"]["train_loss"]) == 10
        assert all(file.get_tensor(name).isfinite().all() for name in file.keys())


def test_sharding_needs_several_processes(folder, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--shard", "--out", str(folder / "never")])
    told = capsys.readouterr().err
    assert end.value.code == 2 and len(told.splitlines()) == 1
    assert "--shard cuts the weights between processes, and there is one; start more by `torchrun" in told
    assert not (folder / "never").exists()


# --- without starting anything ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_row_is_somebodys_and_shares_are_even(size):
    for rows in range(size, 3 * size + 1):
        parts = [list(range(rows))[Team(rank, size).share(rows)] for rank in range(size)]
        assert [row for part in parts for row in part] == list(range(rows))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1 and min(map(len, parts)) >= 1


def test_all_make_as_many_passes_in_a_look():
    for size in range(1, 6):
        for rows in range(size, 12):  # of a batch
            for batches in range(1, 25):
                shares = [range(batches * rows)[Team(rank, size).share(batches * rows)] for rank in range(size)]
                assert len({-(-len(share) // rows) for share in shares}) == 1


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
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        assert len(json.loads(file.metadata()["about"])["history"]["train_loss"]) == end


def test_a_team_agrees_where_to_go_on_and_follows_the_leader_before_the_first_step():
    class Asked(Team):
        def agree(self, value, what):
            told.append(value)

        def follow(self, tensors):
            told.append(sum(t.numel() for t in tensors))

    told = []
    model = Transformer(Config.llama(vocab_size=9, block_size=4, n_layer=1, n_head=1, d_model=4))
    part = Together(Asked(1, 2), model, TrainConfig(batch_size=2), lambda done, loss: False)
    assert not told
    part.begin(History(train_loss=[1.0] * 7))
    assert told == [7, sum(p.numel() for p in model.parameters())]


def test_each_draws_its_own_dropout_and_the_leader_what_one_process_draws():
    model = Transformer(Config.llama(vocab_size=9, block_size=4, n_layer=1, n_head=1, d_model=4))
    config, drawn = TrainConfig(batch_size=3), []
    for rank in range(3):
        torch.manual_seed(5)
        Together(Team(rank, 3), model, config, lambda done, loss: False).before(0)
        drawn.append(torch.rand(4).tolist())
    torch.manual_seed(5)
    assert drawn[0] == torch.rand(4).tolist() and drawn[0] != drawn[1] != drawn[2] != drawn[0]


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
