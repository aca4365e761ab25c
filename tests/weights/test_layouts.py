"""Folders as people publish them, made small by transformers itself: each computes what transformers computes, or is
refused by one line that names the reason."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.errors import CourseError
from lib.weights import pretrained

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = dict(vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=48)  # fmt: skip
GPT2 = dict(vocab_size=61, n_positions=48, n_embd=32, n_layer=2, n_head=4)


def write(folder, family, *, shards=False, dtype=None, kind=None, **fields):
    """A random model of a family, saved by transformers."""
    config = transformers.AutoConfig.for_model(family, **fields)
    torch.manual_seed(0)
    made = (kind or transformers.AutoModelForCausalLM).from_config(config) if kind is None else kind(config)
    for parameter in made.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    made.tie_weights()
    made = made.to(dtype) if dtype else made
    made.save_pretrained(folder, **(dict(max_shard_size="12KB") if shards else {}))
    return made


def config(folder, *without, **fields):
    """Change config.json: take fields out, put others in."""
    path = folder / "config.json"
    said = {k: v for k, v in json.loads(path.read_text()).items() if k not in without} | fields
    path.write_text(json.dumps(said))


def weights(folder, change):
    """Change the tensors of model.safetensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v.contiguous() for k, v in (change(tensors) or tensors).items()}, path, metadata={"format": "pt"})


# What is read, and equals transformers


def gpt2(f):
    """The hub's: no `transformer.` before the names, and the mask stored beside the weights."""
    write(f, "gpt2", **GPT2)
    config(f, "dtype", "tie_word_embeddings", n_ctx=48, task_specific_params={"text-generation": {"max_length": 50}})
    mask = torch.ones(1, 1, 48, 48).tril()
    weights(f, lambda t: {k.removeprefix("transformer."): v for k, v in t.items()}
            | {"h.0.attn.bias": mask, "h.1.attn.bias": mask.clone(), "h.0.attn.masked_bias": torch.tensor(-1e4)})


def distilgpt2(f):
    write(f, "gpt2", **GPT2 | dict(n_layer=1))
    config(f, _num_labels=1, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0}, finetuning_task=None)


def gpt2_in_shards(f):
    write(f, "gpt2", shards=True, **GPT2)
    assert (f / "model.safetensors.index.json").exists()


def gpt2_untied(f):
    write(f, "gpt2", **GPT2, tie_word_embeddings=False)


def gpt2_other_widths(f):
    write(f, "gpt2", **GPT2, n_inner=50, activation_function="gelu", reorder_and_upcast_attn=True)


def llama_of_2023(f):
    """Angles in the file, rope_theta at the top."""
    write(f, "llama", **SIZES)
    config(f, "rope_parameters", "dtype", "head_dim", rope_theta=10000.0, rope_scaling=None, pretraining_tp=1,
           max_sequence_length=48, torch_dtype="float16")  # fmt: skip
    weights(f, lambda t: t | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)})


def llama_bfloat16(f):
    write(f, "llama", dtype=torch.bfloat16, **SIZES, num_key_value_heads=2)


def llama_float16_in_shards(f):
    write(f, "llama", shards=True, dtype=torch.float16, **SIZES)


def llama_of_two_precisions(f):
    write(f, "llama", **SIZES)
    weights(f, lambda t: {k: v if "norm" in k else v.bfloat16() for k, v in t.items()})


def llama_bare(f):
    """Of the class without a head, which is the embedding."""
    write(f, "llama", kind=transformers.LlamaModel, **SIZES, tie_word_embeddings=True)


def llama_head_stored_twice(f):
    write(f, "llama", **SIZES, tie_word_embeddings=True)
    weights(f, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})


def llama_with_biases(f):
    write(f, "llama", **SIZES, attention_bias=True, mlp_bias=True)


def llama_beside_old_shards(f):
    """transformers reads the one whole file."""
    write(f, "llama", shards=True, **SIZES)
    new = f / "new"
    torch.manual_seed(7)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(new)
    shutil.copy(new / "model.safetensors", f)


def tinyllama(f):
    write(f, "llama", **SIZES, num_key_value_heads=1, rms_norm_eps=1e-5)


def yi(f):
    write(f, "llama", **SIZES, num_key_value_heads=2, rope_parameters=dict(rope_type="default", rope_theta=5e6))
    config(f, rope_theta=5e6)


def smollm2(f):
    write(f, "llama", **SIZES, num_key_value_heads=2, tie_word_embeddings=True)
    config(f, is_llama_config=True, rope_interleaved=False, **{"transformers.js_config": {"dtype": "q4"}})


def mistral_with_a_window(f):
    write(f, "mistral", **SIZES, num_key_value_heads=2, sliding_window=5)


def mistral_without_one(f):
    write(f, "mistral", **SIZES, num_key_value_heads=2, sliding_window=None)


def mistral_nemo(f):
    write(f, "mistral", **SIZES, num_key_value_heads=2, sliding_window=None, head_dim=16)


def qwen2_tied(f):
    write(f, "qwen2", **SIZES, num_key_value_heads=2, tie_word_embeddings=True, rope_theta=1e6)
    config(f, "layer_types", use_sliding_window=False, sliding_window=32, max_window_layers=1, use_mrope=False)


