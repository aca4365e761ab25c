"""`course size` says only what it knows: active parameters, caches, custom code, sizes that are missing, stored forms.

Checked against what transformers itself builds, keeps and leaves idle in tiny models of many families (small.py), and
against published totals, active parameters and caches.
"""

import json
import os
import warnings
from functools import cache

import pytest
import small

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from lib.course import cli
from lib.decide import counting, sizing
from lib.decide.counting import load
from lib.errors import CourseError

pytestmark = pytest.mark.usefixtures("one_thread")
NOT_KNOWN = ("recurrent_gemma", "rwkv", "minimax", "jetmoe", "switch_transformers")  # what they keep, that is


def count(config, architecture=None):
    """Each config once: transformers builds it for that."""
    return _counted(json.dumps(config), architecture)


@cache
def _counted(config, architecture):
    return counting.count(json.loads(config), architecture=architecture)


def build(family, **fields):
    """transformers' own tiny model, with numbers in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(family, **small.ALL[family] | fields)
        autos = [transformers.AutoModelForSpeechSeq2Seq, transformers.AutoModelForSeq2SeqLM,
                 transformers.AutoModelForCausalLM]  # fmt: skip
        kinds = autos[:2] if config.is_encoder_decoder else autos[2:]
        kind = next(auto._model_mapping[type(config)] for auto in kinds if type(config) in auto._model_mapping)
        torch.manual_seed(0)
        return (kind[0] if isinstance(kind, tuple) else kind)(config).eval()


def read(model, T):
    """What the model keeps of T tokens, in numbers."""
    ids = torch.arange(T)[None] % 50 + 3
    given = dict(input_ids=ids)
    if model.config.is_encoder_decoder:
        given = dict(input_ids=ids, decoder_input_ids=ids)
        if model.main_input_name == "input_features":
            frames = torch.zeros(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
            given = dict(input_features=frames, decoder_input_ids=ids)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = model(**given, use_cache=True)
    kept = out.get("past_key_values", out.get("cache_params"))
    pair = hasattr(kept, "cross_attention_cache")
    parts = [kept.self_attention_cache, kept.cross_attention_cache] if pair else [kept]
    layers = [layer for part in parts for layer in part.layers]
    numbers = 0
    for layer in layers:
        for value in vars(layer).values():
            for tensor in value.values() if isinstance(value, dict) else [value]:
                numbers += tensor.numel() if isinstance(tensor, torch.Tensor) and tensor.ndim else 0
    full = [layer for layer in layers if (getattr(layer, "sliding_window", None) or 10**9) <= T]
    one = sum((layer.keys.numel() + layer.values.numel()) // layer.keys.shape[-2] for layer in full)
    return numbers, one  # transformers keeps a window less the token that comes


def config(family):
    return dict(model_type=family) | small.ALL[family]


@pytest.mark.parametrize("family", [f for f in small.ALL if f not in small.ENCODERS and f not in NOT_KNOWN])
def test_a_cache_is_what_transformers_keeps(family):
    model, ours = build(family), count(config(family))
    assert ours.cache is not None and "cache" not in ours.unknown
    # transformers goes on keeping what GPT-Neo's local layers no longer look at.
    for T in (5, 9, 24) if family != "gpt_neo" else (5, 9):
        kept, one = read(model, T)
        assert sizing.kv_cache_bytes(ours, T, 1, 1) == kept + one, T
        assert sizing.kv_cache_bytes(ours, T, 3, 2) == 6 * (kept + one)


@pytest.mark.parametrize("family", NOT_KNOWN)
def test_where_it_is_not_known_there_is_no_figure(family, tmp_path, capsys):
    model = count(config(family))
    chip = sizing.device("h100")
    assert model.unknown and sizing.kv_cache_bytes(model, 100) is None
    assert sizing.inference_memory(model)["total"] is sizing.forward_flops(model, 9) is None
    assert sizing.decode_seconds(model, chip, 9) is sizing.prefill_seconds(model, chip, 9) is None
    with pytest.raises(CourseError, match="no price"):
        sizing.serving_cost(model, chip, requests=1, prompt=9, answer=9, price=1, api_price=1)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(family)))
    told = size(capsys, path, "--json")
    assert told["not_known"] and told["training_plan"] is told["inference_bounds"]["tokens_per_second"] is None
    assert told["inference_memory"]["fits"] is None and told["parameters"] == model.parameters
    assert "not known for this family" in size(capsys, path)


def size(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["size", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    return json.loads(out) if "--json" in arguments else " ".join(out.split())


def idle_in(model):
    """Expert weights that a token does not meet: a gradient reaches all others."""
    token = torch.tensor([[7]])
    given = dict(input_ids=token)
    if model.config.is_encoder_decoder:
        given = dict(input_ids=token, decoder_input_ids=token)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model(**given).logits.square().sum().backward()
    idle = 0
    for name, p in model.named_parameters():
        if "expert" in name and "shared" not in name and "router" not in name:
            module = model.get_submodule(name.rpartition(".")[0])
            E = next((getattr(module, n) for n in ("num_experts", "moe_num_experts") if hasattr(module, n)),
                     p.shape[0] if p.ndim == 3 else 1)  # fmt: skip
            each = p.reshape(E, -1)
            met = each.new_zeros(E) if p.grad is None else p.grad.reshape(E, -1).abs().amax(1)
            idle += int((met == 0).sum()) * each.shape[1]
    return idle


SPARSE = [*small.SPARSE, "qwen3_next", "jamba", "granitemoehybrid", "minimax"]


@pytest.mark.parametrize("family", [f for f in SPARSE if f != "jetmoe"])
def test_active_parameters_are_those_that_a_token_meets(family):
    model, ours = build(family), count(config(family))
    assert ours.idle == idle_in(model) > 0
    assert ours.active == sum(p.numel() for p in model.parameters()) - ours.idle


def test_experts_that_are_not_understood_are_not_guessed(monkeypatch):
    from lib.decide import metamodel

    monkeypatch.setattr(metamodel, "_resting", lambda model: None)
    model = counting.count(config("olmoe"))
    assert model.active is None and model.unknown == ["active parameters", "arithmetic", "activations"]
    assert sizing.training_flops(model, 1e9, 10) == dict(six_nd=None, exact=None, palm=None)


@pytest.mark.parametrize("family", small.ALL)
def test_parameters_are_those_that_transformers_builds(family):
    if family in small.ENCODERS:
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(family, **small.ALL[family]))
    else:
        model = build(family)
    ours = count(config(family))
    own_head = 64 * 32 if family == "mt5" else 0  # published ones have one; transformers 5 ties it
    assert ours.parameters == sum(p.numel() for p in model.parameters()) + own_head
    assert sum(ours.parts.values()) == ours.parameters
    assert sizing.kv_cache_bytes(ours, 9) == 0 or family not in small.ENCODERS


@pytest.mark.parametrize("family", [f for f in small.PAIRS if f not in ("longt5", "switch_transformers")])
def test_an_encoder_decoder_multiplies_what_pytorch_counts(family):
    """Both stacks and what passes between them, whichever is longer; the head, the filters of sound."""
    model, ours = build(family, attn_implementation="eager"), count(config(family))
    for S, T in ((5, 3), (11, 17)):
        given = dict(input_ids=torch.ones(1, S, dtype=torch.long))
        if ours.pair.places:
            given = dict(input_features=torch.zeros(1, 8, 40))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(**given, decoder_input_ids=torch.ones(1, T, dtype=torch.long))
        assert sizing.pair_flops(ours, S, T) == counter.get_total_flops()
    assert (ours.pair.layers, ours.n_layer) == (3, 2)


def test_attention_in_blocks_and_an_encoder_alone():
    assert count(config("longt5")).pair is None and "arithmetic" in count(config("longt5")).unknown
    alone = count(config("t5"), architecture="T5EncoderModel")
    assert alone.kind == "encoder" and alone.n_layer == 3 and sizing.kv_cache_bytes(alone, 9) == 0
    assert alone.matrices == 3 * (4 * 32 * 32 + 2 * 32 * 48)


def test_layers_that_are_used_again_are_not_counted_once():
    albert = count(config("albert"))
    assert sizing.forward_flops(albert) is None and "arithmetic" in albert.unknown


# The cases of findings, section 5


V3 = dict(architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", first_k_dense_replace=3, n_group=8,
          hidden_size=7168, intermediate_size=18432, kv_lora_rank=512, max_position_embeddings=163840,
          moe_intermediate_size=2048, n_routed_experts=256, n_shared_experts=1, num_attention_heads=128,
          num_experts_per_tok=8, num_hidden_layers=61, num_key_value_heads=128,
          q_lora_rank=1536, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
          tie_word_embeddings=False, vocab_size=129280)  # fmt: skip
HYBRID = ["linear_attention"] * 3 + ["full_attention"]
QWEN3_5 = dict(architectures=["Qwen3_5ForConditionalGeneration"], model_type="qwen3_5", tie_word_embeddings=False,
               text_config=dict(model_type="qwen3_5_text", attn_output_gate=True, head_dim=256, hidden_size=5120,
                                intermediate_size=17408, layer_types=HYBRID * 16, linear_conv_kernel_dim=4,
                                linear_key_head_dim=128, linear_num_key_heads=16, linear_num_value_heads=48,
                                linear_value_head_dim=128, max_position_embeddings=262144, num_attention_heads=24,
                                num_hidden_layers=64, num_key_value_heads=4, vocab_size=248320),
               vision_config=dict(model_type="qwen3_5", depth=27, hidden_size=1152, in_channels=3,
                                  intermediate_size=4304, num_heads=16, num_position_embeddings=2304,
                                  out_hidden_size=5120, patch_size=16, spatial_merge_size=2, temporal_patch_size=2,
                                  deepstack_visual_indexes=[]))  # fmt: skip
WHISPER = dict(architectures=["WhisperForConditionalGeneration"], model_type="whisper", d_model=1280, encoder_layers=32,
               decoder_layers=2, encoder_attention_heads=20, decoder_attention_heads=20, encoder_ffn_dim=5120,
               decoder_ffn_dim=5120, num_mel_bins=128, vocab_size=51866, max_source_positions=1500,
               max_target_positions=448, num_hidden_layers=32)  # fmt: skip
OSS = dict(architectures=["GptOssForCausalLM"], model_type="gpt_oss", hidden_size=2880, intermediate_size=2880,
           head_dim=64, num_attention_heads=64, num_key_value_heads=8, num_hidden_layers=24, num_local_experts=32,
           num_experts_per_tok=4, experts_per_token=4, vocab_size=201088, max_position_embeddings=131072,
           sliding_window=128, tie_word_embeddings=False, attention_bias=True,
           layer_types=["sliding_attention", "full_attention"] * 12, quantization_config=dict(quant_method="mxfp4"),
           )  # fmt: skip
OSS_120B = OSS | dict(num_hidden_layers=36, num_local_experts=128,
                      layer_types=["sliding_attention", "full_attention"] * 18)  # fmt: skip
OLMOE = dict(architectures=["OlmoeForCausalLM"], model_type="olmoe", hidden_size=2048, intermediate_size=1024,
             num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=16, num_experts=64,
             num_experts_per_tok=8, vocab_size=50304, max_position_embeddings=4096,
             tie_word_embeddings=False)  # fmt: skip


def test_latent_attention():
    """DeepSeek-V3's report on hardware (2025), table 1: 70.272 KB a token; Qwen2.5 72B and Llama 3.1 405B beside it."""
    model = count(V3)
    assert sizing.kv_cache_bytes(model, 1) == 61 * (512 + 64) * 2 == 70_272
    assert sizing.kv_cache_bytes(load("Qwen2.5-72B"), 1) == 327_680
    assert sizing.kv_cache_bytes(load("Llama-3.1-405B"), 1) == 516_096
    price = sizing.cost(sizing.training_flops(model, 14.8e12, 4096)["exact"], sizing.device("h100"), price=2.0)["money"]
    assert price < 2 * sizing.cost(6 * 37e9 * 14.8e12, sizing.device("h100"), price=2.0)["money"]


