"""Parameters from a config alone, to the digit: published models, random ones, every head."""

import os
import warnings

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

from lib.decide.counting import FAMILIES, count, load, shipped

# What Hugging Face's pages and the papers say of these checkpoints, to the digit, from outside this machine.
STATED = {
    "gpt2": 124_439_808, "gpt2-xl": 1_557_611_200, "pythia-70m": 70_426_624, "pythia-12b": 11_846_072_320,
    "llama-7b": 6_738_415_616, "llama-65b": 65_285_660_672, "Llama-2-70b-hf": 68_976_648_192,
    "Meta-Llama-3-8B": 8_030_261_248, "Llama-3.1-405B": 405_853_388_800, "Llama-3.2-1B": 1_235_814_400,
    "Mistral-7B-v0.1": 7_241_732_096, "Mixtral-8x7B-v0.1": 46_702_792_704, "Qwen2-0.5B": 494_032_768,
    "Qwen2.5-7B": 7_615_616_512, "Qwen3-8B": 8_190_735_360, "Qwen3-30B-A3B": 30_532_122_624,
    "gemma-2b": 2_506_172_416, "gemma-7b": 8_537_680_896, "gemma-2-9b": 9_241_705_984, "gemma-3-1b-pt": 999_885_952,
    "phi-2": 2_779_683_840, "Phi-3-mini-4k-instruct": 3_821_079_552, "SmolLM2-135M": 134_515_008,
    "SmolLM2-1.7B": 1_711_376_384, "bloom": 176_247_271_424, "falcon-7b": 6_921_720_704,
    "t5-11b": 11_307_321_344, "flan-t5-small": 76_961_152, "flan-t5-xxl": 11_135_332_352,
    "vit-base-patch16-224": 86_567_656, "bert-base-uncased": 109_514_298,
}  # fmt: skip


def truth(config: dict, architecture: str | None = None) -> int:
    """What transformers builds from a config, counted: tensors without numbers, tied ones once."""
    config = {k: v for k, v in config.items() if k not in ("transformers_version", "torch_dtype", "dtype")}
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        made = transformers.AutoConfig.for_model(**config)
        model = getattr(transformers, architecture or config["architectures"][0])(made)
    # transformers ties T5's head whatever the file says; published files hold the one that the file declares.
    named, own = type(model).__name__, not config.get("tie_word_embeddings", config["model_type"] == "t5")
    writes = named in ("T5ForConditionalGeneration", "MT5ForConditionalGeneration")
    head = made.vocab_size * made.d_model if writes else 0
    if head and own and model.lm_head.weight is model.shared.weight:
        return sum(p.numel() for p in model.parameters()) + head
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", STATED)
def test_parameters_are_those_stated(name):
    assert load(name).parameters == STATED[name]


# One published config of each size up to 2 billion, and the largest of all: the rest take the same path.
BUILT = [name for name in shipped() if load(name).parameters < 2e9 or "405B" in name or "235B" in name]


@pytest.mark.parametrize("name", BUILT)
def test_parameters_are_those_that_transformers_builds(name):
    model = load(name)
    assert model.parameters == truth(shipped()[name])
    assert model.exact == "formula" and sum(model.parts.values()) == model.parameters


CAUSAL = {
    "gpt2": "GPT2", "gpt_bigcode": "GPTBigCode", "gpt_neo": "GPTNeo", "gptj": "GPTJ", "gpt_neox": "GPTNeoX",
    "llama": "Llama", "smollm3": "SmolLM3", "mistral": "Mistral", "mixtral": "Mixtral", "qwen2": "Qwen2",
    "qwen2_moe": "Qwen2Moe", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "gemma": "Gemma", "gemma2": "Gemma2",
    "gemma3_text": "Gemma3", "phi": "Phi", "phi3": "Phi3", "opt": "OPT", "bloom": "Bloom", "falcon": "Falcon",
    "olmo": "Olmo", "olmo2": "Olmo2", "starcoder2": "Starcoder2", "cohere": "Cohere", "stablelm": "StableLm",
}  # fmt: skip
PREFIX = CAUSAL | dict(bert="Bert", roberta="Roberta", distilbert="DistilBert", t5="T5", mt5="MT5", vit="ViT")
CLASSES = {
    "bert": "Model ForMaskedLM ForPreTraining ForNextSentencePrediction ForSequenceClassification "
            "ForTokenClassification ForQuestionAnswering ForMultipleChoice LMHeadModel",
    "roberta": "Model ForMaskedLM ForSequenceClassification ForTokenClassification ForQuestionAnswering ForCausalLM",
    "distilbert": "Model ForMaskedLM ForSequenceClassification ForTokenClassification ForQuestionAnswering",
    "t5": "Model ForConditionalGeneration EncoderModel ForSequenceClassification",
    "mt5": "Model ForConditionalGeneration EncoderModel",
    "vit": "Model ForImageClassification ForMaskedImageModeling",
}  # fmt: skip
DECODER = "Model ForCausalLM ForSequenceClassification ForTokenClassification ForQuestionAnswering"
FLAGS = """
    attention_bias mlp_bias use_qkv_bias qkv_bias qk_layernorm use_qk_norm use_parallel_residual
    multi_query parallel_attn new_decoder_architecture bias use_bias enable_bias use_sliding_window
    layer_norm_elementwise_affine do_layer_norm_before tie_word_embeddings
""".split()


