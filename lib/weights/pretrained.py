"""Other people's weights in our model, and ours in their format.

Four families of Hugging Face models fit the one Transformer: gpt2, llama, mistral and qwen2. What differs is only
the switches in Config and the names of the tensors, so a family is two small tables.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib.errors import CourseError
from lib.transformer import Config, Transformer
from lib.weights.chat import ChatTokenizer
from lib.weights.declared import (
    FAMILIES,
    PREFIX,
    positive,
    refuse_other_class,
    refuse_unknown,
    rope_theta,
    switch,
    whole,
    window,
)

ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

# Our name → theirs. {i} is the layer; a name stands for its .weight and, where there is one, its .bias.
LLAMA_NAMES = {
    "embedding": "model.embed_tokens",
    "blocks.{i}.norm1": "model.layers.{i}.input_layernorm",
    "blocks.{i}.attention.q": "model.layers.{i}.self_attn.q_proj",
    "blocks.{i}.attention.k": "model.layers.{i}.self_attn.k_proj",
    "blocks.{i}.attention.v": "model.layers.{i}.self_attn.v_proj",
    "blocks.{i}.attention.out": "model.layers.{i}.self_attn.o_proj",
    "blocks.{i}.norm2": "model.layers.{i}.post_attention_layernorm",
    "blocks.{i}.mlp.gate": "model.layers.{i}.mlp.gate_proj",
    "blocks.{i}.mlp.up": "model.layers.{i}.mlp.up_proj",
    "blocks.{i}.mlp.down": "model.layers.{i}.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}
GPT2_NAMES = {
    "embedding": "transformer.wte",
    "positions": "transformer.wpe",
    "blocks.{i}.norm1": "transformer.h.{i}.ln_1",
    "blocks.{i}.attention.out": "transformer.h.{i}.attn.c_proj",
    "blocks.{i}.norm2": "transformer.h.{i}.ln_2",
    "blocks.{i}.mlp.up": "transformer.h.{i}.mlp.c_fc",
    "blocks.{i}.mlp.down": "transformer.h.{i}.mlp.c_proj",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
GPT2_TRANSPOSED = ("attention.out", "mlp.up", "mlp.down")  # GPT-2 stores these as (in, out)


# Stored beside weights and read by nobody: angles and masks that every model computes for itself.
BUFFERS = re.compile(r"(.*\.)?rotary_emb\.inv_freq|(transformer\.)?h\.\d+\.attn\.(masked_)?bias")
NUMBERS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def config_from_hf(theirs: Mapping) -> Config:
    """A Config from the fields of a Hugging Face config.json. Raises CourseError for what does not fit."""
    family = theirs.get("model_type")
    if family not in FAMILIES:
        raise CourseError(f"model family {family!r} is not supported; choose one of {', '.join(FAMILIES)}")
    refuse_unknown(theirs, family)
    activation = theirs.get("activation_function" if family == "gpt2" else "hidden_act")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise CourseError(f"activation {activation!r} is not supported; known are {', '.join(ACTIVATIONS)}")
    shared = dict(vocab_size=whole(theirs, "vocab_size"), activation=ACTIVATIONS[activation])
    config = _gpt2(theirs, shared) if family == "gpt2" else _llama(theirs, shared, family)
    refuse_other_class(theirs, family)
    return config


def _gpt2(theirs: Mapping, shared: dict) -> Config:
    if theirs.get("scale_attn_by_inverse_layer_idx") or not switch(theirs, "scale_attn_weights", True):
        raise CourseError("this GPT-2 scales its attention in an unusual way, which is not supported")
    return Config.gpt2(
        **shared,
        block_size=whole(theirs, "n_positions", "n_ctx"),
        n_layer=whole(theirs, "n_layer"),
        n_head=whole(theirs, "n_head"),
        d_model=whole(theirs, "n_embd"),
        d_ff=whole(theirs, "n_inner", default=4 * whole(theirs, "n_embd")),
        norm_eps=positive(theirs, "layer_norm_epsilon", 1e-5),
        tie=switch(theirs, "tie_word_embeddings", True),
    )


def _llama(theirs: Mapping, shared: dict, family: str) -> Config:
    n_head, d_model = whole(theirs, "num_attention_heads"), whole(theirs, "hidden_size")
    return Config.llama(
        **shared,
        block_size=whole(theirs, "max_position_embeddings"),
        n_layer=whole(theirs, "num_hidden_layers"),
        n_head=n_head,
        n_kv_head=whole(theirs, "num_key_value_heads", default=n_head),
        head_dim=None if theirs.get("head_dim") is None else whole(theirs, "head_dim"),
        d_model=d_model,
        d_ff=whole(theirs, "intermediate_size"),
        norm_eps=positive(theirs, "rms_norm_eps", 1e-6),
        rope_theta=rope_theta(theirs),
        qkv_bias=family == "qwen2" or bool(theirs.get("attention_bias")),
        out_bias=family != "qwen2" and bool(theirs.get("attention_bias")),
        mlp_bias=bool(theirs.get("mlp_bias")),
        sliding_window=window(theirs, family),
        tie=switch(theirs, "tie_word_embeddings", False),
    )


def config_to_hf(config: Config) -> dict:
    """The fields of a config.json that transformers reads back as the same model."""
    activation = {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation)
    biases = (config.qkv_bias, config.out_bias, config.mlp_bias)
    nobody = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))  # left out, they are 1 and 2 to many
    shared = dict(vocab_size=config.vocab_size, tie_word_embeddings=config.tie, dtype="float32") | nobody
    if activation not in ACTIVATIONS or not config.causal:
        raise CourseError(
            "Hugging Face's gpt2 and llama families have no model like this one; save its state dict instead"
        )
    if (config.norm, config.position, config.mlp, *biases) == ("layer", "learned", "plain", True, True, True):
        if config.n_kv_head != config.n_head or config.sliding_window:
            raise CourseError("GPT-2 has neither grouped heads nor a sliding window; use Config.llama for those")
        if config.n_head * config.head_dim != config.d_model:
            raise CourseError("GPT-2's heads together are as wide as the model; use Config.llama for another head_dim")
        return shared | dict(
            model_type="gpt2",
            architectures=["GPT2LMHeadModel"],
            activation_function=activation,
            n_positions=config.block_size,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.d_model,
            n_inner=config.d_ff,
            layer_norm_epsilon=config.norm_eps,
        )
    if (config.norm, config.position, config.mlp) != ("rms", "rotary", "gated"):
        raise CourseError("this mix of norm, positions and MLP belongs to no Hugging Face family we can save as")
    window = config.sliding_window
    if config.qkv_bias and not config.out_bias:
        family, allowed = "qwen2", not config.mlp_bias
    elif window or config.d_model % config.n_head:  # transformers' Llama wants heads that divide the width
        family, allowed = "mistral", not any(biases)
    else:
        family, allowed = "llama", config.qkv_bias == config.out_bias
    if not allowed:
        raise CourseError(f"the {family} family has no biases like these; drop them or the sliding window")
    own = {  # said to another family, some of these would make it another model
        "llama": dict(attention_bias=config.qkv_bias, mlp_bias=config.mlp_bias),
        "mistral": dict(sliding_window=window),
        "qwen2": dict(
            sliding_window=window,
            use_sliding_window=window is not None,
            max_window_layers=0 if window else config.n_layer,
            layer_types=["sliding_attention" if window else "full_attention"] * config.n_layer,
        ),
    }
    return shared | dict(
        model_type=family,
        architectures=[f"{PREFIX[family]}ForCausalLM"],
        hidden_act=activation,
        max_position_embeddings=config.block_size,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.n_kv_head,
        head_dim=config.head_dim,
        hidden_size=config.d_model,
        intermediate_size=config.d_ff,
        rms_norm_eps=config.norm_eps,
        rope_theta=config.rope_theta,  # for transformers 4
        rope_parameters=dict(rope_type="default", rope_theta=config.rope_theta),
        **own[family],
    )


def _their_name(ours: str, names: Mapping[str, str]) -> str:
    """blocks.3.mlp.up.bias → model.layers.3.mlp.up_proj.bias."""
    module, kind = ours.rsplit(".", 1)
    layer = ""
    if module.startswith("blocks."):
        _, layer, rest = module.split(".", 2)
        module = "blocks.{i}." + rest
    return f"{names[module].format(i=layer)}.{kind}"


def state_from_hf(theirs: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Rename (and for GPT-2 transpose and cut) a Hugging Face state dict to ours. Raises CourseError where a tensor is
    missing, and for any that is left over or holds something else than plain numbers: it may be another model."""
    gpt2 = config.position == "learned"
    names = GPT2_NAMES if gpt2 else LLAMA_NAMES
    first = "transformer." if gpt2 else "model."
    state, used = {}, set()
    with torch.device("meta"):
        expected = Transformer(config).state_dict()

    def found(name: str) -> Tensor | None:
        """The tensor of that name; files of the bare model, the hub's own gpt2 among them, leave the first word out."""
        known = name if name in theirs else name.removeprefix(first)
        used.add(known)
        return theirs.get(known)

    for ours, blank in expected.items():
        if gpt2 and ours.split(".")[-2] in ("q", "k", "v"):
            name = f"transformer.h.{ours.split('.')[1]}.attn.c_attn.{ours.rsplit('.', 1)[1]}"
            part = "qkv".index(ours.split(".")[-2])
            joined = found(name)  # (D, 3D) or (3D,)
            tensor = None if joined is None else joined.tensor_split(3, dim=-1)[part]  # (D, D) or (D,)
        else:
            name = _their_name("embedding.weight" if ours == "head.weight" and config.tie else ours, names)
            tensor = found(name)
        if tensor is None:
            raise CourseError(f"the weights lack {name!r}; are they whole, and of this config's family?")
        if tensor.dtype not in NUMBERS:
            stored = str(tensor.dtype).removeprefix("torch.")
            raise CourseError(f"{name!r} is stored as {stored}: quantised weights are not understood; load the model "
                              f"in float32, bfloat16 or float16")  # fmt: skip
        if gpt2 and ours.endswith(".weight") and tensor.ndim == 2 and "blocks" in ours:
            tensor = tensor.T  # (in, out) → (out, in)
        if tensor.shape != blank.shape:
            raise CourseError(f"{name!r} has shape {tuple(tensor.shape)}, the config says {tuple(blank.shape)}")
        state[ours] = tensor
    head = theirs.get("lm_head.weight")
    if config.tie and head is not None and not torch.equal(head, state["embedding.weight"]):
        raise CourseError("the config says that the head is the embedding (tie_word_embeddings), but the weights have "
                          "another lm_head.weight; set it to false, or take that tensor out")  # fmt: skip
    for name in sorted(theirs.keys() - used - {"lm_head.weight"}):
        if not BUFFERS.fullmatch(name):
            raise CourseError(f"the weights hold {name!r}, which is not understood; they may be of another model, so "
                              f"they are not loaded")  # fmt: skip
    return state


