"""Half the bits, or compiled: nearly the same losses, and a clear word where there is no compiler."""

import shutil

import pytest
import torch
from tiny import SMALL, tiny

from lib.errors import CourseError
from lib.training import TrainConfig, train
from lib.transformer import Config, Transformer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_bfloat16_runs_and_stays_close(text):
    a = train(tiny(), text, text, TrainConfig(**SMALL))
    model = tiny()
    b = train(model, text, text, TrainConfig(**SMALL, precision="bfloat16"))
    assert a.train_loss != b.train_loss
    torch.testing.assert_close(torch.tensor(a.val_loss), torch.tensor(b.val_loss), atol=0.05, rtol=0)
    assert all(p.dtype is torch.float32 for p in model.parameters())


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """PyTorch's compiler with nothing kept from earlier runs, in this process alone, and sure of the processor."""
    inductor = pytest.importorskip("torch._inductor.config")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    with inductor.patch(compile_threads=1, **{"cpp.vec_isa_ok": True}):
        yield inductor
    torch.compiler.reset()


loads_the_compiler = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own


@loads_the_compiler
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compile_gives_the_same_losses(text, compiler):
    plain = train(tiny(n_layer=1), text, text, TrainConfig(**SMALL))  # one layer: the compiler takes seconds for each
    fast = train(tiny(n_layer=1), text, text, TrainConfig(**SMALL, compile=True))
    torch.testing.assert_close(torch.tensor(fast.train_loss), torch.tensor(plain.train_loss), atol=1e-4, rtol=0)


@loads_the_compiler
def test_compile_without_a_compiler_says_so(compiler):
    config = TrainConfig(steps=1, block_size=4, compile=True)
    model = Transformer(Config.llama(vocab_size=5, block_size=4, n_layer=1, n_head=1, d_model=4))
    with compiler.patch({"cpp.cxx": (None, "/nonexistent")}), pytest.raises(CourseError) as told:
        train(model, torch.arange(50) % 5, None, config)
    said = str(told.value)
    assert said.startswith("torch.compile failed (") and "\n" not in said and "set compile=False" in said