def classes(family: str) -> list[str]:
    """The classes of a family that this version of transformers has."""
    ends = CLASSES.get(family, DECODER.replace("ForCausalLM", "LMHeadModel") if family == "gpt2" else DECODER)
    return [PREFIX[family] + end for end in ends.split() if hasattr(transformers, PREFIX[family] + end)]


@st.composite
def configs(draw, family: str) -> dict:
    """A small config of a family, odd sizes and all; some fields left out where the default is small enough."""
    rules, defaults = FAMILIES[family], transformers.AutoConfig.for_model(family).to_dict()
    small = st.integers(1, 5)
    K, G, Dh = draw(small), draw(st.integers(1, 3)), 2 * draw(small)
    H, L = K * G, draw(small)
    names = {n: rules.own.get(n, n) for n in ("hidden_size", "num_hidden_layers", "num_attention_heads",
                                              "intermediate_size", "num_key_value_heads", "head_dim",
                                              "max_position_embeddings")}  # fmt: skip
    if family == "bloom":
        names["hidden_size"] = "hidden_size"
    config = {"model_type": family, "vocab_size": draw(st.integers(1, 300)), names["hidden_size"]: H * Dh,
              names["num_hidden_layers"]: L, names["num_attention_heads"]: H,
              "pad_token_id": 0, "architectures": [draw(st.sampled_from(classes(family)))]}  # fmt: skip
    if family != "vit":
        config[names["max_position_embeddings"]] = draw(st.integers(1, 70))
    if family != "bloom" and draw(st.booleans()):
        config[names["intermediate_size"]] = draw(st.integers(1, 60))
    if names["num_key_value_heads"] in defaults and family not in ("gpt_bigcode",):
        config[names["num_key_value_heads"]] = draw(st.sampled_from([K, H] + ([None] if family == "llama" else [])))
    if rules.extra.get("head_dim", True) and draw(st.booleans()):
        config[names["head_dim"]] = 2 * draw(small)
    for flag in FLAGS:
        if flag in defaults and draw(st.booleans()):
            config[flag] = draw(st.booleans())
    for field, values in {
        "id2label": st.integers(1, 9).map(lambda n: {str(i): f"label {i}" for i in range(n)}),
        "num_local_experts": st.integers(2, 5), "num_experts": st.integers(4, 9), "moe_intermediate_size": small,
        "shared_expert_intermediate_size": small, "decoder_sparse_step": st.integers(1, 3),
        "mlp_only_layers": st.lists(st.integers(0, 4), max_size=2), "word_embed_proj_dim": st.integers(1, 20),
        "type_vocab_size": st.integers(1, 4), "num_decoder_layers": small, "relative_attention_num_buckets": small,
        "feed_forward_proj": st.sampled_from(["relu", "gated-gelu"]), "image_size": st.integers(16, 40),
        "patch_size": st.integers(1, 8), "num_channels": small, "pooler_output_size": small,
    }.items():  # fmt: skip
        if field in defaults or field == "id2label":
            if draw(st.booleans()):
                config[field] = draw(values)
    if family == "gpt_neo":
        config["attention_types"] = [[["global"], L]]
    if family in ("qwen3_moe", "qwen2_moe", "mixtral"):
        config["num_experts_per_tok"] = 2
        if family == "qwen3_moe":
            config["num_experts"] = config.pop("num_local_experts", config.get("num_experts", 4))
    return config


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_configs_are_counted_as_transformers_builds_them(family, data):
    config = data.draw(configs(family))
    try:
        wanted = truth(config)
    except (ValueError, TypeError, RuntimeError, AttributeError, StrictDataclassError):
        reject()  # a combination that transformers itself refuses
    assert count(config).parameters == wanted, config
