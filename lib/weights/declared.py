"""What a model's config.json may say, and what to do about the rest.

A field is used, or it says nothing about what the model computes; both are listed here, family by family. Any other
that is set may mean another model, so the file is refused by that field's name.
"""

import math
from collections.abc import Mapping

from lib.errors import CourseError

FAMILIES = ("gpt2", "llama", "mistral", "qwen2")
PREFIX = {"gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}

_LLAMA = """
    hidden_act max_position_embeddings num_hidden_layers num_attention_heads num_key_value_heads head_dim hidden_size
    intermediate_size rms_norm_eps rope_theta rope_parameters rope_scaling layer_types
"""
_USED = {
    "gpt2": """
        activation_function n_positions n_ctx n_layer n_head n_embd n_inner layer_norm_epsilon scale_attn_weights
        scale_attn_by_inverse_layer_idx
    """,
    "llama": _LLAMA + "attention_bias mlp_bias",
    "mistral": _LLAMA + "sliding_window use_sliding_window",  # mistral's window needs no switch
    "qwen2": _LLAMA + "sliding_window use_sliding_window max_window_layers attention_bias",  # its biases are fixed
}
# Book-keeping, training, and how texts are drawn: the same numbers come out of the model whatever these say.
SILENT = """
    model_type architectures vocab_size tie_word_embeddings transformers_version torch_dtype dtype use_cache
    name_or_path _name_or_path _model_name_or_path _commit_hash _from_model_config _attn_implementation
    _attn_implementation_autoset _attn_implementation_internal _experts_implementation _flash_attn_2_enabled
    attn_implementation torchscript
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id
    initializer_range pretraining_tp attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop dropout
    reorder_and_upcast_attn gradient_checkpointing chunk_size_feed_forward return_dict use_return_dict
    output_hidden_states output_attentions output_scores is_decoder use_bfloat16 tf_legacy_loss
    summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout
    id2label label2id num_labels _num_labels problem_type finetuning_task task_specific_params
    tokenizer_class model_max_length max_sequence_length prefix is_llama_config transformers.js_config
    unsloth_version unsloth_fixed
    max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences return_dict_in_generate forced_bos_token_id
    forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
"""
SILENT = frozenset(SILENT.split())
UNDERSTOOD = {family: SILENT.union(used.split()) for family, used in _USED.items()}


def refuse_unknown(theirs: Mapping, family: str) -> None:
    """Raise CourseError for a field that is set and not understood."""
    for name in sorted(theirs, key=str):
        if name not in UNDERSTOOD[family] and theirs[name] not in (None, False, 0, "", [], {}, ()):
            raise CourseError(
                f"config field {name} is {_short(theirs[name])}, which is not understood for {family}; it may be "
                f"another model, so it is not loaded"
            )


def refuse_other_class(theirs: Mapping, family: str) -> None:
    """Raise CourseError for the config of something else than the family's language model, such as a classifier."""
    named = theirs.get("architectures") or []
    if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
        raise CourseError(f"config field architectures should be a list of class names, not {_short(named)}")
    ends = ("LMHeadModel", "Model") if family == "gpt2" else ("ForCausalLM", "Model")
    ours = {(PREFIX[family] + end).lower() for end in ends}
    if named and not ours & {name.lower() for name in named}:
        raise CourseError(
            f"the config is of class {named[0]}, not {family}'s language model; only language models are loaded"
        )


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def whole(theirs: Mapping, *names: str, default: int | None = None) -> int:
    """A size, by the first of its names that is there."""
    for name in names:
        if theirs.get(name) is not None:
            value = theirs[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CourseError(f"config field {name} should be a positive whole number, not {value!r}")
            return value
    if default is None:
        raise CourseError(f"the config has no {names[0]!r}; is this a language model's config.json?")
    return default


def positive(theirs: Mapping, name: str, default: float) -> float:
    value = default if theirs.get(name) is None else theirs[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise CourseError(f"config field {name} should be a positive number, not {value!r}")
    return float(value)


def switch(theirs: Mapping, name: str, default: bool) -> bool:
    value = default if theirs.get(name) is None else theirs[name]
    if not isinstance(value, bool):
        raise CourseError(f"config field {name} should be true or false, not {value!r}")
    return value


def rope_theta(theirs: Mapping) -> float:
    """Rotary base, from transformers 5's `rope_parameters` or the older `rope_theta` and `rope_scaling`, all that are
    there. Raises CourseError where they disagree, or say more than the base."""
    found = {}
    for field in ("rope_parameters", "rope_scaling"):
        rope = theirs.get(field) or {}
        if not isinstance(rope, Mapping):
            raise CourseError(f"rotary scaling should be an object, not {_short(rope)}; use plain rotary positions")
        for name in ("rope_type", "type"):
            if rope.get(name, "default") != "default":
                raise CourseError(
                    f"rotary scaling {rope[name]!r} is not supported; use a model with plain rotary positions"
                )
        for name, value in rope.items():
            silent = value is None or (name == "partial_rotary_factor" and value == 1)
            if name not in ("rope_type", "type", "rope_theta") and not silent:
                raise CourseError(
                    f"rotary field {name} is {_short(value)}, which is not understood; "
                    f"use a model with plain rotary positions"
                )
        if rope.get("rope_theta") is not None:
            found[f"{field}.rope_theta"] = positive(rope, "rope_theta", 10000.0)
    if theirs.get("rope_theta") is not None:
        found["rope_theta"] = positive(theirs, "rope_theta", 10000.0)
    if len(set(found.values())) > 1:
        said = " and ".join(f"{name} {value:g}" for name, value in found.items())
        raise CourseError(f"the config gives two rotary bases, {said}; keep the one the model was trained with")
    return next(iter(found.values()), 10000.0)


def window(theirs: Mapping, family: str) -> int | None:
    """The sliding window, if all layers share one; the Transformer has no other kind. Defaults are transformers'."""
    used = family == "mistral" or (family == "qwen2" and bool(theirs.get("use_sliding_window")))
    width = None
    if used and theirs.get("sliding_window", 4096) is not None:
        width = whole(theirs, "sliding_window", default=4096)
    L, kinds = whole(theirs, "num_hidden_layers"), theirs.get("layer_types")
    if kinds is None:
        if family == "mistral" or width is None:
            return width
        first = 0 if theirs.get("max_window_layers") == 0 else whole(theirs, "max_window_layers", default=28)
        kinds = ["full_attention" if i < first else "sliding_attention" for i in range(L)]  # older files
    if not isinstance(kinds, list) or not kinds or not all(isinstance(kind, str) for kind in kinds):
        raise CourseError(f"config field layer_types should be a list of names, not {kinds!r}")
    if len(set(kinds)) > 1:
        raise CourseError("layers with and without a sliding window are mixed, which is not supported")
    if kinds[0] not in ("full_attention", "sliding_attention"):
        raise CourseError(f"layers of type {kinds[0]!r} are not understood; use a model with full or sliding attention")
    if (kinds[0] == "sliding_attention") != (width is not None) and (family != "qwen2" or width is None):
        raise CourseError(f"layer_types says {kinds[0]}, the other fields give a window of {width}; they should agree")
    return width if kinds[0] == "sliding_attention" else None
