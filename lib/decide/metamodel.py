"""A model of any family that transformers knows, built without numbers and counted.

On PyTorch's meta device a tensor has a shape and no memory, so 400 billion parameters are built in seconds.
"""

import os
import re
import warnings
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from lib.errors import CourseError
from lib.weights.declared import SILENT


def build(config: dict, counted: str | None, known: list[str]) -> dict:
    """Count a model by building it: the fields of a counting.Model, but its name.

    Never runs code that a config brings along; raises CourseError if it cannot be built.
    """
    family = config["model_type"]
    given = {k: v for k, v in config.items() if k not in ("model_type", "auto_map", "quantization_config")}
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            made = transformers.AutoConfig.for_model(family, **given)
            assumed = _assumed(made, config)
            made._attn_implementation = "eager"  # others look into masks, which have no numbers here
            model = _class(made, counted)(made).eval()
            model.tie_weights()
    except CourseError:
        raise
    except Exception as problem:  # whatever a library says about a config that is none
        said = " ".join(str(problem).split()) or type(problem).__name__
        if "Unrecognized model identifier" in said:
            raise CourseError(f"unknown model_type {family!r}; transformers does not know it either, and this course "
                              f"has formulas for {', '.join(known)}") from None
        raise CourseError(f"transformers cannot build this {family} ({said[:160]}); check the config") from None
    text = made.get_text_config()
    D, H = _first(text, "hidden_size", "d_model", "n_embd") or 0, _first(text, "num_attention_heads", "n_head") or 1
    L = _first(text, "decoder_layers", "num_decoder_layers", "num_hidden_layers", "n_layer", "num_layers") or 0
    V, writes = _first(text, "vocab_size") or 0, _writes(model)
    beside = _beside(model)
    resting = _resting(model)
    parts: dict[str, int] = {}
    matrices = 0
    for key, parameter in model.named_parameters():  # tied weights come once
        part = "other senses" if key in beside else _part(key)
        parts[part] = parts.get(part, 0) + parameter.numel()
        if parameter.ndim >= 2 and part not in ("embedding", "positions", "other senses"):
            matrices += parameter.numel()
    head, table = model.get_output_embeddings() if writes else None, model.get_input_embeddings()
    tied = head is not None and head.weight is table.weight
    if tied:
        matrices += V * D
        if config.get("tie_word_embeddings") is False:  # published files hold it, though transformers would tie it
            parts["head"], tied = parts.get("head", 0) + head.weight.numel(), False
    idle = None if resting is None else resting + parts.get("other senses", 0)
    pair, written = _pair(model, made) if made.is_encoder_decoder and resting == 0 else (None, None)
    cache, looked, windows = _cached(model, made, text, H, L) if writes else ("heads", (), ())
    stacked = _stacks(model, L)
    text_only = model.main_input_name == "input_ids"
    through = matrices - resting if resting is not None and stacked and text_only else None
    if made.is_encoder_decoder:
        through = written
    alike = cache == "heads" or (cache is not None and not cache["state"] and len(set(looked)) == 1)
    plain = through is not None and alike and text_only
    notes = ("transformers builds its layers once and uses them again",) if not stacked and L else ()
    Dh = _first(text, "head_dim", "d_kv") or D // H
    K = _first(text, "num_key_value_heads") or H
    return dict(
        family=family, counted=type(model).__name__,
        kind="encoder-decoder" if made.is_encoder_decoder else "decoder" if writes else "encoder",
        n_layer=L, d_model=D, n_head=H, n_kv_head=K, head_dim=Dh, d_ff=_inner(model, text, D), vocab_size=V,
        context=_first(text, "max_position_embeddings", "n_positions", "max_target_positions") or 0, parts=parts,
        matrices=through, tied=tied,
        exact="transformers", windows=windows, idle=idle, looked=looked, cache=cache, plain=plain, pair=pair,
        assumed=assumed, notes=notes, gated=any(name.endswith("gate_proj") for name, _ in model.named_modules()),
    )  # fmt: skip


def shares(config: dict, counted: str | None, parts: dict[str, int], spared) -> dict[str, float] | None:
    """The share of each part's weights in matrices whose layer's name is `spared`. None where the model has experts in
    other layers than published files, or other parts than these."""
    given = {k: v for k, v in config.items() if k not in ("model_type", "auto_map", "quantization_config")}
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        made = transformers.AutoConfig.for_model(config["model_type"], **given)
        model = _class(made, counted)(made)
    kept: dict[str, int] = {}
    for key, parameter in model.named_parameters():
        part = _part(key)
        if "expert" in key:
            return None
        if part in parts and parameter.ndim >= 2 and spared(key.rpartition(".")[0]):
            kept[part] = kept.get(part, 0) + parameter.numel()
    return {part: numbers / parts[part] for part, numbers in kept.items()}


def fields(config: dict) -> frozenset[str]:
    """The fields that transformers' config of this type has, by either of their names."""
    made = transformers.AutoConfig.for_model(config["model_type"])
    return frozenset(made.to_dict()).union(made.attribute_map, made.sub_configs, ["layer_types"])