def test_linear_and_full_attention_in_one_model():
    model = count(QWEN3_5)
    state = 48 * 128 * 128 + (2 * 16 * 128 + 48 * 128) * 4  # a linear layer's memory, and four places for its filter
    assert sizing.kv_cache_bytes(model, 1000) == 2 * (16 * 2 * 4 * 256 * 1000 + 48 * state)
    assert model.active == model.parameters - model.parts["other senses"], "no word passes what sees"
    assert 4.3e8 < model.parts["other senses"] < 5e8


def test_a_decoder_of_two_layers_under_an_encoder_of_32():
    model = count(WHISPER)
    assert round(model.parameters / 1e6) == 756 and model.n_layer == 2  # its model card: 756 M
    assert sizing.kv_cache_bytes(model, 448) == 2 * 2 * 2 * 1280 * (448 + 1500)


def test_windows_every_other_layer_and_weights_of_four_bits():
    """gpt-oss's model card: 12.8 and 60.8 GiB of checkpoint."""
    for made, stated in ((count(OSS), 12.8), (count(OSS_120B), 60.8)):
        assert made.quantized == "mxfp4"
        assert abs(sizing.inference_memory(made, 1, 100)["weights"] / 2**30 - stated) < 0.1
    model = count(OSS)
    assert sizing.kv_cache_bytes(model, 131072) == 2 * 2 * 8 * 64 * (12 * 128 + 12 * 131072)
    assert sizing.inference_memory(model, quantize="int8")["weights"] == model.parameters
    assert sizing.decode_seconds(model, sizing.device("h100"), 100) < 5e9 / 3350e9  # 8.4 GB in 16 bits


