"""A LoRA as files, in the format of Hugging Face's peft, which reads ours and whose we read."""

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib.adapt.lora import LoRALinear, lora_layers, places, put
from lib.errors import CourseError
from lib.transformer import Transformer
from lib.weights.pretrained import LLAMA_NAMES, NUMBERS

# What adapter_config.json may say: what is used, and what says nothing about what the adapter computes. Any other field
# that is set may make it another kind of adapter.
UNDERSTOOD = frozenset("""
    peft_type task_type r lora_alpha use_rslora bias init_lora_weights target_modules exclude_modules
    layers_to_transform layers_pattern lora_dropout inference_mode base_model_name_or_path revision peft_version
    auto_mapping megatron_core qalora_group_size ensure_weight_tying
""".split())


def _their_key(place: str, side: str) -> str:
    """blocks.3.mlp.up, A → base_model.model.model.layers.3.mlp.up_proj.lora_A.weight."""
    _, i, rest = place.split(".", 2)
    return f"base_model.model.{LLAMA_NAMES['blocks.{i}.' + rest].format(i=i)}.lora_{side}.weight"


def base_sample(model: Transformer) -> list[float]:
    """Some weights of the base, by which to know it again: up to 16 of the embedding and 16 of the last norm."""
    few = [w.detach().flatten()[:: max(1, w.numel() // 16)][:16] for w in (model.embedding.weight, model.norm.weight)]
    return [round(x, 4) for x in torch.cat(few).float().cpu().tolist()]


def save_adapter(model: Transformer, folder: str | Path, half: bool = False, base: str = "") -> None:
    """Write adapter_config.json and adapter_model.safetensors, as peft does; half: in float16, half the bytes.

    base: the base model's name or folder, which peft keeps for its reader. Each file appears whole or not at all.
    Raises CourseError for a model without LoRA, or one that peft has no names for.
    """
    layers = lora_layers(model)
    if not layers:
        raise CourseError("this model has no LoRA to save; add_lora and train it first")
    if (model.config.norm, model.config.position, model.config.mlp) != ("rms", "rotary", "gated"):
        raise CourseError("adapters are saved for the llama family only; this model belongs to another")
    dtype = torch.float16 if half else torch.float32
    tensors = {}
    for place, layer in layers.items():
        tensors[_their_key(place, "A")] = layer.a.detach().to("cpu", dtype).contiguous()  # (r, in)
        tensors[_their_key(place, "B")] = layer.b.detach().to("cpu", dtype).contiguous()  # (out, r)
    about = _about(model, layers, base)
    if not all(tensor.isfinite().all() for tensor in (*tensors.values(), model.embedding.weight, model.norm.weight)):
        raise CourseError("weights of this model are not finite numbers; train it anew with a smaller rate")
    sample = json.dumps(base_sample(model), allow_nan=False)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "adapter_model.part"
        save_file(tensors, part, metadata={"format": "pt", "base_sample": sample})
        part.replace(folder / "adapter_model.safetensors")
        part = folder / "adapter_config.part"
        part.write_text(json.dumps(about, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(folder / "adapter_config.json")
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise CourseError(f"cannot save to {folder} ({why}); choose a folder you can write to") from None


def _about(model: Transformer, layers: dict[str, LoRALinear], base: str) -> dict:
    """adapter_config.json, in peft's words."""
    first = next(iter(layers.values()))
    rank = len(first.a)
    about = dict(
        peft_type="LORA",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base or None,
        r=rank,
        lora_alpha=first.scale * rank,
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=False,
        target_modules=sorted({_their_key(place, "A").split(".")[-3] for place in layers}),
        inference_mode=True,
    )
    blocks = sorted({int(place.split(".")[1]) for place in layers})
    if len(blocks) < len(model.blocks):
        about["layers_to_transform"] = blocks
    return about


def load_adapter(model: Transformer, folder: str | Path) -> Transformer:
    """Put a saved adapter, ours or peft's, on its base model, in place; returns the model.

    Raises CourseError, and changes nothing, for files that are missing, damaged, of another kind or another base.
    """
    folder = Path(folder)
    about, sample, tensors = _read(folder)
    _refuse_other_kinds(folder, about)
    if lora_layers(model):
        raise CourseError("this model has LoRA already; load the base model anew or remove_lora first")
    rank, alpha = int(about["r"]), float(about["lora_alpha"])
    found = _matched(folder, model, tensors, rank)
    ours = base_sample(model)
    if sample is not None and not (len(sample) == len(ours) and torch.allclose(
        torch.tensor(sample), torch.tensor(ours), atol=2e-3, rtol=1e-2
    )):  # fmt: skip
        raise CourseError(
            f"the adapter in {folder} was trained on other base weights than these; load the model it was made for"
        )
    if about.get("use_rslora"):
        alpha *= math.sqrt(rank)  # α / √r in place of α / r (Kalajdzievski 2023)
    model.requires_grad_(False)
    for place, (a, b) in found.items():
        layer = LoRALinear(model.get_submodule(place), rank, alpha)
        with torch.no_grad():
            layer.a.copy_(a)
            layer.b.copy_(b)
        put(model, place, layer)
    return model


def _read(folder: Path) -> tuple[dict, list[float] | None, dict[str, Tensor]]:
    """What adapter_config.json says, the sample of the base's weights if one was kept, and the tensors."""
    try:
        about = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            kept = (file.metadata() or {}).get("base_sample")
            stored = {name: file.get_tensor(name) for name in file.keys()}
        sample = json.loads(kept) if kept else None
        _ = about["peft_type"], int(about["r"]), float(about["lora_alpha"])
    except FileNotFoundError as error:
        raise CourseError(f"no {Path(error.filename or 'adapter_model.safetensors').name} in {folder}; "
                          "pass the folder of a saved adapter") from None  # fmt: skip
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise CourseError(f"{folder} holds no whole adapter ({why}); save it again") from None
    for name, tensor in stored.items():
        if tensor.dtype not in NUMBERS:
            raise CourseError(f"{name!r} in {folder} is stored as {str(tensor.dtype).removeprefix('torch.')}, which is "
                              f"not understood; save the adapter in float32, bfloat16 or float16")  # fmt: skip
    return about, sample, {name: tensor.float() for name, tensor in stored.items()}


def _refuse_other_kinds(folder: Path, about: dict) -> None:
    kind = about["peft_type"]
    if kind != "LORA" or int(about["r"]) < 1:
        raise CourseError(f"{folder} holds an adapter of kind {kind!r}; only LORA is supported")
    if used := sorted(name for name, value in about.items() if value and name not in UNDERSTOOD):
        raise CourseError(f"the adapter in {folder} uses {used[0]}, which is not supported; save one without it")
    start = about.get("init_lora_weights")
    # PiSSA, OLoRA and others change the base weights as they begin; these don't.
    if not isinstance(start, bool) and start not in (None, "gaussian", "eva", "orthogonal"):
        raise CourseError(f"the adapter in {folder} began as init_lora_weights {start!r}, which may change the base "
                          f"weights, too; save it converted to a plain LoRA")  # fmt: skip
    if about.get("bias", "none") != "none":
        raise CourseError(f"the adapter in {folder} trains biases, which is not supported; save one without them")


def _matched(
    folder: Path, model: Transformer, tensors: dict[str, Tensor], rank: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """A (r, in) and B (out, r) by their place in the model. Raises CourseError if one has none, or another shape."""
    found, left = {}, dict(tensors)
    for place in places(model):
        layer, keys = model.get_submodule(place), [_their_key(place, side) for side in "AB"]
        if not left.keys() >= set(keys):
            continue
        found[place] = tuple(left.pop(key) for key in keys)
        shapes = [tuple(t.shape) for t in found[place]]
        ours = [(rank, layer.in_features), (layer.out_features, rank)]
        if shapes != ours:
            raise CourseError(
                f"the adapter in {folder} is for another base model: {keys[0]} and B have shapes {shapes}, "
                f"this model needs {ours}; load the model it was made for"
            )
    if left or not found:
        odd = f": it has {min(left)}" if left else ""
        raise CourseError(f"the adapter in {folder} is for another base model{odd}; load the model it was made for")
    return found