def qwen2_5(f):
    write(f, "qwen2", **SIZES, num_key_value_heads=2)


def qwen2_all_layers_slide(f):
    write(f, "qwen2", **SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=4, max_window_layers=0)


SAME = [gpt2, distilgpt2, gpt2_in_shards, gpt2_untied, gpt2_other_widths, llama_of_2023, llama_bfloat16,
        llama_float16_in_shards, llama_of_two_precisions, llama_bare, llama_head_stored_twice, llama_with_biases,
        llama_beside_old_shards, tinyllama, yi, smollm2, mistral_with_a_window, mistral_without_one, mistral_nemo,
        qwen2_tied, qwen2_5, qwen2_all_layers_slide]  # fmt: skip
TOKENS = torch.randint(61, (2, 30), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", SAME, ids=lambda layout: layout.__name__)
def test_it_computes_what_transformers_computes(layout, tmp_path):
    layout(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        assert (pretrained.load(tmp_path)(TOKENS) - theirs(TOKENS).logits).abs().max() <= 1e-4


# What is refused


def plain(f):
    write(f, "llama", **SIZES, num_key_value_heads=2)


def with_field(**fields):
    def make(f):
        plain(f)
        config(f, **fields)

    return make


def with_tensors(change, **fields):
    def make(f):
        plain(f)
        weights(f, change)
        config(f, **fields)

    return make


def of(family, **fields):
    return lambda f: write(f, family, **SIZES | fields)


def quantised(t):
    return {k: v.to(torch.int8) if "proj" in k else v for k, v in t.items()}


def fp8(t):
    return {k: v.to(torch.float8_e4m3fn) if "proj" in k else v for k, v in t.items()}


def scaled(kind, suffix):
    return lambda t: kind(t) | {k.replace(".weight", suffix): torch.ones(1) for k in t if "proj" in k}


def gptq(t):
    return {k.replace(".weight", ".qweight") if "proj" in k else k: v for k, v in t.items()}


def tied_with_another_head(f):
    plain(f)
    config(f, tie_word_embeddings=True)


def pickled(f):
    plain(f)
    torch.save(load_file(f / "model.safetensors"), f / "pytorch_model.bin")
    (f / "model.safetensors").unlink()


def half_slide(f):
    write(f, "qwen2", **SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=4, max_window_layers=1)


def a_tensor_twice(f):
    write(f, "llama", shards=True, **SIZES)
    first, *_, last = sorted(f.glob("model-*.safetensors"))
    save_file(load_file(last) | load_file(first), last)


LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)  # fmt: skip
REFUSED = {
    "qwen3": (of("qwen3", head_dim=8, num_key_value_heads=2), "'qwen3' is not supported"),
    "gemma": (of("gemma", head_dim=8, num_key_value_heads=2), "'gemma'"),
    "gemma2": (of("gemma2", head_dim=8, num_key_value_heads=2), "'gemma2'"),
    "phi": (of("phi"), "'phi'"),
    "phi3": (of("phi3", pad_token_id=0), "'phi3'"),
    "olmo": (of("olmo"), "'olmo'"),
    "gpt-neo": (lambda f: write(f, "gpt_neo", vocab_size=61, hidden_size=32, num_layers=2, num_heads=4,
                                attention_types=[[["global", "local"], 1]]), "'gpt_neo'"),
    "falcon": (of("falcon"), "'falcon'"),
    "pythia": (of("gpt_neox"), "'gpt_neox'"),
    "opt": (of("opt", ffn_dim=40, word_embed_proj_dim=32), "'opt'"),
    "bloom": (lambda f: write(f, "bloom", vocab_size=61, hidden_size=32, n_layer=2, n_head=4), "'bloom'"),
    "mixtral": (of("mixtral", num_local_experts=2, num_key_value_heads=2), "'mixtral'"),
    "santacoder": (lambda f: write(f, "gpt_bigcode", **GPT2), "'gpt_bigcode'"),
    "llama-3.1": (of("llama", rope_parameters=LLAMA3), "rotary scaling 'llama3'"),
    "longchat": (with_field(rope_parameters=None, rope_scaling=dict(type="linear", factor=2.0)), "'linear'"),
    "scaling beside parameters": (with_field(rope_scaling=dict(type="dynamic", factor=2.0)), "'dynamic'"),
    "two bases": (with_field(rope_theta=5e5), "two rotary bases"),
    "part of a head turns": (with_field(rope_parameters=dict(rope_theta=1e4, partial_rotary_factor=0.5)),
                             "partial_rotary_factor"),
    "multipliers": (with_field(embedding_multiplier=12.0), "embedding_multiplier is 12.0"),
    "soft caps": (with_field(final_logit_softcapping=30.0), "final_logit_softcapping"),
    "experts": (with_field(num_local_experts=8), "num_local_experts is 8"),
    "code of its own": (with_field(auto_map={"AutoModelForCausalLM": "modeling_x.XForCausalLM"}), "auto_map"),
    "another class": (with_field(architectures=["LlamaForSequenceClassification"]), "LlamaForSequenceClassification"),
    "layers that slide": (with_field(layer_types=["sliding_attention"] * 2), "layer_types"),
    "linear layers": (with_field(layer_types=["linear_attention"] * 2), "'linear_attention'"),
    "qwen2, half of it slides": (half_slide, "mixed"),
    "fp8": (with_tensors(scaled(fp8, ".weight_scale"), quantization_config=dict(quant_method="fp8")),
            "quantization_config"),
    "fp8, config silent": (with_tensors(scaled(fp8, ".weight_scale")), "float8_e4m3fn: quantised"),
    "int8 of bitsandbytes": (with_tensors(scaled(quantised, ".SCB")), "int8: quantised"),
    "scales beside floats": (with_tensors(scaled(dict, ".weight_scale")), "weight_scale"),
    "gptq": (with_tensors(gptq), "lack 'model.layers.0"),
    "another head": (tied_with_another_head, "another lm_head.weight"),
    "norms of queries": (with_tensors(lambda t: t | {"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}),
                         "q_norm.weight', which is not understood"),
    "biases that the config denies": (with_tensors(lambda t: t | {"model.layers.0.mlp.up_proj.bias": torch.ones(40)}),
                                      "up_proj.bias"),
    "a layer too many": (with_field(num_hidden_layers=1), "layers.1."),
    "a head of its own": (with_tensors(lambda t: t | {"score.weight": torch.ones(2, 32)}), "score.weight"),
    "compiled": (with_tensors(lambda t: {f"_orig_mod.{k}": v for k, v in t.items()}), "lack"),
    "pickled": (pickled, "as safetensors, for a .bin"),
    "a tensor twice": (a_tensor_twice, "in two files"),
    "gpt2 that listens": (lambda f: write(f, "gpt2", **GPT2, add_cross_attention=True), "add_cross_attention"),
    "gpt2 with two heads": (lambda f: write(f, "gpt2", kind=transformers.GPT2DoubleHeadsModel, **GPT2),
                            "GPT2DoubleHeadsModel"),
    "gpt2, scaled by layer": (lambda f: write(f, "gpt2", **GPT2, scale_attn_by_inverse_layer_idx=True), "unusual"),
}  # fmt: skip


@pytest.mark.parametrize("layout", REFUSED)
def test_it_is_refused_by_one_line(layout, tmp_path):
    make, says = REFUSED[layout]
    make(tmp_path)
    with pytest.raises(CourseError) as refused:
        pretrained.load(tmp_path)
    assert says in str(refused.value) and "\n" not in str(refused.value), refused.value


# What we save


def test_what_is_saved_is_the_same_model_whatever_lay_there(tmp_path):
    """Shards, another precision, an adapter, a pickle, other ends and a window of an older model."""
    ours = []
    for family, fields in (("llama", SIZES), ("gpt2", GPT2), ("qwen2", SIZES | dict(num_key_value_heads=2))):
        folder = tmp_path / family
        write(folder, family, **fields)
        ours.append(pretrained.load(folder))
    there = tmp_path / "there"
    old = write(there, "mistral", shards=True, **SIZES | dict(num_key_value_heads=2, sliding_window=3, eos_token_id=5))
    old.generation_config.update(eos_token_id=5, suppress_tokens=list(range(30)))
    for i, model in enumerate(ours):
        old.save_pretrained(there, max_shard_size="12KB")
        old.generation_config.save_pretrained(there)
        (there / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "nowhere"}')
        torch.save({}, there / "pytorch_model.bin")
        (there / "tokenizer.json").write_text("kept")
        pretrained.save(model, there)
        assert {path.name for path in there.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
        (there / "tokenizer.json").unlink()
        theirs = transformers.AutoModelForCausalLM.from_pretrained(there).eval()
        with torch.no_grad():
            assert torch.allclose(theirs(TOKENS).logits, model(TOKENS), atol=1e-4), i
            assert torch.equal(pretrained.load(there)(TOKENS), model(TOKENS))
        said = json.loads((there / "config.json").read_text())
        assert said["eos_token_id"] is said["bos_token_id"] is None
        assert theirs.generation_config.eos_token_id is None and theirs.generation_config.suppress_tokens is None


def test_a_folder_cut_off_while_it_is_saved_is_no_model(tmp_path, monkeypatch):
    from pathlib import Path

    write(tmp_path, "llama", shards=True, **SIZES)
    model = pretrained.load(tmp_path)
    real, left = Path.replace, []

    def replace(self, target):
        if len(left) == 1:
            raise KeyboardInterrupt
        left.append(target)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        pretrained.save(model, tmp_path)
    with pytest.raises(CourseError, match=r"no config\.json"):
        pretrained.load(tmp_path)


def test_heads_that_do_not_divide_the_width_are_saved_as_what_transformers_opens(tmp_path):
    from lib.transformer import Config, Transformer

    model = Transformer(Config.llama(vocab_size=61, block_size=48, n_layer=1, n_head=3, d_model=32, head_dim=8)).eval()
    pretrained.save(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(theirs(TOKENS).logits, model(TOKENS), atol=1e-4)
