"""Our byte-pair encoding against the `tokenizers` library: same text, one core each, in one run.

Training and encoding are repeated, and the two take turns at going first. Each is measured in CPU seconds, so that
a busy machine does not disturb the result. Prints a table of medians and ratios and writes the same as JSON.
Encoding is measured twice: "first time" begins with an empty memory of words, "again" with what the first left.
The library encodes by its fastest call, which like ours makes ids and no offsets.

    python benchmarks/tokenizer.py [--megabytes 1] [--merges 1000] [--repeats 7] [--out FILE.json]
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

# The library reads these when it starts its threads; its work has to stay on the thread whose time we read.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lib import corpus
from lib.tokenizer import BPETokenizer

OUT = Path(__file__).resolve().parent.parent / "build" / "benchmarks" / "tokenizer.json"


def train_ours(text: str, merges: int) -> BPETokenizer:
    return BPETokenizer.train(text, 256 + merges)


def train_library(text: str, merges: int) -> Tokenizer:
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
    )
    library.train_from_iterator([text], trainer)
    return library


def encode_library(library: Tokenizer, text: str) -> list[int]:
    return library.encode_batch_fast([text])[0].ids


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(text: str, merges: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """CPU seconds of every repeat: {what: {"ours": [...], "tokenizers": [...]}}."""
    ours, library = train_ours(text, merges), train_library(text, merges)
    if ours.encode(text) != encode_library(library, text):
        raise SystemExit("the two do not agree on the text's tokens, so their times cannot be compared")

    times = {what: {"ours": [], "tokenizers": []} for what in ("train", "encode first time", "encode again")}
    for repeat in range(repeats):

        def run_ours():
            fresh = BPETokenizer(ours._pairs)
            times["train"]["ours"].append(seconds(lambda: train_ours(text, merges)))
            times["encode first time"]["ours"].append(seconds(lambda: fresh.encode(text)))
            times["encode again"]["ours"].append(seconds(lambda: fresh.encode(text)))

        def run_library():
            fresh = Tokenizer.from_str(library.to_str())
            times["train"]["tokenizers"].append(seconds(lambda: train_library(text, merges)))
            times["encode first time"]["tokenizers"].append(seconds(lambda: encode_library(fresh, text)))
            times["encode again"]["tokenizers"].append(seconds(lambda: encode_library(fresh, text)))

        for run in (run_ours, run_library) if repeat % 2 == 0 else (run_library, run_ours):
            run()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=1.0, help="how much of Shakespeare (default 1)")
    parser.add_argument("--merges", type=int, default=1000, help="how many merges to learn (default 1000)")
    parser.add_argument("--repeats", type=int, default=7, help="at least 5 (default 7)")
    parser.add_argument("--out", type=Path, default=OUT, help="the JSON file (default build/benchmarks/tokenizer.json)")
    options = parser.parse_args()
    if options.repeats < 5:
        parser.error("--repeats must be at least 5")

    plays = corpus.shakespeare().encode()
    size = round(options.megabytes * 1_000_000)
    if not 0 < size <= len(plays):
        parser.error(f"--megabytes must be above 0 and at most {len(plays) / 1e6:.1f}")
    text = plays[:size].decode(errors="ignore")
    megabytes = len(text.encode()) / 1e6
    times = measure(text, options.merges, options.repeats)

    rows = {}
    print(f"{megabytes:.2f} MB of Shakespeare, {options.merges} merges, median of {options.repeats}, CPU seconds")
    print(f"{'':18} {'ours':>7} {'MB/s':>6} {'tokenizers':>11} {'MB/s':>6} {'ours / tokenizers':>18}")
    for what, of in times.items():
        ours, library = statistics.median(of["ours"]), statistics.median(of["tokenizers"])
        row = {
            "ours_seconds": ours,
            "ours_megabytes_per_second": megabytes / ours,
            "tokenizers_seconds": library,
            "tokenizers_megabytes_per_second": megabytes / library,
            "ratio": ours / library,
        }
        rows[what] = row | {"every_repeat": of}
        print("{:18} {:7.3f} {:6.2f} {:11.3f} {:6.2f} {:18.2f}".format(what, *row.values()))

    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "table": [[f"BPE: {what}", "tokenizers (Rust)", 1 / row["ratio"]] for what, row in rows.items()],
        "megabytes": megabytes,
        "merges": options.merges,
        "repeats": options.repeats,
        "python": platform.python_version(),
        "tokenizers": tokenizers.__version__,
        "machine": platform.machine(),
        "results": rows,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
