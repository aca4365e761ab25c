"""A transformer that reads a Llama-like model as Hugging Face saves it, and writes on.

    python THIS_FILE FOLDER "The capital of France is"
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

# parts
from lib.lesson.handmade.fill import (  # the course's
    Cache,
    apply_merges,
    attention,
    causal_mask,
    cross_entropy,
    embed,
    gated_mlp,
    merge,
    merge_heads,
    merged,
    multi_head,
    pre_norm_block,
    repeat_kv,
    rms_norm,
    rotary,
    sample,
    split_heads,
    training_step,
    transformer,
    write_text,
)

# end of parts

ATTENTION = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "out": "self_attn.o_proj"}
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges", "dropout")
UNDERSTOOD = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}


class Model(nn.Module):
    """tokens (B, T) → logits (B, T, V): the parts above, wired, with somebody's weights."""

    def __init__(self, config, weights):
        super().__init__()
        rope = config.get("rope_parameters") or {}
        for name, only in UNDERSTOOD.items():
            if config.get(name, only) != only:
                raise SystemExit(f"this file understands {name} = {only!r}, not {config[name]!r}")
        if config.get("rope_scaling") or rope.get("rope_type", "default") != "default":
            raise SystemExit("this file knows plain rotary positions, not stretched ones (rope_scaling)")
        self.n_layer, self.n_head = config["num_hidden_layers"], config["num_attention_heads"]
        self.n_kv_head = config.get("num_key_value_heads") or self.n_head
        self.theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
        self.eps = config.get("rms_norm_eps", 1e-6)
        self.head = "model.embed_tokens" if config.get("tie_word_embeddings", False) else "lm_head"
        self.weights = nn.ParameterDict({name.replace(".", "/"): weight for name, weight in weights.items()})

    def weight(self, name):
        return self.weights[f"{name}.weight".replace(".", "/")]

    def norm(self, name):
        return lambda x: rms_norm(x, self.weight(name), self.eps)  # (B, T, D)

    def block(self, i, positions, look_up):
        here = f"model.layers.{i}."
        w = {name: self.weight(here + place) for name, place in ATTENTION.items()}

        def turn(x):
            B, K, T, Dh = x.shape
            return rotary(x.reshape(-1, Dh), positions.repeat(B * K), self.theta).view(B, K, T, Dh)

        def attend(x):
            return multi_head(x, w, self.n_head, self.n_kv_head, look_up, turn)  # (B, T, D)

        def mlp(x):
            return gated_mlp(x, *(self.weight(here + name) for name in MLP))  # (B, T, D)

        norm1, norm2 = (self.norm(here + name) for name in NORMS)
        return lambda x: pre_norm_block(x, norm1, attend, norm2, mlp)  # (B, T, D)

    def forward(self, tokens, caches=(), before=0):
        """caches: one a layer, which remember the `before` tokens that these ones follow."""
        T = tokens.size(1)
        ids, places = tokens.unique(return_inverse=True)  # (N,), (B, T): each token of the text once, and which it is
        table = embed(ids, self.weight("model.embed_tokens"))  # (N, D): of all rows only those that the text needs
        positions, mask = torch.arange(before, before + T), causal_mask(T)  # (T,), (T, T)

        def look_up(q, k, v):
            return attention(q, k, v, mask)  # (B, H, T, Dh)

        look_ups = [cache.attend for cache in caches] or [look_up] * self.n_layer
        blocks = [self.block(i, positions, look_ups[i]) for i in range(self.n_layer)]
        return transformer(places, table, blocks, self.norm("model.norm"), self.weight(self.head))  # (B, T, V)


def read(folder):
    """(config, weights, tokenizer) of a folder with config.json, *.safetensors and tokenizer.json."""
    folder, weights = Path(folder), {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= {name: weight.float() for name, weight in load_file(file).items()}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config, weights, Tokenizer.from_file(str(folder / "tokenizer.json"))


def encode(tokenizer, text):
    """The ids of a text: cut into words as the tokenizer says, and each word into pieces by what it has learned."""
    saved = json.loads(tokenizer.to_str())
    model, names = saved["model"], {token["content"] for token in saved["added_tokens"]}
    plain = model["type"] == "BPE" and not any(model.get(name) for name in AFFIXES) and not saved["normalizer"]
    marked = any(name in text for name in names) or tokenizer.num_special_tokens_to_add(False)
    cut = tokenizer.pre_tokenizer if plain and not marked else None
    words = [word for word, _ in cut.pre_tokenize_str(text)] if cut else []
    ids, vocab = [], model.get("vocab", {})
    if not words or not all(letter in vocab for word in words for letter in word):
        return tokenizer.encode(text).ids  # a tokenizer of another kind, or a mark of its own in the text
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    for word in words:
        merges = [(vocab[a], vocab[b], vocab[a + b]) for a, b in pairs if a + b in word]  # oldest first
        ids += apply_merges([vocab[letter] for letter in word], merges)
    return ids


# until 07
def write(model, tokens, n):
    """The tokens and n more, each the likeliest after those before it."""
    for _ in range(n):
        tokens = [*tokens, int(model(torch.tensor([tokens]))[0, -1].argmax())]
    return tokens


# end of until 07
# 05: it trains
def train(model, ids, steps, rows=12, length=64, rate=1e-3, seed=0):
    """Train in place on a long run of token ids, (N,); yields the loss of each step."""
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=rate)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        starts = torch.randint(len(ids) - length, (rows, 1), generator=rng)
        windows = ids[starts + torch.arange(length + 1)]  # (B, T + 1)
        yield training_step(model, optimizer, windows[:, :-1], windows[:, 1:], cross_entropy, 1.0)