def _assumed(made, config: dict) -> dict[str, int]:
    """Sizes that the file leaves out, and with them the default. Raises CourseError where it gives none at all."""
    given = set(config).union(*(part for part in config.values() if isinstance(part, dict)))
    text = made.get_text_config()
    said = given | {usual for usual, own in text.attribute_map.items() if own in given}
    said |= {own for usual, own in text.attribute_map.items() if usual in given}
    try:
        usual = type(text)().to_dict()
    except Exception:  # this type has no defaults to assume
        return {}
    sizes = {name: value for name, value in text.to_dict().items()
             if isinstance(value, int) and not isinstance(value, bool) and value > 0 and value == usual.get(name)
             and not name.endswith("_id") and (name == "vocab_size" or name not in SILENT)}  # fmt: skip
    for name in ("hidden_size", "d_model", "n_embd", "num_hidden_layers", "n_layer"):
        if text is made and name in sizes and name not in said:
            raise CourseError(f"this config has no {name}, so the model's size is not known; give its own config.json")
    return {name: value for name, value in sizes.items() if name not in said}


def _beside(model) -> set[str]:
    """Parameters that no token of a text meets: what sees or hears, where a language model is one part of the whole."""
    modules = dict(model.named_modules())
    inner = [name for name in modules if name.rpartition(".")[2] in ("language_model", "text_model")]
    if not inner:
        return set()
    first = min(inner, key=len) + "."
    return {key for key, _ in model.named_parameters() if not key.startswith((first, "lm_head"))}


# Experts

COUNTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
CHOSEN = ("top_k", "num_experts_per_tok", "moe_top_k")


def _numbers(module, names: tuple[str, ...]) -> set[int]:
    """What these attributes of a module and its parts are, where they are whole numbers."""
    found = {getattr(part, name, None) for part in module.modules() for name in names if hasattr(part, name)}
    return {value for value in found if type(value) is int}


def _resting(model) -> int | None:
    """Weights of the experts that one token does not meet; None where it cannot be told how many it meets."""
    resting, seen = 0, set()
    for name, module in model.named_modules():
        if not re.search(r"Experts$", type(module).__name__) or any(name.startswith(outer + ".") for outer in seen):
            continue
        seen.add(name)
        there = [parameter for _, parameter in module.named_parameters()]
        if not there:
            continue
        counts = _numbers(module, COUNTS)
        if not counts:
            counts = {len(list(module.children()))} if list(module.children()) else {p.shape[0] for p in there}
        block = model.get_submodule(name.rpartition(".")[0])
        chosen = _numbers(block, CHOSEN)
        for part in block.modules():
            if found := re.search(r"Top(\d)Router", type(part).__name__):
                chosen.add(int(found[1]))
        if len(counts) != 1 or len(chosen) != 1 or not 1 <= min(chosen) <= min(counts):
            return None
        E, k = counts.pop(), chosen.pop()
        held = sum(parameter.numel() for parameter in there)
        if held % E:
            return None
        resting += held // E * (E - k)
    outside = [key for key, parameter in model.named_parameters() if parameter.ndim > 1 and "expert" in key
               and not any(key.startswith(name + ".") for name in seen)
               and not re.search(r"shared|gate|router", key)]  # fmt: skip
    return None if outside else resting


def _inner(model, text, D: int) -> int:
    """The MLP's width; with experts that of all a token meets."""
    width = _first(text, "intermediate_size", "n_inner", "d_ff", "decoder_ffn_dim", "ffn_dim") or 4 * D
    chosen = _first(text, "num_experts_per_tok", "moe_k", "moe_topk", "moe_top_k")
    if chosen is None:
        return width
    return chosen * (_first(text, "moe_intermediate_size") or width) + (
        _first(text, "shared_expert_intermediate_size", "shared_intermediate_size") or 0)  # fmt: skip


def _stacks(model, L: int) -> bool:
    """Whether each layer has weights of its own: a list of L of them."""
    return any(isinstance(part, torch.nn.ModuleList) and len(part) == L for part in model.modules())


# What is kept of a text

SHORT = 6  # tokens: fewer than any window that is of use


def _cached(model, made, text, H: int, L: int):
    """(cache, looked, windows) as transformers itself fills them for two short texts; (None, (), ()) where it can't.

    What experts compute does not matter here, and which are chosen can't be told without numbers: they are left out.
    """
    for module in model.modules():
        if re.search(r"Experts$", type(module).__name__):
            module.forward = lambda x, *rest, **options: x
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            short, longer = _run(model, made, SHORT), _run(model, made, SHORT + 1)
        return _compared(short, longer, text, H)
    except Exception:  # each family fails in its own way, and then it is not known
        return None, (), ()


def _run(model, made, T: int):
    """A text of T tokens; an encoder-decoder reads as many as it writes."""
    if not made.is_encoder_decoder:
        return model(input_ids=_ids(T), use_cache=True)
    return model(**_read(model, made, T), decoder_input_ids=_ids(T), use_cache=True)


def _ids(T: int) -> torch.Tensor:
    return torch.zeros(1, T, dtype=torch.long, device="meta")  # (1, T)


