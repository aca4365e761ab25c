"""What a GPU reaches, as shares of its own measured ceilings: training, the character model, writing.

    python benchmarks/gpu.py [train|quality|decode] [--device cuda] [--out FILE.json]

train     a GPT-2 of 124M parameters, block 1,024, in bfloat16 and compiled, by the course's trainer: model FLOPs a
          second (6 a weight and token, and attention's 12 · n_layer · D · T: Chowdhery et al. 2022, appendix B) as a
          share of what a bfloat16 matrix product reaches here (MFU)
quality   `course train --preset gpu`'s model (6 layers, width 384, block 256) on nine of Shakespeare's plays: seconds
          of training, looks at the held-out text left out, until the loss is under 1.4697 nats a character
decode    SmolLM2 in bfloat16, one row: bytes of its weights over the seconds of a step, as a share of a copy's speed

Without a GPU it says so and measures nothing. --device cpu runs all of it at toy size, to see that the code works.
The lessons under a GPU: course run --preset gpu, and course measure NN --preset gpu for their bands.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from lib import corpus, training
from lib.course.training_run.recipe import PRESETS, model_config, train_config
from lib.device import ceilings, pick_device
from lib.errors import CourseError
from lib.generation import stream
from lib.inference.decoding import Decoder
from lib.sources.catalogue import smollm2_folder
from lib.tokenizer import CharTokenizer
from lib.training import TrainConfig
from lib.transformer import Config, Transformer, count_parameters
from lib.weights.pretrained import load_smollm2

OUT = Path(__file__).resolve().parent.parent / "build" / "benchmarks" / "gpu.json"
TARGET = 1.4697  # nats a character: what the public recipe of this size ends with on Shakespeare


def wait(device: torch.device) -> float:
    """Now, once the device has done all that it was given."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


def train(device: torch.device) -> dict:
    toy = device.type == "cpu"
    size = dict(n_layer=2, n_head=2, d_model=64) if toy else dict(n_layer=12, n_head=12, d_model=768)
    T, vocab, batch, warm, steps = (64, 512, 2, 2, 3) if toy else (1024, 50_304, 16, 20, 60)
    torch.manual_seed(0)
    model = Transformer(Config.gpt2(vocab_size=vocab, block_size=T, **size)).to(device)
    tokens = torch.randint(vocab, (1_000_000 if not toy else 10_000,), dtype=torch.int32)  # (N,)
    marks = {}

    def watch(done: int, loss: Tensor) -> bool:
        if done in (warm, warm + steps):
            marks[done] = wait(device)
        return False

    config = TrainConfig(
        steps=warm + steps, batch_size=batch, block_size=T, precision="bfloat16", compile=not toy, lr=3e-4,
        eval_every=10**9,
    )  # fmt: skip
    training.train(model, tokens, None, config, watch=watch)
    speed = steps * batch * T / (marks[warm + steps] - marks[warm])  # tokens a second
    weights = count_parameters(model) - T * size["d_model"]  # a position's vector is looked up, not multiplied
    flops = speed * (6 * weights + 12 * size["n_layer"] * size["d_model"] * T)
    ceiling, _ = ceilings(device, torch.bfloat16, 512 if toy else 8192)
    return {"tokens_per_second": speed, "flops": flops, "ceiling": ceiling, "mfu": flops / ceiling}


def quality(device: torch.device) -> dict:
    toy = device.type == "cpu"
    options = PRESETS["smoke" if toy else "gpu"] | {"seed": 0}
    text = corpus.shakespeare(corpus.FAMOUS)
    tokenizer = CharTokenizer.train(text)
    train_ids, val_ids = corpus.split(torch.tensor(tokenizer.encode(text), dtype=torch.int32))
    torch.manual_seed(0)
    model = Transformer(model_config(options, tokenizer.vocab_size)).to(device)
    spent, since, reached = 0.0, wait(device), None
    losses = []

    def watch(done: int, loss: Tensor) -> bool:
        nonlocal spent, since, reached
        if done % options["eval_every"]:
            return False
        spent += wait(device) - since
        losses.append(training.evaluate(model, val_ids, 50, options["block_size"], batches=2 if toy else 40))
        if reached is None and losses[-1] < TARGET:
            reached = spent
        since = wait(device)
        return reached is not None

    training.train(model, train_ids, None, train_config(options), watch=watch)
    return {"seconds_to_target": reached, "seconds": spent, "losses": losses, "target": TARGET}


@torch.no_grad()
def decode(device: torch.device) -> dict:
    toy = device.type == "cpu"
    smollm2_folder()
    model, tokenizer = load_smollm2()
    model = model.to(device) if toy else model.to(device, torch.bfloat16)
    fast = Decoder(model)
    tokens = torch.tensor([tokenizer.encode("Once upon a time")], device=device)  # (1, T)
    n = 8 if toy else 256
    times = []
    for _ in range(2 if toy else 6):
        began = None
        for i, _ in enumerate(stream(fast, tokens, n)):
            if i == 0:
                began = wait(device)  # the prompt is read
        times.append((wait(device) - began) / (n - 1))
    step = statistics.median(times[1:])
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    _, copy = ceilings(device)
    return {"tokens_per_second": 1 / step, "bytes": size, "copy": copy, "share": size / step / copy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["train", "quality", "decode"], help="default: all three")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=OUT, help="the JSON file (default build/benchmarks/gpu.json)")
    options = parser.parse_args()
    report: dict = {"table": [], "torch": torch.__version__}
    try:
        device = pick_device(options.device)
    except CourseError as error:
        print(f"{error}; nothing measured")
        device = None
    for work in (train, quality, decode) if device else ():
        if options.what in (None, work.__name__):
            report[work.__name__] = work(device)
            print(f"{work.__name__}: " + ", ".join(
                f"{name} {value:.4g}" for name, value in report[work.__name__].items() if isinstance(value, float)
            ))  # fmt: skip
    if device:
        report["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
