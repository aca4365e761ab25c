"""Our trainer against the classic character-level recipe, and against Hugging Face's GPT-2: time and tokens a second.

    python benchmarks/training.py [quality|speed] [--text FILE] [--repeats N] [--out FILE.json]

quality   `course train --preset cpu` against the public CPU recipe (4 layers, 4 heads, width 128, block 64, batch 12,
          2,000 steps, AdamW, cosine from 1e-3, no dropout) as a plain PyTorch loop: same text, split, evaluation and
          threads, in one run. Both stop and go in turns, so a busy machine slows both alike. Seconds are those of the
          steps; ours count their looks at the held-out text too, the recipe's have none.
speed     tokens a second in training, at equal size and batch: our Config.gpt2 and trainer against GPT2LMHeadModel
          with torch's AdamW, at two sizes; ours in float32 like theirs, and in bfloat16 (mixed precision: weights and
          averages stay float32), which pays where a CPU has circuits for it. They take turns, and at going first;
          medians of the ratios.

Each prints a table and writes JSON. One thread for both sides, unless --threads says otherwise.
"""

import argparse
import json
import math
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import corpus, training
from lib.course.training_run.recipe import PRESETS, model_config, train_config
from lib.tokenizer import CharTokenizer
from lib.training import TrainConfig
from lib.transformer import Config, Transformer, count_parameters

OUT = Path(__file__).resolve().parent.parent / "build" / "benchmarks" / "training.json"
BLOCK = 64  # of the recipe, and of the evaluation that compares


# --- the recipe, as a plain loop ----------------------------------------------------------------------------


class Layer(nn.Module):
    """A GPT-2 layer as a plain loop would write it: one matrix for q, k and v, no biases."""

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = (t.view(B, T, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(D, dim=2))
        heard = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, Dh)
        x = x + self.out(heard.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Recipe(nn.Module):
    def __init__(self, vocab: int, layers: int = 4, heads: int = 4, d: int = 128):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, d), nn.Embedding(BLOCK, d)
        self.layers = nn.ModuleList(Layer(d, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(d, bias=False), nn.Linear(d, vocab, bias=False)
        self.head.weight = self.tokens.weight
        for name, p in self.named_parameters():
            if p.ndim == 2:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if last else 0.02)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.places(torch.arange(x.size(1)))
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h))


