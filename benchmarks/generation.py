"""Writing with SmolLM2 in float32 on the CPU: ours against `transformers.generate`, and against the memory's speed.

    python benchmarks/generation.py [--batch 1 8] [--tokens 128] [--threads 1] [--repeats 5] [--out FILE.json]

One process, the same threads, the two take turns at going first; around each turn a large array is copied, and
summed, which says how fast memory is at that moment. Greedy texts must be identical. Prints medians, in wall and in
CPU seconds (what a busy machine disturbs less), and writes the same as JSON. The bytes of all weights over the seconds
of one decoding step are given as a share of both: of the copy, which is lesson 06's ceiling (bytes read and written),
and of the sum, which only reads: its 100 % would be nothing but reading. With one row, int8 weights are measured too:
their speed, and the perplexity of a play that they cost.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from lib import corpus
from lib.generation import generate, left_pad
from lib.inference.decoding import Decoder
from lib.sources.catalogue import smollm2_folder
from lib.transformer import Transformer, count_parameters
from lib.weights.pretrained import load_smollm2

OUT = Path(__file__).resolve().parent.parent / "build" / "benchmarks" / "generation.json"
PROMPTS = (
    "The capital of France is Paris. The capital of Italy is",
    "Once upon a time there was a lighthouse keeper who",
    "A recipe for tomato soup, step by step:",
    "def fibonacci(n):",
    "The three most important inventions of the last century were",
    "Dear Sir or Madam, I am writing to you because",
    "The difference between a frog and a toad is",
    "In the year 2050, most people",
)


def timed(work: Callable) -> tuple[float, float, object]:
    """Wall seconds, CPU seconds, and what came out."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


@torch.no_grad()
def perplexity(model: Transformer, tokens: Tensor) -> float:
    """exp of the mean surprise over windows of 512 tokens: tokens (N,)."""
    losses = [F.cross_entropy(model(w[None, :-1])[0], w[1:]).item() for w in tokens.split(512) if len(w) == 512]
    return math.exp(sum(losses) / len(losses))


def race(sides: dict[str, Callable[[int], Tensor]], tokens: int, repeats: int) -> dict:
    """{side: {what: [a number a repeat]}}: seconds for `tokens` and for one step; memory's bytes a second."""
    array = torch.ones(2**27)  # 0.5 GB
    target = torch.zeros_like(array)
    times = {name: {"wall": [], "cpu": [], "step": [], "read": [], "copy": []} for name in sides}
    texts = {name: write(tokens) for name, write in sides.items()}  # unmeasured, and warm from here on
    for name in ("ours", "transformers"):
        if not torch.equal(texts[name], texts["ours"]):
            raise SystemExit("the greedy tokens differ, so the times cannot be compared")
    for repeat in range(repeats):
        for name in list(sides) if repeat % 2 == 0 else list(reversed(sides)):
            plain = [[timed(work)[1] for work in (array.sum, lambda: target.copy_(array))] for _ in range(5)]
            first = timed(lambda name=name: sides[name](1))[:2]  # the prompt, and one token
            wall, cpu, _ = timed(lambda name=name: sides[name](tokens))
            plain += [[timed(work)[1] for work in (array.sum, lambda: target.copy_(array))] for _ in range(5)]
            read, copy = (statistics.median(seconds) for seconds in zip(*plain, strict=True))
            step = (cpu - first[1]) / (tokens - 1)
            of = times[name]
            for what, value in zip(of, (wall, cpu, step, array.nbytes / read, 2 * array.nbytes / copy), strict=True):
                of[what].append(value)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], choices=range(1, 9), metavar="1..8")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT, help="JSON (default build/benchmarks/generation.json)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ours, tokenizer = load_smollm2()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32).eval()
    theirs.generation_config.eos_token_id = None  # write all tokens, whatever they are
    read = 4 * count_parameters(ours)  # the tied embedding is read as the head
    report = dict(threads=options.threads, tokens=options.tokens, repeats=options.repeats, torch=torch.__version__,
                  transformers=transformers.__version__, machine=platform.machine(), bytes=read, results={}, table=[])

    for rows in options.batch:
        tokens, padding = left_pad([tokenizer.encode(prompt) for prompt in PROMPTS[:rows]], tokenizer.eos_id)  # (B, T)
        mask = (torch.arange(tokens.size(1)) >= padding[:, None]).long()  # (B, T)
        laid = {"ours": Decoder(ours, rows)}
        if rows == 1:
            laid["ours, int8"] = Decoder(ours, weights="int8")

        def write_with(model, tokens=tokens, padding=padding):
            return lambda n: generate(model, tokens, n, padding=padding)

        sides = {name: write_with(model) for name, model in laid.items()}
        sides["transformers"] = lambda n, tokens=tokens, mask=mask: theirs.generate(
            tokens, attention_mask=mask, max_new_tokens=n, do_sample=False, pad_token_id=tokenizer.eos_id
        )
        bytes_read = {name: read // 4 if "int8" in name else read for name in sides}
        times = race(sides, options.tokens, options.repeats)
        print(f"{rows} row(s), {options.tokens} new tokens, {options.threads} thread(s), median of {options.repeats}")
        print(f"{'':14} {'wall s':>7} {'CPU s':>7} {'tokens/s':>9} {'copy GB/s':>10} {'of it':>6} "
              f"{'read GB/s':>10} {'of it':>6} {'x wall':>7} {'x CPU':>6}")
        for name, of in times.items():
            median = {what: statistics.median(values) for what, values in of.items()}
            for what in ("copy", "read"):
                shares = (bytes_read[name] / step / speed for step, speed in zip(of["step"], of[what], strict=True))
                median[f"of_{what}"] = statistics.median(shares)
            peer = times["transformers"]
            for clock in ("wall", "cpu"):  # the ratio of each turn's neighbours, not of the medians
                median[f"ratio_{clock}"] = statistics.median(p / o for p, o in zip(peer[clock], of[clock], strict=True))
            print(f"{name:14} {median['wall']:7.2f} {median['cpu']:7.2f} {rows * options.tokens / median['cpu']:9.1f} "
                  f"{median['copy'] / 1e9:10.1f} {median['of_copy']:6.0%} {median['read'] / 1e9:10.1f} "
                  f"{median['of_read']:6.0%} {median['ratio_wall']:7.2f} {median['ratio_cpu']:6.2f}")
            report["results"][f"{name}, {rows}"] = median | {"every_repeat": of}
            if name != "transformers":
                what = f"SmolLM2, {options.tokens} new tokens, batch {rows}{name.removeprefix('ours')}"
                report["table"].append([what, "transformers.generate", median["ratio_wall"]])
        if rows == 1:
            text = torch.tensor(tokenizer.encode(corpus.shakespeare(corpus.FAMOUS)[:20_000]))[: 8 * 512]  # (N,)
            loss = {name: perplexity(model, text) for name, model in laid.items()}
            print("perplexity: " + ", ".join(f"{name} {value:.3f}" for name, value in loss.items()))
            report["perplexity"] = loss
        del laid, sides
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
