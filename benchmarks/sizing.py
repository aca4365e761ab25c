"""Our memory estimates against measured peaks: training and answering with lib's Transformer, in float32 on the CPU.

    python benchmarks/sizing.py [--out FILE.json] [--only NAME ...]

Each shape runs in a fresh process: imports and a tiny model first, then the model is made, the kernel's high-water mark
of resident memory is reset (Linux: /proc/self/clear_refs), and three training steps follow, or a prompt and a few
tokens. The peak is what the mark is above the memory before the model. Linux only. The table gives estimate over
measurement; 1 is exact.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "build" / "benchmarks" / "sizing.json"
GPT2 = dict(norm="layer", position="learned", mlp="plain", activation="gelu_tanh")
SHAPES = {  # name: what, batch, context, and the Config's fields
    "train, small": ("train", 8, 256, dict(vocab_size=512, n_layer=4, n_head=4, d_model=256)),
    "train, grouped heads": ("train", 8, 256, dict(vocab_size=512, n_layer=4, n_head=8, n_kv_head=2, d_model=256)),
    "train, GPT-2's kind": ("train", 8, 256, dict(vocab_size=512, n_layer=4, n_head=8, d_model=256, **GPT2)),
    "train, mostly weights": ("train", 1, 128, dict(vocab_size=8192, n_layer=6, n_head=8, d_model=512)),
    "train, wide vocabulary": ("train", 4, 256, dict(vocab_size=8192, n_layer=2, n_head=4, d_model=128, tie=False)),
    "answer, many texts": ("answer", 16, 512, dict(vocab_size=512, n_layer=8, n_head=8, d_model=256)),
    "answer, grouped heads": ("answer", 16, 512, dict(vocab_size=512, n_layer=8, n_head=8, n_kv_head=2, d_model=256)),
    "answer, mostly weights": ("answer", 1, 256, dict(vocab_size=8192, n_layer=8, n_head=8, d_model=512)),
    "answer, GPT-2's kind": ("answer", 8, 512, dict(vocab_size=512, n_layer=6, n_head=8, d_model=256, **GPT2)),
}


def run(what: str, batch: int, context: int, fields: dict, built=lambda: None) -> None:
    """The work whose memory is measured. built() is called when the model is there, and has done nothing yet."""
    import torch

    from lib.generation import generate
    from lib.training import TrainConfig, train
    from lib.transformer import Config, Transformer

    config = Config(block_size=context, **fields)
    model = Transformer(config)
    built()
    if what == "train":
        text = torch.randint(config.vocab_size, (2 * batch * context + 1000,))  # (N,)
        train(model, text, None, TrainConfig(steps=3, batch_size=batch, block_size=context))
    else:
        generate(model, torch.randint(config.vocab_size, (batch, context - 4)), 4)


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def child(name: str) -> None:
    """Print by how many bytes the work raises the process's peak."""
    import torch

    torch.set_num_threads(1)
    what, batch, context, fields = SHAPES[name]
    for warm in ("train", "answer"):  # libraries set their own buffers up
        run(warm, 2, 16, fields | dict(vocab_size=64, n_layer=1, d_model=64))

    def start_anew() -> None:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark is what is there now

    gc.collect()
    start_anew()
    before = _resident("VmRSS")
    # A tied head is made with a matrix of its own, which is dropped: that moment is nobody's question.
    run(what, batch, context, fields, start_anew)
    print(json.dumps(_resident("VmHWM") - before))


def measured(name: str) -> int:
    """Bytes at the peak of one shape, in a process of its own."""
    # Large tensors straight from the system, and back to it: glibc would keep some of them.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, "--child", name], capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def estimated(name: str) -> float:
    """What lib.decide.sizing says of the same shape, without running anything."""
    from lib.decide import counting, sizing

    what, batch, context, fields = SHAPES[name]
    llama = "norm" not in fields
    D = fields["d_model"]
    if llama:
        config = dict(model_type="llama", hidden_size=D, intermediate_size=8 * D // 3,
                      num_hidden_layers=fields["n_layer"], num_attention_heads=fields["n_head"],
                      num_key_value_heads=fields.get("n_kv_head"), tie_word_embeddings=fields.get("tie", True),
                      vocab_size=fields["vocab_size"], max_position_embeddings=context)  # fmt: skip
    else:
        config = dict(model_type="gpt2", n_embd=D, n_layer=fields["n_layer"], n_head=fields["n_head"],
                      vocab_size=fields["vocab_size"], n_positions=context)  # fmt: skip
    model = counting.count(config)
    if what == "train":
        return sizing.training_memory(model, batch, context, precision="float32", accumulate=False)["total"]
    return sizing.inference_memory(model, batch, context, precision="float32")["total"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="NAME")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON (default build/benchmarks/sizing.json)")
    parser.add_argument("--child", choices=SHAPES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    report = dict(results={}, table=[])
    print(f"{'shape':26} {'estimate MB':>12} {'measured MB':>12} {'ratio':>7}")
    for name in options.only:
        said, found = estimated(name), measured(name)
        print(f"{name:26} {said / 1e6:12.1f} {found / 1e6:12.1f} {said / found:7.3f}", flush=True)
        report["results"][name] = dict(estimated=said, measured=found, ratio=said / found)
        report["table"].append([f"memory estimate, {name}", "measured peak (1 is exact)", said / found])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
