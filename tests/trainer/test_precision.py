"""Half the bits, or compiled: nearly the same losses, and a clear word where there is no compiler."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from tiny import SMALL, tiny

from lib.training import TrainConfig, train

pytestmark = pytest.mark.usefixtures("one_thread")


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
