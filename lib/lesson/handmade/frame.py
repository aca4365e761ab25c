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
    apply_merges,
    attention,
    causal_mask,
    embed,
    gated_mlp,
    merge,
    merge_heads,
    multi_head,
    pre_norm_block,
    repeat_kv,
    rms_norm,
    rotary,
    split_heads,
    transformer,
)

# end of parts

ATTENTION = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "out": "self_attn.o_proj"}
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges", "dropout")
UNDERSTOOD = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}


class Model:
    """tokens (B, T) → logits (B, T, V): the parts above, wired, with somebody's weights."""

    def __init__(self, config, weights):
        rope = config.get("rope_parameters") or {}
        for name, only in UNDERSTOOD.items():
            if config.get(name, only) != only:
                raise SystemExit(f"this file understands {name} = {only!r}, not {config[name]!r}")
        if config.get("rope_scaling") or rope.get("rope_type", "default") != "default":
            raise SystemExit("this file knows plain rotary positions, not stretched ones (rope_scaling)")
        self.n_layer, self.n_head = config["num_hidden_layers"], config["num_attention_heads"]
        self.n_kv_head = config.get("num_key_value_heads") or self.n_head
        self.theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
        self.eps, self.weights = config.get("rms_norm_eps", 1e-6), weights
        self.head = "model.embed_tokens" if config.get("tie_word_embeddings", False) else "lm_head"

    def weight(self, name):
        return self.weights[f"{name}.weight"]

    def norm(self, name):
        return lambda x: rms_norm(x, self.weight(name), self.eps)  # (B, T, D)

    def block(self, i, positions, mask):
        here = f"model.layers.{i}."
        w = {name: self.weight(here + place) for name, place in ATTENTION.items()}

        def look_up(q, k, v):
            return attention(q, k, v, mask)  # (B, H, T, Dh)

        def turn(x):
            return torch.stack([torch.stack([rotary(head, positions, self.theta) for head in text]) for text in x])

        def attend(x):
            return multi_head(x, w, self.n_head, self.n_kv_head, look_up, turn)  # (B, T, D)

        def mlp(x):
            return gated_mlp(x, *(self.weight(here + name) for name in MLP))  # (B, T, D)

        norm1, norm2 = (self.norm(here + name) for name in NORMS)
        return lambda x: pre_norm_block(x, norm1, attend, norm2, mlp)  # (B, T, D)

    def __call__(self, tokens):
        T = tokens.size(1)
        ids, places = tokens.unique(return_inverse=True)  # (N,), (B, T): each token of the text once, and which it is
        table = embed(ids, self.weight("model.embed_tokens"))  # (N, D): of all rows only those that the text needs
        positions, mask = torch.arange(T), causal_mask(T)  # (T,), (T, T)
        blocks = [self.block(i, positions, mask) for i in range(self.n_layer)]
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


def write(model, tokens, n, stop=()):
    """Up to n tokens, each the likeliest after those before it."""
    for _ in range(n):
        new = int(model(torch.tensor([tokens]))[0, -1].argmax())
        if new in stop:
            return
        tokens = [*tokens, new]
        yield new


def main():
    ask = argparse.ArgumentParser(description="Let this transformer write on.")
    ask.add_argument("folder", help="a Llama-like model: config.json, *.safetensors, tokenizer.json")
    ask.add_argument("prompt")
    ask.add_argument("--tokens", type=int, default=8, help="how many to write")
    ask.add_argument("--scores", metavar="FILE", help="also save the prompt's logits and the new tokens there")
    asked = ask.parse_args()
    config, weights, tokenizer = read(asked.folder)
    model, ids = Model(config, weights), encode(tokenizer, asked.prompt)
    if not ids:
        raise SystemExit("the prompt is empty; write at least one word")
    ends = config.get("eos_token_id")
    stop = ends if isinstance(ends, list) else [ends]
    print(asked.prompt, end="", flush=True)
    begun, said = time.perf_counter(), []
    for new in write(model, ids, asked.tokens, stop):
        said.append(new)
        print(tokenizer.decode([new]), end="", flush=True)
    seconds = time.perf_counter() - begun
    print(f"\n({len(said)} tokens in {seconds:.1f} s)")
    if asked.scores:
        logits = model(torch.tensor([ids]))[0].contiguous()  # (T, V)
        save_file({"logits": logits, "new": torch.tensor(said), "seconds": torch.tensor(seconds)}, asked.scores)


if __name__ == "__main__":
    with torch.no_grad():
        main()
