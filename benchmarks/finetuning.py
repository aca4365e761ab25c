"""Fine-tuning SmolLM2 for one job: methods side by side, and how many examples it takes. Behind lesson 11's figures.

    python benchmarks/finetuning.py [STUDY ...] [--seed 0] [--device cpu] [--threads 1] [--out FILE.json]

Studies: methods (LoRA, the last layers, everything), curve (LoRA on 10 to 1,000 examples), adapter (the one
that ships), specialist (from nothing). The first two take three seeds each; their report ships as data/finetuning.json.
Each run is written as soon as it is done, and not run again: stop it when you like. All is judged on the same held-out
dialogues. Seconds are CPU seconds, which a busy machine disturbs less, or on a GPU the clock's. The first two take
about five hours of one core, the specialist about one; on a GPU some minutes.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import torch

from lib.adapt import specialist
from lib.adapt.adapters import save_adapter
from lib.adapt.finetuning import METHODS, RECIPE, finetune, prepare
from lib.adapt.lora import count_trainable, lora_layers
from lib.adapt.summaries import EXAMPLES, rows, summarise, training_set
from lib.corpus import shakespeare
from lib.decide.evaluation import mean_rouge, surprise
from lib.device import pick_device
from lib.errors import CourseError
from lib.shop import dialogues
from lib.transformer import count_parameters
from lib.weights.pretrained import load_smollm2

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "benchmarks" / "finetuning.json"
HELD_OUT, HELD_OUT_SEED = 100, 100
SEEDS = (0, 1, 2)
# Examples: steps. Few examples are read again and again, so that all but the last point train for the same time.
CURVE = {n: RECIPE.steps for n in (10, 30, 120, 240, EXAMPLES)} | {1000: 500}
STUDIES = {
    "methods": [dict(method=m, examples=EXAMPLES, steps=RECIPE.steps, seed=seed) for seed in SEEDS for m in METHODS],
    "curve": [dict(method="LoRA", examples=n, steps=steps, seed=seed) for seed in SEEDS for n, steps in CURVE.items()],
    "adapter": [dict(method="LoRA", examples=EXAMPLES, steps=RECIPE.steps, seed=1)],
    "specialist": [dict(method="specialist", examples=specialist.EXAMPLES, steps=specialist.RECIPE.steps, seed=0)],
}


def clock(device: torch.device) -> float:
    """Seconds: the CPU's, or the clock's once a GPU has done all that it was given."""
    if device.type == "cpu":
        return time.process_time()
    getattr(torch, device.type).synchronize()
    return time.perf_counter()


def judged(model, tokenizer, threads: int) -> dict:
    """Facts right, ROUGE-1 and seconds a request, on held-out dialogues of both kinds."""
    device = model.embedding.weight.device
    found = {}
    for split in ("seen", "unseen"):
        held_out = dialogues.make(split, HELD_OUT, HELD_OUT_SEED)
        started = clock(device)
        said = summarise(model, tokenizer, [example.dialogue for example in held_out], batch_size=20, workers=threads)
        found[f"{split}_seconds"] = (clock(device) - started) / HELD_OUT
        meant = [example.summary for example in held_out]
        found[f"{split}_right"] = sum(map(dialogues.right, said, meant)) / HELD_OUT
        found[f"{split}_rouge1"] = mean_rouge(said, meant)["rouge1"]
    return found


def run(method: str, examples: int, steps: int, seed: int, folder: Path, threads: int, device: torch.device) -> dict:
    config = dataclasses.replace(RECIPE, steps=steps, seed=seed, checkpoint_every=100)
    if method == "specialist":
        started = clock(device)
        config = dataclasses.replace(specialist.RECIPE, steps=steps, seed=seed, checkpoint_every=250)
        model, tokenizer, _ = specialist.train(examples, config, folder, progress, workers=threads, device=device)
        seconds = clock(device) - started
        learning = count_parameters(model)
        specialist.save(model, tokenizer, folder / "specialist.safetensors")
        more = {}
    else:
        model, tokenizer = load_smollm2()
        model = model.to(device)
        data = rows(tokenizer, training_set(examples, seed))
        config = prepare(model, method, config)
        learning = count_trainable(model)
        started = clock(device)
        if steps:
            finetune(model, data, config, folder, progress, workers=threads)
        seconds = clock(device) - started
        if lora_layers(model):
            save_adapter(model, folder / "adapter", half=True, base="HuggingFaceTB/SmolLM2-135M-Instruct")
        play = shakespeare()[200_000:204_000]
        more = dict(play_perplexity=surprise(model, tokenizer, play, window=512).perplexity)
    return dict(learning=learning, train_seconds=seconds, **judged(model, tokenizer, threads), **more)


def progress(steps, label):
    from tqdm import tqdm

    return tqdm(steps, label, disable=not sys.stderr.isatty())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"any of: {' '.join(STUDIES)}; default: all")
    parser.add_argument("--threads", type=int, default=1, help="how many share the work (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or mps")
    parser.add_argument("--seed", type=int, help="another than the studies' own")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="the JSON file (default build/benchmarks/finetuning.json)"
    )
    options = parser.parse_args()
    if unknown := [name for name in options.studies if name not in STUDIES]:
        parser.error(f"there is no study {unknown[0]!r}; choose from {' '.join(STUDIES)}")
    if options.threads < 1:
        parser.error(f"--threads is at least 1, not {options.threads}")
    torch.set_num_threads(1)
    try:
        device = pick_device(options.device)
    except CourseError as error:
        parser.error(str(error))
    machine = f"{platform.processor() or platform.machine()}, {options.threads} thread(s)"
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = dict(machine=machine, held_out=HELD_OUT,
                  command="python benchmarks/finetuning.py methods curve", runs=[], table=[])  # fmt: skip
    if options.out.exists():
        try:
            kept = json.loads(options.out.read_text(encoding="utf-8"))
            _ = kept["runs"], kept["machine"], kept["held_out"]
        except (OSError, ValueError, KeyError, TypeError):
            parser.error(f"{options.out} is not a report of this benchmark; choose another --out")
        for what in ("machine", "held_out"):
            if kept[what] != report[what]:
                parser.error(f"{options.out} has {what} {kept[what]}, this run {report[what]}; choose another --out")
        report = kept
    for name in options.studies or STUDIES:
        for asked in STUDIES[name]:
            asked = asked | ({} if options.seed is None else dict(seed=options.seed))
            if any(asked.items() <= done.items() for done in report["runs"]):
                continue
            print(f"{name}: {asked}", flush=True)
            folder = options.out.parent / "-".join(str(value).replace(" ", "_") for value in asked.values())
            found = asked | run(**asked, folder=folder, threads=options.threads, device=device)
            print(json.dumps(found), flush=True)
            report["runs"].append(found)
            part = options.out.with_suffix(".part")
            part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            part.replace(options.out)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