@pytest.mark.parametrize(
    ("how", "bits"),
    [(dict(quant_method="gptq", bits=4, group_size=128), 4 + 20 / 128),
     (dict(quant_method="gptq", bits=8, group_size=-1), 8),
     (dict(quant_method="awq", bits=4, group_size=64), 4 + 20 / 64),
     (dict(quant_method="fp8", weight_block_size=[128, 128]), 8 + 32 / 16384),
     (dict(quant_method="bitsandbytes", load_in_4bit=True), 4.5),
     (dict(quant_method="bitsandbytes", load_in_8bit=True), 8),
     (dict(quant_method="compressed-tensors", ignore=["lm_head"], config_groups=dict(group_0=dict(
         targets=["Linear"], weights=dict(num_bits=4, group_size=128)))), 4.125),
     (dict(quant_method="aqlm"), None), (dict(quant_method="gptq"), None), (dict(bits=4), None),
     (dict(quant_method="fp8", modules_to_not_convert=["model.layers.0.no_such"]), None),
     (dict(quant_method="fp8", ignored_layers=["lm_head", "re:("]), 8),
     (dict(quant_method="compressed-tensors", ignore=["re:(", "model.layers.0.mlp"], config_groups=dict(group_0=dict(
         targets=["Linear"], weights=dict(num_bits=4)))), None)],
)  # fmt: skip
def test_a_stored_form_counts_in_the_memory(how, bits):
    plain, stored = count(small_llama()), count(small_llama() | dict(quantization_config=how))
    told = sizing.inference_memory(stored, 1, 10)["weights"]
    if bits is None:
        assert told is None and stored.unknown and sizing.decode_seconds(stored, sizing.device("h100"), 9) is None
    else:
        blocks = plain.parts["attention"] + plain.parts["mlp"]
        assert told == blocks * bits / 8 + (plain.parameters - blocks) * 2


