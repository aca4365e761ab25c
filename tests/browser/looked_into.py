"""Models of every kind that the view shows, small and lively, with the tokenizers that go with them."""

import torch
import torch.nn.functional as F

from lib.course.training_run import recipe
from lib.device import threads
from lib.tokenizer import BPETokenizer, CharTokenizer
from lib.transformer import Config, Transformer

PLAY = """First Citizen:
Before we proceed any further, hear me speak.
All:
Speak, speak! You are all resolved rather to die than to famish? 'Tis 1623; we've 45,678 reasons.
"""
TEXTS = ["T", "To", "First Citizen:", "Speak, speak", "hear me", "any further, hear any further, hear", "ooooooooooo",
         "we've 45,678 reasons.\nAll:\n\n  ", "resolved rather to die than to famish? You are all",
         "Before we proceed any further, hear me speak.\nAll:\nSpeak, spe"]  # fmt: skip


def lively(config: Config) -> Transformer:
    """With weights large enough that attention is not uniform and every number tells."""
    torch.manual_seed(0)
    model = Transformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.15)
    return model.eval()


def trained(steps: int = 8) -> tuple[Transformer, CharTokenizer]:
    """The model of `course train --preset cpu` after a few steps on a few lines."""
    tokenizer = CharTokenizer.train(PLAY)
    torch.manual_seed(0)
    model = Transformer(recipe.model_config(recipe.PRESETS["cpu"], tokenizer.vocab_size))
    ids = torch.tensor(tokenizer.encode(PLAY * 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
    with threads(1):
        for step in range(steps):
            batch = torch.stack([ids[n : n + 65] for n in range(7 * step % 40, 160, 20)])  # (B, 65)
            loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), tokenizer


def gpt2_like():
    tokenizer = BPETokenizer.train(PLAY, 300)
    return lively(Config.gpt2(vocab_size=301, block_size=64, n_layer=2, n_head=4, d_model=32)), tokenizer


def grouped():
    """Grouped heads, rotary, a width of head of its own, a window, biases on some, a head of its own."""
    config = Config.llama(vocab_size=290, block_size=80, n_layer=3, n_head=6, n_kv_head=2, d_model=40, head_dim=10,
                          d_ff=50, qkv_bias=True, sliding_window=20, tie=False, rope_theta=500.0)  # fmt: skip
    return lively(config), BPETokenizer.train(PLAY, 290)


def sinusoidal():
    config = Config(vocab_size=len(set(PLAY)), block_size=64, n_layer=2, n_head=2, d_model=24, norm="layer",
                    mlp="plain", position="sinusoidal", activation="gelu", mlp_bias=True)  # fmt: skip
    return lively(config), CharTokenizer.train(PLAY)


KINDS = {"cpu": trained, "gpt2": gpt2_like, "grouped": grouped, "sinusoidal": sinusoidal}