@torch.no_grad()
def state_to_hf(model: Transformer) -> dict[str, Tensor]:
    """Our state dict under Hugging Face's names, a tied head left out, a LoRA added in."""
    gpt2 = model.config.position == "learned"
    lora = {name: layer for name, layer in model.named_modules() if hasattr(type(layer), "effective")}
    theirs = {}
    for ours, tensor in model.state_dict().items():
        place, kind = ours.rsplit(".", 1)
        if (ours == "head.weight" and model.config.tie) or (gpt2 and place.split(".")[-1] in ("q", "k", "v")):
            continue
        if kind in ("a", "b"):
            continue
        if kind == "weight" and place in lora:
            tensor = lora[place].effective  # (out, in)
        if gpt2 and any(part in ours for part in GPT2_TRANSPOSED) and tensor.ndim == 2:
            tensor = tensor.T  # (out, in) → (in, out)
        theirs[_their_name(ours, GPT2_NAMES if gpt2 else LLAMA_NAMES)] = tensor.contiguous()
    if gpt2:
        for i, block in enumerate(model.blocks):
            parts = (block.attention.q, block.attention.k, block.attention.v)
            name = f"transformer.h.{i}.attn.c_attn"
            weights = [getattr(p, "effective", p.weight).T for p in parts]  # (D, D) each
            theirs[f"{name}.weight"] = torch.cat(weights, dim=1).contiguous()  # (D, 3D)
            theirs[f"{name}.bias"] = torch.cat([p.bias for p in parts])  # (3D,)
    return theirs