SPARED = {
    "fp8": (["model.layers.0.self_attn", "lm_head"], "modules_to_not_convert"),
    "fp8, by ends": (["mlp.down_proj"], "ignored_layers"), "fp8, expressions": (["re:.*layers.1.mlp.*"], "ignore"),
    "awq": (["model.layers.1.mlp.up_proj", "model.layers.0"], "modules_to_not_convert"),
}  # fmt: skip


@pytest.mark.parametrize("how", SPARED)
def test_layers_that_are_spared_count_in_full(how):
    """The bytes of tensors, made as the method stores them."""
    names, where = SPARED[how]
    four, block = how == "awq", 16
    told = dict(quant_method="fp8", weight_block_size=[16, 16])
    if four:
        told = dict(quant_method="awq", bits=4, group_size=16)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**small_llama()))
    nbytes = 0
    for name, parameter in model.named_parameters():
        spared = any(n in name for n in names) or ("layers.1.mlp" in name and "expressions" in how)
        if spared or parameter.ndim < 2 or "layers" not in name:
            stored = [parameter.to(torch.bfloat16)]
        elif four:  # out × in: eight weights a 32-bit word, a scale and eight zero points a group
            out, into = parameter.shape
            words = [torch.zeros(rows, out // 8, dtype=torch.int32) for rows in (into, into // block)]
            stored = [*words, torch.zeros(into // block, out, dtype=torch.float16)]
        else:
            scales = torch.zeros(parameter.shape[0] // block, parameter.shape[1] // block)
            stored = [parameter.to(torch.float8_e4m3fn), scales]
        nbytes += sum(tensor.nbytes for tensor in stored)
    made = count(small_llama() | dict(quantization_config=told | {where: names}))
    assert sizing.inference_memory(made, 1, 10)["weights"] == pytest.approx(nbytes)


def small_llama():
    return dict(model_type="llama", vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                num_attention_heads=4)  # fmt: skip


@pytest.mark.parametrize(
    ("made", "says"),
    [(dict(architectures=["BertForMaskedLM"], auto_map={"AutoModel": "bert_layers.BertModel"}, model_type="bert",
           alibi_starting_size=512, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
           num_attention_heads=12, vocab_size=4096), "code of its own"),  # DNABERT-2
     (dict(architectures=["GPT2LMHeadCustomModel"], auto_map={"AutoModelForCausalLM": "m.GPT2LMHeadCustomModel"},
           model_type="gpt2", attention_head_type="multiquery", n_embd=2048, n_head=16, n_layer=24),
      "GPT2LMHeadCustomModel"),  # SantaCoder
     (dict(architectures=["Qwen2ForRewardModel"], auto_map={"AutoModel": "m.Qwen2ForRewardModel"}, model_type="qwen2",
           hidden_size=8192, num_hidden_layers=80, num_attention_heads=64), "Qwen2ForRewardModel"),
     (dict(architectures=["LlavaLlamaForCausalLM"], **small_llama()), "LlavaLlamaForCausalLM"),
     (dict(architectures=["MistralForCausalLM"], **small_llama()), "of another"),
     (small_llama() | dict(auto_map={"AutoModelForCausalLM": "modeling_deci.DeciLMForCausalLM"}), "code of its own"),
     (small_llama() | dict(auto_map={"AutoModelForCausalLM": "m.LlamaForCausalLM"}, alibi=True), "code of its own"),
     (dict(model_type="llama", num_layers=80, n_head=64, hidden_dim=8192, vocab_size=32000, max_seq_len=2048,
           ffn_embed_dim=22016), "no hidden_size"),  # llm-analysis
     (dict(model_type="llama"), "no hidden_size"), (dict(model_type="gpt2", n_embd=64, n_head=4), "no n_layer"),
     (dict(model_type="bert", hidden_size=64, num_hidden_layers=2), "no num_attention_heads"),
     (dict(model_type="granite"), "no hidden_size"), (dict(model_type="deepseek_v3", vocab_size=9), "no hidden_size")],
)  # fmt: skip
def test_what_is_another_model_or_none_is_refused_by_one_line(made, says):
    with pytest.raises(CourseError, match=says) as refused:
        count(made)
    assert "\n" not in str(refused.value)


def test_code_that_comes_along_is_named_and_a_class_may_be_chosen():
    """Phi-3 and DeepSeek-V3 bring code of the name that transformers has for it."""
    for made in (V3 | dict(auto_map={"AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM"}),
                 small_llama() | dict(auto_map={"AutoModelForCausalLM": "m.LlamaForCausalLM"})):  # fmt: skip
        assert "is not run" in count(made).notes[0]
    odd = small_llama() | dict(auto_map={"AutoModel": "m.OtherModel"}, strange=3)
    chosen = count(odd, architecture="LlamaForCausalLM")
    assert chosen.parameters == count(small_llama()).parameters
    assert any("strange=3" in note for note in chosen.notes) and any("m.OtherModel" in note for note in chosen.notes)


def test_each_assumed_size_is_listed(tmp_path, capsys):
    assert count(small_llama()).assumed == dict(max_position_embeddings=2048)
    less = {k: v for k, v in small_llama().items() if k not in ("vocab_size", "intermediate_size")}
    assert count(less).assumed == dict(vocab_size=32000, intermediate_size=11008, max_position_embeddings=2048)
    granite = less | dict(model_type="granite", max_position_embeddings=64)
    assert count(granite).assumed == dict(vocab_size=32000, intermediate_size=11008)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(less))
    assert "vocab_size=32,000" in size(capsys, path) and size(capsys, path, "--json")["assumed"]["vocab_size"] == 32000


# What is published

T5S = dict(model_type="t5", feed_forward_proj="gated-gelu", tie_word_embeddings=False, vocab_size=32128, d_kv=64,
           architectures=["T5ForConditionalGeneration"])  # fmt: skip
MT5 = T5S | dict(model_type="mt5", vocab_size=250112, architectures=["MT5ForConditionalGeneration"])
EXACT = {  # the model pages' counts of their safetensors, to the digit
    "flan-t5-small": (T5S | dict(d_model=512, d_ff=1024, num_layers=8, num_heads=6), 76_961_152),
    "flan-t5-base": (T5S | dict(d_model=768, d_ff=2048, num_layers=12, num_heads=12), 247_577_856),
    "flan-t5-large": (T5S | dict(d_model=1024, d_ff=2816, num_layers=24, num_heads=16), 783_150_080),
    "flan-t5-xl": (T5S | dict(d_model=2048, d_ff=5120, num_layers=24, num_heads=32), 2_849_757_184),
    "flan-t5-xxl": (T5S | dict(d_model=4096, d_ff=10240, num_layers=24, num_heads=64), 11_135_332_352),
    "mt5-small": (MT5 | dict(d_model=512, d_ff=1024, num_layers=8, num_heads=6), 300_176_768),
    "mt5-base": (MT5 | dict(d_model=768, d_ff=2048, num_layers=12, num_heads=12), 582_401_280),
    "mt5-large": (MT5 | dict(d_model=1024, d_ff=2816, num_layers=24, num_heads=16), 1_229_581_312),
    "whisper-large-v3": (WHISPER | dict(decoder_layers=32), 1_543_490_560),
    "bart-base": (dict(model_type="bart", d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12,
                       decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072, vocab_size=50265,
                       max_position_embeddings=1024, architectures=["BartModel"]), 139_420_416),
    "mamba-130m": (dict(model_type="mamba", hidden_size=768, num_hidden_layers=24, vocab_size=50280, state_size=16,
                        intermediate_size=1536, time_step_rank=48), 129_135_360),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_published_counts_to_the_digit(name):
    made, stated = EXACT[name]
    assert count(made).parameters == stated


V2 = dict(model_type="deepseek_v2", hidden_size=5120, intermediate_size=12288, moe_intermediate_size=1536,
          num_hidden_layers=60, num_attention_heads=128, num_key_value_heads=128,
          q_lora_rank=1536, kv_lora_rank=512,
          qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=160, n_shared_experts=2,
          num_experts_per_tok=6, first_k_dense_replace=1, vocab_size=102400)  # fmt: skip
GLM = dict(model_type="glm4_moe", hidden_size=4096, intermediate_size=10944, moe_intermediate_size=1408,
           num_hidden_layers=46, num_attention_heads=96, num_key_value_heads=8, head_dim=128, n_routed_experts=128,
           num_experts_per_tok=8, n_shared_experts=1, first_k_dense_replace=1, vocab_size=151552,
           attention_bias=True)  # fmt: skip
GRANITE = dict(model_type="granitemoe", hidden_size=1024, intermediate_size=512, num_hidden_layers=24,
               num_attention_heads=16, num_key_value_heads=8, num_local_experts=32, num_experts_per_tok=8,
               vocab_size=49155, tie_word_embeddings=True)  # fmt: skip
LLAMA4 = dict(model_type="llama4_text", hidden_size=5120, intermediate_size=8192, intermediate_size_mlp=16384,
              num_hidden_layers=48, num_attention_heads=40, num_key_value_heads=8, head_dim=128, num_local_experts=16,
              num_experts_per_tok=1, interleave_moe_layer_step=1, vocab_size=202048)  # fmt: skip
# Billions: all, and met by one token; how near; whether the source leaves the embedding out, or the head as well.
STATED = {
    "DeepSeek-V3": (V3, 671, 37, 0.02, False, "arXiv:2412.19437, abstract"),
    "Kimi-K2": (V3 | dict(num_attention_heads=64, num_key_value_heads=64, n_routed_experts=384, first_k_dense_replace=1,
                          vocab_size=163840, n_group=1), 1026, 32.6, 0.02, False, "model card: 1T and 32B"),
    "DeepSeek-V2": (V2, 236, 21, 0.02, False, "arXiv:2405.04434, abstract"),
    "DeepSeek-V2-Lite": (V2 | dict(hidden_size=2048, intermediate_size=10944, moe_intermediate_size=1408,
                                   num_hidden_layers=27, num_attention_heads=16, num_key_value_heads=16,
                                   q_lora_rank=None, n_routed_experts=64), 15.7, 2.4, 0.03, True,
                         "arXiv:2405.04434, appendix B"),
    "Mixtral-8x7B": ("Mixtral-8x7B-v0.1", 46.7, 12.9, 0.01, False, "arXiv:2401.04088"),
    "Mixtral-8x22B": ("Mixtral-8x22B-v0.1", 141, 39, 0.01, False, "Mistral's announcement, April 2024"),
    "Qwen1.5-MoE-A2.7B": ("Qwen1.5-MoE-A2.7B", 14.3, 2.7, 0.02, False, "model card"),
    "Qwen2-57B-A14B": (dict(model_type="qwen2_moe", hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                            num_attention_heads=28, num_key_value_heads=4, num_experts=64, num_experts_per_tok=8,
                            moe_intermediate_size=2560, shared_expert_intermediate_size=20480, vocab_size=151936),
                       57.4, 14.2, 0.02, False, "arXiv:2407.10671, table 1: 57B and 14B"),
    "Qwen3-30B-A3B": ("Qwen3-30B-A3B", 30.5, 3.3, 0.02, False, "model card"),
    "Qwen3-235B-A22B": ("Qwen3-235B-A22B", 235, 22, 0.02, False, "model card"),
    "Qwen3-Coder-480B-A35B": (dict(model_type="qwen3_moe", hidden_size=6144, intermediate_size=8192, head_dim=128,
                                   num_hidden_layers=62, num_attention_heads=96, num_key_value_heads=8, num_experts=160,
                                   num_experts_per_tok=8, moe_intermediate_size=2560, vocab_size=151936),
                              480, 35, 0.02, False, "model card"),
    "OLMoE-1B-7B": (OLMOE, 6.9, 1.3, 0.02, False, "arXiv:2409.02060, table 1"),
    "gpt-oss-20b": (OSS, 20.91, 3.61, 0.003, True, "model card, table 1"),
    "gpt-oss-120b": (OSS_120B, 116.83, 5.13, 0.003, True, "model card, table 1"),
    "Phi-3.5-MoE": (dict(model_type="phimoe", hidden_size=4096, intermediate_size=6400, num_hidden_layers=32,
                         num_attention_heads=32, num_key_value_heads=8, num_local_experts=16, num_experts_per_tok=2,
                         vocab_size=32064, attention_bias=True, lm_head_bias=True), 41.9, 6.6, 0.01, False,
                    "arXiv:2404.14219: 16 × 3.8B, 6.6B active; model card"),
    "granite-3.0-1b-a400m": (GRANITE, 1.33, 0.4, 0.08, False, "model card"),
    "granite-3.0-3b-a800m": (GRANITE | dict(hidden_size=1536, num_hidden_layers=32, num_attention_heads=24,
                                            num_local_experts=40), 3.3, 0.88, 0.03, False, "model card: 3.3B and 800M"),
    "DBRX": (dict(model_type="dbrx", d_model=6144, n_heads=48, n_layers=40, vocab_size=100352, max_seq_len=32768,
                  attn_config=dict(kv_n_heads=8, clip_qkv=8, rope_theta=5e5),
                  ffn_config=dict(ffn_hidden_size=10752, moe_num_experts=16, moe_top_k=4)), 132, 36, 0.02, False,
             "Databricks' announcement, March 2024"),
    "JetMoE-8b": (dict(model_type="jetmoe", hidden_size=2048, num_hidden_layers=24, num_key_value_heads=16,
                       kv_channels=128, intermediate_size=5632, num_local_experts=8, num_experts_per_tok=2,
                       vocab_size=32000, tie_word_embeddings=True), 8.5, 2.2, 0.04, True, "arXiv:2404.07413"),
    "Jamba-v0.1": (dict(model_type="jamba", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                        num_attention_heads=32, num_key_value_heads=8, attn_layer_period=8, attn_layer_offset=4,
                        expert_layer_period=2, expert_layer_offset=1, num_experts=16, num_experts_per_tok=2,
                        mamba_d_state=16, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=256, vocab_size=65536),
                   52, 12, 0.02, False, "arXiv:2403.19887, section 3"),
    "GLM-4.5-Air": (GLM, 106, 12, 0.02, "head", "arXiv:2508.06471, table 1"),
    "GLM-4.5": (GLM | dict(hidden_size=5120, intermediate_size=12288, moe_intermediate_size=1536, num_hidden_layers=92,
                           n_routed_experts=160, first_k_dense_replace=3, use_qk_norm=True), 355, 32, 0.02, "head",
                "arXiv:2508.06471, table 1"),
    "ERNIE-4.5-21B-A3B": (dict(model_type="ernie4_5_moe", hidden_size=2560, intermediate_size=12288,
                               moe_intermediate_size=1536, num_hidden_layers=28, num_attention_heads=20,
                               num_key_value_heads=4, moe_num_experts=64, moe_k=6, moe_num_shared_experts=2,
                               moe_layer_start_index=1, vocab_size=103424, tie_word_embeddings=True), 21.8, 3, 0.05,
                          True, "model card: 21B and 3B"),
    "dots.llm1": (GLM | dict(model_type="dots1", num_hidden_layers=62, num_attention_heads=32, num_key_value_heads=32,
                             num_experts_per_tok=6, n_shared_experts=2, vocab_size=152064, attention_bias=False),
                  142, 14, 0.02, False, "arXiv:2506.05767"),
    "Hunyuan-A13B": (dict(model_type="hunyuan_v1_moe", hidden_size=4096, intermediate_size=3072, num_hidden_layers=32,
                          num_attention_heads=32, num_key_value_heads=8, head_dim=128, num_experts=64, moe_topk=8,
                          vocab_size=128167, tie_word_embeddings=True), 80, 13, 0.02, False, "model card"),
    "MiniMax-M2": (dict(model_type="minimax_m2", hidden_size=3072, intermediate_size=1536, num_hidden_layers=62,
                        num_attention_heads=48, num_key_value_heads=8, head_dim=128, num_local_experts=256,
                        num_experts_per_tok=8, vocab_size=200064), 230, 10, 0.03, "head", "model card"),
    "Llama-4-Scout": (LLAMA4, 107.8, 17.2, 0.01, False, "model card: 109B with what sees, 17B active"),
    "Llama-4-Maverick": (LLAMA4 | dict(num_local_experts=128, interleave_moe_layer_step=2), 400, 17.2, 0.01, False,
                         "model card: 400B and 17B"),
    "Qwen3-Next-80B-A3B": (dict(model_type="qwen3_next", hidden_size=2048, intermediate_size=5120, head_dim=256,
                                num_hidden_layers=48, num_attention_heads=16, num_key_value_heads=2, num_experts=512,
                                num_experts_per_tok=10, moe_intermediate_size=512, linear_conv_kernel_dim=4,
                                shared_expert_intermediate_size=512, linear_num_key_heads=16, vocab_size=151936,
                                linear_num_value_heads=32, linear_key_head_dim=128, linear_value_head_dim=128),
                           80, 3.6, 0.02, True, "model card: 80B and 3B"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_published_totals_and_active_parameters(name):
    made, total, active, near, without, source = STATED[name]
    model = count(made) if isinstance(made, dict) else load(made)
    left_out = dict(head=("embedding", "head")).get(without, ("embedding",) if without else ())
    met = model.active - sum(model.parts[part] for part in left_out)
    assert source and abs(model.parameters / total / 1e9 - 1) <= near, model.parameters
    assert abs(met / active / 1e9 - 1) <= near, met


def test_published_caches():
    """Jamba's paper, table 1: 4 GB for 256K tokens, where Mixtral takes 32; DeepSeek-V2's, section 2.1.4."""
    jamba = count(STATED["Jamba-v0.1"][0])
    assert 4 <= sizing.kv_cache_bytes(jamba, 2**18) / 2**30 < 4.02
    assert sizing.kv_cache_bytes(load("Mixtral-8x7B-v0.1"), 2**18) == 32 * 2**30
    assert sizing.kv_cache_bytes(count(V2), 1) == 60 * (512 + 64) * 2
    assert sizing.kv_cache_bytes(count(WHISPER | dict(decoder_layers=32)), 1) == 2 * 32 * 2 * 1280 * 1501
