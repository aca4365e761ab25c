"""A model of any family that transformers knows, built without numbers and counted.

On PyTorch's meta device a tensor has a shape and no memory, so 400 billion parameters are built in seconds.
"""

import os
import warnings

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from lib.errors import CourseError


def build(config: dict, counted: str | None, known: list[str]) -> dict:
    """Count a model by building it: the fields of a counting.Model, but its name.

    Never runs code that a config brings along; raises CourseError if it cannot be built.
    """
    family = config["model_type"]
    fields = {k: v for k, v in config.items() if k not in ("model_type", "auto_map", "quantization_config")}
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            made = transformers.AutoConfig.for_model(family, **fields)
            model = _class(made, counted)(made)
            model.tie_weights()
    except CourseError:
        raise
    except Exception as problem:  # whatever a library says about a config that is none
        said = " ".join(str(problem).split()) or type(problem).__name__
        if "Unrecognized model identifier" in said:
            raise CourseError(f"unknown model_type {family!r}; transformers does not know it either, and this course "
                              f"has formulas for {', '.join(known)}") from None
        raise CourseError(f"transformers cannot build this {family} ({said[:160]}); check the config") from None
    parts: dict[str, int] = {}
    matrices = 0
    for key, parameter in model.named_parameters():  # tied weights come once
        part = _part(key)
        parts[part] = parts.get(part, 0) + parameter.numel()
        matrices += parameter.numel() if parameter.ndim >= 2 and part not in ("embedding", "positions") else 0
    text = made.get_text_config()
    D, H = _first(text, "hidden_size", "d_model", "n_embd") or 0, _first(text, "num_attention_heads", "n_head") or 1
    L = _first(text, "num_hidden_layers", "n_layer", "num_layers") or 0
    tied = bool(getattr(text, "tie_word_embeddings", False))
    V = _first(text, "vocab_size") or 0
    width = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None) or [None] * L
    return dict(
        family=family, counted=type(model).__name__,
        kind="encoder-decoder" if made.is_encoder_decoder else "decoder" if _writes(model) else "encoder",
        n_layer=L, d_model=D, n_head=H, n_kv_head=_first(text, "num_key_value_heads") or H,
        head_dim=_first(text, "head_dim") or D // H, d_ff=_first(text, "intermediate_size", "n_inner", "d_ff") or 4 * D,
        vocab_size=V, context=_first(text, "max_position_embeddings", "n_positions") or 0, parts=parts,
        matrices=matrices + (V * D if tied and _writes(model) else 0), tied=tied, exact="transformers",
        windows=tuple(width if kind == "sliding_attention" and isinstance(width, int) else None for kind in kinds),
    )  # fmt: skip


def _class(made, counted: str | None):
    """The class that the config names, or what fits its type: for translation or writing, else bare (an encoder)."""
    if counted is not None:
        found = getattr(transformers, counted, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
        raise CourseError(f"transformers has no model class {counted!r}; name another with --architecture")
    bare, writing = [transformers.AutoModel], [transformers.AutoModelForCausalLM]
    if made.is_encoder_decoder:
        order = [transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForSpeechSeq2Seq, *bare]
    elif type(made) in transformers.AutoModelForMaskedLM._model_mapping:
        order = bare
    else:
        order = [transformers.AutoModelForImageTextToText, *writing, *bare]
    for auto in order:
        if type(made) in auto._model_mapping:
            found = auto._model_mapping[type(made)]
            return found[0] if isinstance(found, tuple) else found
    raise CourseError(f"transformers has no model for {made.model_type!r}; name a class with --architecture")


def _writes(model) -> bool:
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))


def _first(config, *names: str) -> int | None:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _part(key: str) -> str:
    """Which part of a model a parameter is of, by its name."""
    for part, words in {
        "norms": ("norm", "ln_", ".ln"),
        "experts": ("expert",),
        "router": ("router", "mlp.gate.weight"),
        "positions": ("position", "wpe"),
        "embedding": ("embed", "wte", "shared.weight"),
        "attention": ("attn", "attention"),
        "mlp": ("mlp", "fc", "ffn", "intermediate", "feed_forward", "output.dense"),
        "head": ("head", "classifier", "score"),
    }.items():
        if any(word in key.lower() for word in words):
            return part
    return "other"
