"""A model that trains in a moment, and its run, for the tests of training and of what goes along with it."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lib.transformer import Config, Transformer
from lib.weights import pretrained

SIZES = dict(vocab_size=17, block_size=16, n_layer=2, n_head=2, d_model=16)
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SMALL = dict(steps=12, batch_size=4, block_size=8, warmup=3, eval_every=5, eval_batches=2)


def tiny(**fields) -> Transformer:
    torch.manual_seed(0)
    return Transformer(Config.llama(**(SIZES | fields)))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def talker(where: Path) -> Path:
    """A folder with a tiny model that never ends its turn, and a tokenizer of bytes with the marks of a chat."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(MARKS)
    library.save(str(where / "tokenizer.json"))
    torch.manual_seed(0)
    model = Transformer(Config.llama(vocab_size=259, block_size=1024, n_layer=2, n_head=4, n_kv_head=2, d_model=32))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():  # it writes letters, and does not end its turn by itself
        model.embedding.weight[258] = 0
    pretrained.save(model, where)
    (where / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    (where / "generation_config.json").write_text('{"eos_token_id": [258]}')
    return where
