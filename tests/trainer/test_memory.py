"""Memory: what a run is said to need is near what it takes, and too little names the batch that fits."""

import subprocess
import sys
import textwrap

import pytest
import torch

from lib.errors import CourseError
from lib.trainer import memory
from lib.trainer.memory import check_memory
from lib.trainer.parallel import Team
from lib.training import TrainConfig
from lib.transformer import Config

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL = Config.llama(vocab_size=80, block_size=256, n_layer=4, n_head=4, d_model=192)
ASKED = TrainConfig(batch_size=24, block_size=256)


def test_too_little_memory_names_the_batch_that_fits(monkeypatch):
    small = memory.memory(MODEL, TrainConfig(batch_size=9, block_size=256))
    monkeypatch.setattr(memory, "free_memory", lambda device: small)
    with pytest.raises(CourseError, match=r"about 0\.\d GiB and 0\.\d GiB are free; .*size 8 --accumulate 3 fits"):
        check_memory(MODEL, ASKED, torch.device("cpu"))
    check_memory(MODEL, TrainConfig(batch_size=8, accumulate=3, block_size=256), torch.device("cpu"))
    check_memory(MODEL, ASKED, torch.device("cuda"), Team(size=3))  # a GPU each: three times as much
    with pytest.raises(CourseError, match="fits"):
        check_memory(MODEL, ASKED, torch.device("cpu"), Team(size=3))  # one memory for all three


def test_a_sharded_process_needs_less_memory():
    wide = Config.llama(vocab_size=1000, block_size=64, n_layer=12, n_head=8, d_model=512)
    config = TrainConfig(batch_size=8, block_size=64)
    whole = memory.memory(wide, config, Team(size=8))
    assert memory.memory(wide, config, Team(size=8, sharded=True)) < whole / 3
    assert "or --shard" in memory.out_of_memory(wide, config, 1000, Team(size=8))
    assert "or --shard" not in memory.out_of_memory(wide, config, 1000, Team(size=8, sharded=True))


PEAK = """
    import sys, torch
    from lib import training
    from lib.transformer import Config, Transformer
    torch.set_num_threads(1)
    model = Config.llama(vocab_size=80, block_size=256, n_layer=4, n_head=4, d_model=192)
    config = training.TrainConfig(batch_size=int(sys.argv[1]), block_size=256, steps=1)
    text = torch.arange(1000) % 80
    training.train(Transformer(model), text, None, training.TrainConfig(batch_size=1, block_size=8, steps=1))
    def peak():  # getrusage would tell the parent's, if that was larger
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
    before = peak()
    training.train(Transformer(model), text, None, config)
    print((peak() - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
def test_the_estimate_of_memory_is_near_what_a_step_takes():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK), "24"], capture_output=True, text=True, check=True, timeout=300
    )
    assert 0.6 < memory.memory(MODEL, ASKED) / int(done.stdout) < 1.6