def _read(model, made, S: int) -> dict[str, torch.Tensor]:
    if model.main_input_name == "input_features":  # sound, of one length
        return dict(input_features=torch.zeros(1, made.num_mel_bins, 2 * made.max_source_positions, device="meta"))
    return dict(input_ids=_ids(S))


# What an encoder-decoder multiplies


def _pair(model, made) -> tuple[dict | None, int | None]:
    """(a counting.Pair's fields, weights that multiply a written token), from counts over three short texts. (None,
    None) where these don't fit together, as with attention in blocks, or where the family can't be run so."""
    places = None if model.main_input_name == "input_ids" else getattr(made, "max_source_positions", None)
    S = places or SHORT
    texts = [(S, 7), (S, 8), (S, 9) if places else (S + 3, 8)]  # places read, tokens written
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            read, both = {}, []
            for s, t in texts:
                if s not in read:
                    read[s] = _counted(lambda s=s: model.get_encoder()(**_read(model, made, s)))
                *heard, states = read[s]
                *written, _ = _counted(lambda t=t: model(encoder_outputs=states, decoder_input_ids=_ids(t)))  # noqa: B023
                both.append((written[0], written[1], heard[0] + written[0], heard[1] + written[1]))
    except Exception:  # each family fails in its own way, and then it is not known
        return None, None
    (w1, l1, *_), (w2, l2, *_), _ = both
    writes = w2 - w1
    reads, looks = (read[S][0] + w1 - 7 * writes) // S, read[S][1] // S**2
    own = l2 // 8 - l1 // 7
    cross = (l1 // 7 - 7 * own) // S
    for (s, t), (_, _, *found) in zip(texts, both, strict=True):
        if found != [reads * s + writes * t, looks * s * s + own * t * t + cross * s * t]:
            return None, None
    layers = _first(made, "encoder_layers", "num_layers", "num_hidden_layers") or 0
    return dict(layers=layers, reads=reads, looks=looks, own=own, cross=cross, places=places), writes


def _counted(run) -> tuple[int, int, Any]:
    """Multiplications with weights, and those of attention, in what is run; what that returns."""
    with FlopCounterMode(display=False) as counter:
        returned = run()
    flops = counter.get_flop_counts()["Global"]
    looking = sum(n for operation, n in flops.items() if "bmm" in str(operation))
    return (sum(flops.values()) - looking) // 2, looking // 2, returned


def _compared(short, longer, text, H: int):
    """What grew by a token and what did not."""
    held = [out.get("past_key_values", out.get("cache_params")) for out in (short, longer)]
    own, heard = [], []
    for kept in held:
        pair = hasattr(kept, "self_attention_cache")
        own.append(kept.self_attention_cache if pair else kept)
        heard.append(kept.cross_attention_cache.layers if pair else [])
    if any(_tensors(cache) for cache in own):
        return None, (), ()  # kept in some way of this family's own
    layers, looked, windows, state = [], [], [], 0
    for a, b in zip(*(cache.layers for cache in own), strict=True):
        sizes = [[tensor.numel() for tensor in _tensors(layer)] for layer in (a, b)]
        grown = sum(sizes[1]) - sum(sizes[0])
        width = getattr(a, "sliding_window", None)
        if not isinstance(width, int):
            width = None
        keys = getattr(a, "keys", None)
        if isinstance(keys, torch.Tensor) and width is not None and width <= SHORT + 1:  # full already
            grown = (keys.numel() + a.values.numel()) // keys.shape[-2]
            layers.append((grown, width))
        elif grown:
            layers.append((grown, width))
            state += sum(sizes[0]) - SHORT * grown
        else:
            state += sum(sizes[0])
            continue
        qk = _first(text, "qk_head_dim") or a.keys.shape[-1]
        if hasattr(text, "kv_lora_rank"):  # looked up after they are widened again
            qk = text.qk_nope_head_dim + text.qk_rope_head_dim
        looked.append(H * (qk + (_first(text, "v_head_dim") or a.values.shape[-1])))
        windows.append(width)
    counts = [sum(tensor.numel() for layer in each for tensor in _tensors(layer)) for each in heard]
    source, always = counts[1] - counts[0], None
    if counts[0] and not source:
        always = max(tensor.shape[-2] for tensor in _tensors(heard[0][0]))
        source = counts[0] // always
    if not layers and not state:
        return None, (), ()
    return dict(layers=tuple(layers), state=state, source=source, heard=always), tuple(looked), tuple(windows)


def _tensors(holder) -> list[torch.Tensor]:
    """The tensors that an object holds, alone or in lists and dicts; none of one number."""
    found = []
    for value in vars(holder).values():
        each = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        found += [tensor for tensor in each if isinstance(tensor, torch.Tensor) and tensor.ndim]
    return found


def _class(made, counted: str | None):
    """The class that the config names, or what fits its type: for translation or writing, else bare (an encoder)."""
    if counted is not None:
        found = getattr(transformers, counted, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            if isinstance(made, found.config_class or ()):
                return found
            raise CourseError(f"the config is of type {made.model_type!r}, its class {counted} of another; "
                              f"name one of that type with --architecture")  # fmt: skip
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
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel"))


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