def recipe_steps(model: nn.Module, tokens: Tensor, steps: int, seed: int, rate: float = 1e-3) -> Iterator[None]:
    """The recipe's loop; pauses after every step."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))
    rng = torch.Generator().manual_seed(seed)
    for step in range(steps):
        done = (step - 100) / (steps - 100)
        share = (step + 1) / 101 if step < 100 else 0.1 + 0.45 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        starts = torch.randint(len(tokens) - BLOCK, (12,), generator=rng)
        x = torch.stack([tokens[i : i + BLOCK] for i in starts])
        y = torch.stack([tokens[i + 1 : i + 1 + BLOCK] for i in starts])
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield


# --- taking turns -------------------------------------------------------------------------------------------


class Turns:
    """A job in a thread of its own that works only while it is its turn, and knows the seconds it worked."""

    def __init__(self, work: Callable[[Callable[[], None]], None]):
        self.wall = self.cpu = 0.0
        self.finished = False
        self._go, self._rest = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable) -> None:
        self._go.wait()
        self._clock()
        work(self._pause)
        self._note()
        self.finished = True
        self._rest.set()

    def _clock(self) -> None:
        self._since = time.perf_counter(), time.process_time()

    def _note(self) -> None:
        self.wall += time.perf_counter() - self._since[0]
        self.cpu += time.process_time() - self._since[1]

    def _pause(self) -> None:
        """Called by the work after each step: goes on at once while it is its turn."""
        if time.perf_counter() < self._until:
            return
        self._note()
        self._go.clear()
        self._rest.set()
        self._go.wait()
        self._clock()

    def turn(self, seconds: float) -> None:
        """Let it work for about so long."""
        if not self.finished:
            self._until = time.perf_counter() + seconds
            self._rest.clear()
            self._go.set()
            self._rest.wait()


# --- time to quality ----------------------------------------------------------------------------------------


def quality(text: str, seed: int, steps: int) -> dict:
    tokenizer = CharTokenizer.train(text)
    ids = torch.tensor(tokenizer.encode(text))
    train_ids, val_ids = corpus.split(ids)
    options = PRESETS["cpu"] | {"seed": seed}
    torch.manual_seed(seed)
    ours = Transformer(model_config(options, tokenizer.vocab_size))
    recipe = Recipe(tokenizer.vocab_size)

    def run_recipe(pause: Callable[[], None]) -> None:
        for _ in recipe_steps(recipe, train_ids, steps, seed):
            pause()

    def run_ours(pause: Callable[[], None]) -> None:
        def watch(done: int, loss: Tensor) -> bool:
            pause()
            return False

        training.train(ours, train_ids, val_ids, train_config(options), watch=watch)

    us, them = Turns(run_ours), Turns(run_recipe)
    while not (us.finished and them.finished):  # ours is shorter by far: a tenth of each turn
        us.turn(0.2)
        them.turn(2.0)

    def judged(model: nn.Module) -> float:
        return training.evaluate(model, val_ids, 50, BLOCK, batches=len(val_ids) // BLOCK // 50 + 1)

    return {
        "seed": seed,
        "characters": len(text),
        "vocabulary": tokenizer.vocab_size,
        "recipe": {
            "parameters": count_parameters(recipe), "loss": judged(recipe), "seconds": them.wall, "cpu": them.cpu,
        },
        "ours": {"parameters": count_parameters(ours), "loss": judged(ours), "seconds": us.wall, "cpu": us.cpu},
        "times_faster": them.wall / us.wall,
        "times_less_cpu": them.cpu / us.cpu,
    }  # fmt: skip


# --- tokens a second ----------------------------------------------------------------------------------------

SIZES = {
    "0.8M": (dict(n_layer=4, n_head=4, d_model=128, block_size=64), 12, 25),
    "10.7M": (dict(n_layer=6, n_head=6, d_model=384, block_size=256), 4, 2),
}


def speed(ids: Tensor, vocabulary: int, repeats: int, compiled: bool) -> list[dict]:
    from transformers import GPT2Config, GPT2LMHeadModel

    rows = []
    for name, (size, batch, steps) in SIZES.items():
        theirs = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary, n_positions=size["block_size"], n_embd=size["d_model"],
                n_layer=size["n_layer"], n_head=size["n_head"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            )
        )  # fmt: skip
        ours = Transformer(Config.gpt2(vocab_size=vocabulary, **size))
        assert count_parameters(ours) == sum(p.numel() for p in theirs.parameters())
        optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
        theirs.train()
        fields = dict(batch_size=batch, block_size=size["block_size"], eval_every=10**9, warmup=0)

        def run_theirs(steps: int, size=size, batch=batch, theirs=theirs, optimizer=optimizer) -> None:
            for step in range(steps):
                x, _ = corpus.batches(ids, batch, size["block_size"], 0, step)
                loss = theirs(input_ids=x, labels=x).loss  # it shifts the labels itself
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
                optimizer.step()

        def run_ours(steps: int, ours=ours, fields=fields, **more) -> None:
            training.train(ours, ids, None, TrainConfig(steps=steps, **fields, **more))

        def run_half(steps: int, run_ours=run_ours) -> None:
            run_ours(steps, precision="bfloat16")

        runs = [("ours", run_ours), ("ours_bfloat16", run_half), ("transformers", run_theirs)]
        times: dict[str, list[float]] = {who: [] for who, _ in runs}
        for _, run in runs:
            run(2)  # the first steps warm caches
        for repeat in range(repeats):
            for who, run in runs if repeat % 2 else reversed(runs):
                began = time.perf_counter()
                run(steps)
                times[who].append(time.perf_counter() - began)
        tokens = steps * batch * size["block_size"]
        row = {
            "size": name,
            "parameters": count_parameters(ours),
            "batch": batch,
            "block": size["block_size"],
            "tokens_per_second": {who: tokens / statistics.median(t) for who, t in times.items()},
            "ratio": {
                who: statistics.median(a / b for a, b in zip(times["transformers"], times[who], strict=True))
                for who in ("ours", "ours_bfloat16")
            },
            "every_repeat_seconds": times,
        }
        if compiled:
            row["compiled"] = with_compile(run_ours, steps, statistics.median(times["ours"]) / steps)
        rows.append(row)
    return rows


def with_compile(run: Callable, steps: int, plain: float) -> dict:
    """What torch.compile costs at first, what it gives then, and after how many steps it has paid."""
    began = time.perf_counter()
    run(1, compile=True)
    first = time.perf_counter() - began
    began = time.perf_counter()
    run(1, compile=True)
    again = time.perf_counter() - began  # what a call costs beside its steps
    began = time.perf_counter()
    run(1 + steps, compile=True)
    step = (time.perf_counter() - began - again) / steps
    saved = plain - step
    return {
        "warm_up_seconds": first,
        "seconds_a_step": step,
        "plain_seconds_a_step": plain,
        "pays_after_steps": math.ceil(first / saved) if saved > 0 else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["quality", "speed"], help="default: both")
    parser.add_argument("--text", type=Path, help="a UTF-8 file; default: nine of Shakespeare's plays")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000, help="of the recipe (default 2000)")
    parser.add_argument("--repeats", type=int, default=7, help="of the speed measurement (default 7)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile (needs a C++ compiler)")
    parser.add_argument("--out", type=Path, default=OUT, help="the JSON file (default build/benchmarks/training.json)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = corpus.read_text(options.text) if options.text else corpus.shakespeare(corpus.FAMOUS)
    table: list[list] = []
    report = {"table": table, "threads": options.threads, "torch": torch.__version__, "machine": platform.machine()}
    if options.what != "speed":
        row = report["quality"] = quality(text, options.seed, options.steps)
        print(f"time to quality, {row['characters']:,} characters, seed {options.seed}, {options.threads} thread(s)")
        print(f"{'':8} {'parameters':>10} {'held-out loss':>14} {'seconds':>8} {'CPU s':>8}")
        for who in ("recipe", "ours"):
            print("{:8} {:10,} {:14.4f} {:8.1f} {:8.1f}".format(who, *row[who].values()))
        verdict = "reached" if row["ours"]["loss"] <= row["recipe"]["loss"] else "NOT reached"
        print(f"the recipe's loss {verdict}, in 1/{row['times_faster']:.1f} of its time\n")
        table.append([f"training, to the recipe's loss ({verdict})", "the classic recipe", row["times_faster"]])
    if options.what != "quality":
        tokenizer = CharTokenizer.train(text)
        rows = report["speed"] = speed(
            torch.tensor(tokenizer.encode(text)), tokenizer.vocab_size, options.repeats, options.compile
        )
        print(f"tokens a second in training, median of {options.repeats}, {options.threads} thread(s)")
        heads = ("size", "batch", "block", "transformers", "ours", "ratio", "bfloat16", "ratio")
        print("{:8} {:>5} {:>5} {:>13} {:>9} {:>6} {:>9} {:>5}".format(*heads))
        for row in rows:
            of = row["tokens_per_second"]
            ratio = row["ratio"]
            for name, side in (("float32", "ours"), ("bfloat16", "ours_bfloat16")):
                table.append([f"training {row['size']} in {name}, tokens a second", "GPT2LMHeadModel", ratio[side]])
            print(f"{row['size']:8} {row['batch']:5} {row['block']:5} {of['transformers']:13,.0f} {of['ours']:9,.0f} "
                  f"{ratio['ours']:6.2f} {of['ours_bfloat16']:9,.0f} {ratio['ours_bfloat16']:5.2f}")  # fmt: skip
            if "compiled" in row:
                c = row["compiled"]
                pays = f"pays after {c['pays_after_steps']:,} steps" if c["pays_after_steps"] else "never pays"
                plain, fast = c["plain_seconds_a_step"] * 1e3, c["seconds_a_step"] * 1e3
                print(f"    compiled: {c['warm_up_seconds']:.0f} s first, {plain:.1f} to {fast:.1f} ms a step; {pays}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
