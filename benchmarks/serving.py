"""`course serve` with SmolLM2 on the CPU: many requests at once, against one at a time, and `transformers.generate`.

    python benchmarks/serving.py [--requests 32] [--tokens 48] [--threads 1] [--repeats 1] [--out FILE.json]

The server runs in a process of its own; the client is the real `openai` one and streams. Each request is a different
question, greedy, with at most so many tokens. Three sides take turns: all requests at once; the same, one after
another, each sent when the last has ended; and a plain loop of transformers.generate over the same token ids, in this
process and without HTTP, which favours it. The texts of all three must be the same but for rounding; how many are is
printed. Tokens per second are of the whole, reading the prompts included, in wall and in the computing process's CPU
seconds (what a busy machine disturbs less). Time to first token is the client's, from sending to the first text.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import openai
import psutil
import torch
import transformers

from lib.sources.catalogue import smollm2_folder
from lib.weights.pretrained import ChatTokenizer

OUT = Path(__file__).resolve().parent.parent / "build" / "benchmarks" / "serving.json"
TOKEN = "benchmark"
ASKS = ("Explain in a few sentences what {} is.", "Write a short story about {}.", "Give me some advice on {}.",
        "List some facts about {}, with a sentence for each.")
THINGS = ("a lighthouse", "photosynthesis", "a returned parcel", "the moon", "baking bread", "a good question",
          "learning the piano", "the Roman army")


def percentile(values: list[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


async def one(client: openai.AsyncOpenAI, question: str, tokens: int) -> tuple[str, int, float]:
    """The text, how many tokens it is, and the seconds to its first."""
    began, first, parts, count = time.perf_counter(), None, [], 0
    stream = await client.chat.completions.create(
        model="smollm2", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=tokens,
        stream=True, stream_options={"include_usage": True},
    )
    async for chunk in stream:
        if chunk.usage:
            count = chunk.usage.completion_tokens
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.perf_counter() - began
            parts.append(chunk.choices[0].delta.content)
    return "".join(parts), count, first or time.perf_counter() - began


async def ask(base: str, questions: list[str], tokens: int, at_once: bool) -> list[tuple[str, int, float]]:
    async with openai.AsyncOpenAI(base_url=base, api_key=TOKEN, max_retries=0, timeout=3600) as client:
        if at_once:
            return await asyncio.gather(*(one(client, question, tokens) for question in questions))
        return [await one(client, question, tokens) for question in questions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=32, choices=range(1, 33), metavar="1..32")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT, help="JSON (default build/benchmarks/serving.json)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    questions = [form.format(thing) for form in ASKS for thing in THINGS][: options.requests]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32).eval()
    tokenizer = ChatTokenizer(smollm2_folder())

    server = subprocess.Popen(
        [sys.executable, "-c", "from lib.course.cli import main; main()", "serve", "--model", "smollm2", "--port", "0",
         "--threads", str(options.threads), "--max-batch", "32", "--device", "cpu"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"COURSE_SERVE_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
    )
    try:
        base = re.search(r"http://\S+/v1", server.stdout.readline())[0]
        process = psutil.Process(server.pid)

        def ours(at_once: bool):
            return lambda: asyncio.run(ask(base, questions, options.tokens, at_once))

        def peer() -> list[tuple[str, int, float]]:
            answers = []
            for question in questions:
                ids = torch.tensor([tokenizer.chat([{"role": "user", "content": question}])])  # (1, T)
                out = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=options.tokens,
                                      do_sample=False, pad_token_id=tokenizer.eos_id)  # (1, T + n)
                new = [id for id in out[0, ids.size(1) :].tolist() if id != tokenizer.eos_id]
                answers.append((tokenizer.decode(new), len(new), float("nan")))
            return answers

        sides = {"ours, at once": (ours(True), process), "ours, one at a time": (ours(False), process),
                 "transformers.generate, one at a time": (peer, psutil.Process())}
        asyncio.run(ask(base, questions[:2], 2, True))  # warm
        quiet = process.memory_info().rss
        results: dict[str, list[dict]] = {name: [] for name in sides}
        texts = {}
        for repeat in range(options.repeats):
            for name in list(sides) if repeat % 2 == 0 else list(reversed(sides)):
                work, computes = sides[name]
                before, began = sum(computes.cpu_times()[:2]), time.perf_counter()
                answers = work()
                wall, cpu = time.perf_counter() - began, sum(computes.cpu_times()[:2]) - before
                tokens, firsts = sum(answer[1] for answer in answers), [answer[2] for answer in answers]
                texts[name] = [answer[0] for answer in answers]
                print(f"{name}: {tokens} tokens in {wall:.1f} s, {cpu:.1f} CPU s", flush=True)
                results[name].append(dict(
                    tokens=tokens, wall=wall, cpu=cpu, tokens_a_second=tokens / wall, tokens_a_cpu_second=tokens / cpu,
                    first_p50=percentile(firsts, 0.5), first_p95=percentile(firsts, 0.95),
                ))
        after = process.memory_info().rss
    finally:
        server.terminate()
        server.wait(60)

    base_name = "ours, at once"
    print(f"{options.requests} requests, at most {options.tokens} tokens each, {options.threads} thread(s), "
          f"median of {options.repeats}")
    print(f"{'':37} {'tokens':>6} {'wall s':>7} {'CPU s':>7} {'tokens/s':>9} {'a CPU s':>8} {'first p50':>10} "
          f"{'p95':>7} {'same text':>10}")
    report = dict(requests=options.requests, tokens=options.tokens, threads=options.threads, repeats=options.repeats,
                  torch=torch.__version__, transformers=transformers.__version__, machine=platform.machine(),
                  results={}, table=[], rss_before=quiet, rss_after=after)
    for name, runs in results.items():
        median = {what: statistics.median(run[what] for run in runs) for what in runs[0]}
        median["same_text"] = sum(a == b for a, b in zip(texts[name], texts[base_name], strict=True))
        first = "" if "transformers" in name else f"{median['first_p50']:8.2f} s {median['first_p95']:5.2f} s"
        print(f"{name:37} {median['tokens']:6.0f} {median['wall']:7.1f} {median['cpu']:7.1f} "
              f"{median['tokens_a_second']:9.1f} {median['tokens_a_cpu_second']:8.1f} {first:>18} "
              f"{median['same_text']:6} of {options.requests}")
        if "transformers" in name:
            median["first_p50"] = median["first_p95"] = None
        report["results"][name] = median
        if name != base_name:
            pairs = list(zip(results[base_name], runs, strict=True))
            for clock in ("tokens_a_second", "tokens_a_cpu_second"):
                median[f"ratio_{clock}"] = statistics.median(ours[clock] / run[clock] for ours, run in pairs)
            what = f"course serve, {options.requests} requests at once"
            report["table"].append([what, name, median["ratio_tokens_a_second"]])
    for _, name, ratio in report["table"]:
        by_cpu = report["results"][name]["ratio_tokens_a_cpu_second"]
        print(f"at once is {ratio:.2f} times as fast as {name} ({by_cpu:.2f} by CPU seconds)")
    print(f"the server's memory: {quiet / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