def _build(config: Config, state: dict[str, Tensor]) -> Transformer:
    with torch.device("meta"):  # no time lost on random weights that are thrown away
        model = Transformer(config)
    state = {name: tensor.detach().float().contiguous() for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    if config.tie:
        model.head.weight = model.embedding.weight
    return model.requires_grad_().eval()


def from_hf(their_model) -> Transformer:
    """Our Transformer with the weights of a loaded transformers model."""
    config = config_from_hf(their_model.config.to_dict())
    state = state_from_hf(their_model.state_dict(), config)
    return _build(config, {name: tensor.clone() for name, tensor in state.items()})


def _read_json(path: Path) -> dict:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"no {path.name} in {path.parent}; pass the folder of a saved model") from None
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} is not readable JSON ({error}); fetch or save the model again") from None
    if not isinstance(data, dict):
        raise CourseError(f"{path} does not hold a JSON object; fetch or save the model again")
    return data


def load(folder: str | Path) -> Transformer:
    """Our Transformer from a folder in Hugging Face's format (config.json and safetensors), in float32, on the CPU.

    Raises CourseError for a missing or damaged file, for a family that does not fit, and for whatever in the config or
    the weights is not understood.
    """
    folder = Path(folder)
    config = config_from_hf(_read_json(folder / "config.json"))
    theirs: dict[str, Tensor] = {}
    for name in _weight_files(folder):
        try:
            more = load_file(folder / name)
        except FileNotFoundError:
            pickled = any(folder.glob("pytorch_model*.bin"))
            mend = "save it as safetensors, for a .bin may run code" if pickled else "fetch or save the model again"
            raise CourseError(f"no {name} in {folder}; {mend}") from None
        except (SafetensorError, OSError) as error:
            raise CourseError(f"{folder / name} is damaged ({error}); fetch or save the model again") from None
        if twice := theirs.keys() & more.keys():
            raise CourseError(f"{min(twice)!r} is in two files of {folder}; fetch or save the model again")
        theirs |= more
    return _build(config, state_from_hf(theirs, config))


