"""A small model, a LoRA in it, rows to learn from and two tokenizers, for the tests of what is adapted."""

import torch

from lib.adapt.finetuning import Row
from lib.adapt.lora import lora_layers
from lib.training import TrainConfig
from lib.transformer import Config, Transformer

SIZES = dict(vocab_size=50, block_size=64, n_layer=2, n_head=4, n_kv_head=2, d_model=32, d_ff=48)
CONFIG = TrainConfig(steps=6, batch_size=2, lr=1e-2, warmup=1, weight_decay=0.0)


def tiny(**changes) -> Transformer:
    torch.manual_seed(0)
    return Transformer(Config.llama(**SIZES | changes)).eval()


def stirred(model: Transformer) -> Transformer:
    """A LoRA as after some training: B no longer zero."""
    with torch.no_grad():
        for i, layer in enumerate(lora_layers(model).values()):
            layer.b.normal_(std=0.2, generator=torch.Generator().manual_seed(i))
    return model


def some_rows(n=6):
    draw = torch.Generator().manual_seed(1)
    made = []
    for i in range(n):
        prompt, said = 4 + i % 3, 3 + i % 2
        made.append(Row(tuple(torch.randint(50, (prompt + said,), generator=draw).tolist()), prompt))
    return made


class Letters:
    """A tokenizer for tests: a token is a character."""

    eos_id = 0

    def encode(self, text):
        return [ord(c) for c in text]

    def token(self, id):
        return chr(id)

    def chat(self, messages):
        return self.encode("".join(m["content"] for m in messages) + ">")


class Numbers:
    """A tokenizer for tests: a token is its number."""

    eos_id = 3

    def decode(self, ids):
        return " ".join(str(int(i)) for i in ids)