# end of 05
# 07: it draws, and remembers what it has read
def write(model, tokens, n, temperature=None, top_k=None, top_p=None, seed=0):  # noqa: F811
    """The tokens and n more: the likeliest, or drawn if there is a temperature. Nothing is read twice."""
    caches, rng, before = [Cache() for _ in range(model.n_layer)], torch.Generator().manual_seed(seed), 0

    def read_on(new):
        nonlocal before
        logits, before = model(new, caches, before), before + new.size(1)
        return logits  # (B, T, V)

    def choose(logits):
        if temperature is None:
            return logits.argmax(-1)  # (B,)
        return sample(logits, temperature, top_k, top_p, rng)

    return write_text(read_on, torch.tensor([tokens]), n, choose)[0].tolist()


# end of 07
# 11: it takes LoRA
class Adapted(Model):
    """A model whose own weights stay as they are; beside some of its matrices there is a small change that learns."""

    def __init__(self, config, weights, rank=8, alpha=32.0, places=("self_attn.q_proj", "self_attn.v_proj"), seed=0):
        super().__init__(config, weights)
        self.requires_grad_(False)
        self.alpha, self.a, self.b = alpha, nn.ParameterDict(), nn.ParameterDict()
        rng = torch.Generator().manual_seed(seed)
        for name in [name for name in self.weights if name.replace("/", ".").removesuffix(".weight").endswith(places)]:
            out, into = self.weights[name].shape
            self.a[name] = torch.randn(rank, into, generator=rng) / math.sqrt(into)  # (r, in)
            self.b[name] = torch.zeros(out, rank)  # (out, r)

    def weight(self, name):
        own, key = super().weight(name), f"{name}.weight".replace(".", "/")
        return merged(own, [(self.a[key], self.b[key], self.alpha)]) if key in self.a else own  # (out, in)


# end of 11
# 05: and keeps what it has learnt
def save(model, config, tokenizer, folder):
    """What `read` reads; a LoRA is in the weights by then."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    names = [name.replace("/", ".").removesuffix(".weight") for name in model.weights]
    weights = {f"{name}.weight": model.weight(name).detach().contiguous() for name in names}
    save_file(weights, str(Path(folder) / "model.safetensors"))
    (Path(folder) / "config.json").write_text(json.dumps(config, indent=1, allow_nan=False), encoding="utf-8")
    tokenizer.save(str(Path(folder) / "tokenizer.json"))


# end of 05
def main():
    ask = argparse.ArgumentParser(description="Let this transformer write on.")
    ask.add_argument("folder", help="a Llama-like model: config.json, *.safetensors, tokenizer.json")
    ask.add_argument("prompt")
    ask.add_argument("--tokens", type=int, default=8, help="how many to write")
    ask.add_argument("--scores", metavar="FILE", help="also save the prompt's logits and the new tokens there")
    how = {}
    # 07
    ask.add_argument("--temperature", type=float, help="draw at this temperature; without, the likeliest")
    ask.add_argument("--top-k", type=int)
    ask.add_argument("--top-p", type=float)
    ask.add_argument("--seed", type=int, default=0)
    # end of 07
    # 05
    ask.add_argument("--train", metavar="FILE.txt", help="first read this text for --steps steps")
    ask.add_argument("--steps", type=int, default=20)
    ask.add_argument("--rate", type=float, default=1e-3, help="how large a step")
    ask.add_argument("--save", metavar="FOLDER", help="keep what has been trained there")
    # end of 05
    # 11
    ask.add_argument("--lora", type=int, default=0, metavar="RANK", help="train a LoRA of this rank, nothing else")
    # end of 11
    asked = ask.parse_args()
    config, weights, tokenizer = read(asked.folder)
    model, ids = Model(config, weights), encode(tokenizer, asked.prompt)
    if not ids:
        raise SystemExit("the prompt is empty; write at least one word")
    # 11
    if asked.lora:
        model = Adapted(config, weights, asked.lora)
    # end of 11
    # 05
    if asked.train:
        text = torch.tensor(tokenizer.encode(Path(asked.train).read_text(encoding="utf-8")).ids)  # (N,)
        with torch.enable_grad():
            for step, loss in enumerate(train(model, text, asked.steps, rate=asked.rate), start=1):
                print(f"step {step}: loss {loss:.3f}", flush=True)
        if asked.save:
            save(model, config, tokenizer, asked.save)
    # end of 05
    # 07
    how = dict(temperature=asked.temperature, top_k=asked.top_k, top_p=asked.top_p, seed=asked.seed)
    # end of 07
    ends = config.get("eos_token_id")
    stop = ends if isinstance(ends, list) else [ends]
    begun = time.perf_counter()
    said = write(model, ids, asked.tokens, **how)[len(ids) :]
    seconds = (time.perf_counter() - begun) / max(1, len(said))
    said = said[: min([said.index(end) for end in stop if end in said], default=len(said))]
    print(asked.prompt + tokenizer.decode(said))
    print(f"({seconds:.3f} s a token)")
    if asked.scores:
        logits = model(torch.tensor([ids]))[0].contiguous()  # (T, V)
        told = {"logits": logits, "new": torch.tensor(said), "seconds": torch.tensor(seconds)}
        save_file(told, asked.scores)


if __name__ == "__main__":
    with torch.no_grad():
        main()