def _weight_files(folder: Path) -> list[str]:
    """Where the weights are. One whole file goes before an index of several, as in transformers."""
    index, single = folder / "model.safetensors.index.json", "model.safetensors"
    if not index.exists():
        return [single]
    files = _read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise CourseError(f"{index} names no files of weights; fetch the model again")
    return [single] if (folder / single).exists() else sorted({Path(name).name for name in files.values()})


# What a reader of the folder would take for the model, or for a part of it, beside or instead of what is saved.
STALE = """
    config.json generation_config.json model.safetensors.index.json model-*.safetensors model.*.safetensors
    consolidated*.safetensors pytorch_model*.bin pytorch_model.bin.index.json tf_model*.h5 tf_model.h5.index.json
    flax_model*.msgpack flax_model.msgpack.index.json adapter_config.json adapter_model.safetensors adapter_model.bin
""".split()


def save(model: Transformer, folder: str | Path) -> None:
    """Write config.json and model.safetensors that transformers' AutoModelForCausalLM reads, in place of whatever model
    lay there; a tokenizer stays. Killed at any moment, it leaves the old model, the new one, or no config.json."""
    folder = Path(folder)
    config = config_to_hf(model.config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights, about = folder / "model.safetensors", folder / "config.json"
        halves = [path.with_name(path.name + ".part") for path in (weights, about)]
        save_file(state_to_hf(model), halves[0], metadata={"format": "pt"})
        halves[1].write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        for pattern in STALE:  # config.json first: from here to the end the folder is no model's
            for path in folder.glob(pattern):
                path.unlink()
        halves[0].replace(weights)
        halves[1].replace(about)
    except OSError as error:
        raise CourseError(f"cannot save to {folder} ({error.strerror}); choose a folder you can write to") from None


def load_smollm2() -> tuple[Transformer, ChatTokenizer]:
    """The real SmolLM2-135M-Instruct (Allal et al. 2025) from the packaged weights; `course data` brings them."""
    from lib.sources.catalogue import smollm2_folder

    folder = smollm2_folder()
    return load(folder), ChatTokenizer(folder)
