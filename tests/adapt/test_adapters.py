"""Adapters to and from peft, and clear refusals of those that do not fit."""

import json

import pytest
import torch
from adapted import stirred, tiny
from safetensors.torch import load_file, save_file

from lib.adapt.adapters import load_adapter, save_adapter
from lib.adapt.lora import MATRICES, TARGETS, add_lora, lora_layers
from lib.errors import CourseError
from lib.weights import pretrained

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # peft asks transformers the old way
]


def test_saved_and_loaded_adapters_compute_the_same(tmp_path, tokens):
    model = stirred(add_lora(tiny(), rank=4, alpha=12))
    save_adapter(model, tmp_path / "full")
    save_adapter(model, tmp_path / "half", half=True)
    again, half = load_adapter(tiny(), tmp_path / "full"), load_adapter(tiny(), tmp_path / "half")
    with torch.no_grad():
        assert torch.equal(again(tokens), model(tokens))
        assert torch.allclose(half(tokens), model(tokens), atol=1e-2)
    files = [path / "adapter_model.safetensors" for path in (tmp_path / "half", tmp_path / "full")]
    assert files[0].stat().st_size < 0.75 * files[1].stat().st_size


def test_an_adapter_of_a_very_narrow_base_comes_back(tmp_path, tokens):
    model = stirred(add_lora(tiny(d_model=8)))
    save_adapter(model, tmp_path)
    assert torch.equal(load_adapter(tiny(d_model=8), tmp_path)(tokens), model(tokens))


@pytest.fixture
def theirs(tmp_path):
    """Our tiny base as a transformers model."""
    transformers = pytest.importorskip("transformers")
    pretrained.save(tiny(), tmp_path / "base")
    return transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()


def test_our_adapter_in_peft(tmp_path, theirs, tokens):
    peft = pytest.importorskip("peft")
    for targets, first in ((TARGETS, 0), (MATRICES, 1), (("v",), 0)):
        ours = stirred(add_lora(tiny(), rank=4, alpha=12, targets=targets, first=first))
        assert len(lora_layers(ours)) == (2 - first) * len(targets)
        folder = tmp_path / "-".join(targets)
        save_adapter(ours, folder, base="tiny")
        loaded = peft.PeftModel.from_pretrained(theirs, folder)
        with torch.no_grad():
            assert torch.allclose(loaded(tokens).logits, ours(tokens), atol=1e-4)
            assert not torch.allclose(loaded(tokens).logits, tiny()(tokens), atol=1e-2)
        theirs = loaded.unload()


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_s_adapter_in_ours(tmp_path, theirs, tokens, rslora):
    peft = pytest.importorskip("peft")
    names = ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"]
    about = peft.LoraConfig(r=4, lora_alpha=10, target_modules=names, use_rslora=rslora, task_type="CAUSAL_LM")
    torch.manual_seed(3)
    model = peft.get_peft_model(theirs, about)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2)
        model.save_pretrained(tmp_path / "adapter")
        ours = load_adapter(tiny(), tmp_path / "adapter")
        assert torch.allclose(ours(tokens), model.eval()(tokens).logits, atol=1e-4)


def test_an_adapter_for_another_base_is_refused(tmp_path, tokens):
    save_adapter(stirred(add_lora(tiny())), tmp_path)
    other_weights = tiny()
    with torch.no_grad():
        other_weights.embedding.weight.add_(0.1)
    for model, says in (
        (tiny(d_model=64), "another base model.*shapes"),
        (tiny(n_layer=1), "another base model: it has"),
        (other_weights, "other base weights"),
        (add_lora(tiny()), "has LoRA already"),
    ):
        before = model(tokens)
        with pytest.raises(CourseError, match=says):
            load_adapter(model, tmp_path)
        assert torch.equal(model(tokens), before)


def test_damaged_and_strange_adapters_are_refused(tmp_path):
    save_adapter(add_lora(tiny()), tmp_path)
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    about, whole = json.loads(config.read_text()), weights.read_bytes()

    def refused(says):
        with pytest.raises(CourseError, match=says) as error:
            load_adapter(tiny(), tmp_path)
        assert "\n" not in str(error.value)

    for change, says in (
        (dict(peft_type="IA3"), "kind 'IA3'"),
        (dict(use_dora=True), "use_dora"),
        (dict(bias="all"), "biases"),
        (dict(rank_pattern={"q_proj": 2}), "rank_pattern"),
        (dict(r="many"), "no whole adapter"),
        (dict(r=4), "another base model"),
    ):
        config.write_text(json.dumps(about | change))
        refused(says)
    for text in ("[]", "{", '{"r": 8}'):
        config.write_text(text)
        refused("no whole adapter")
    config.write_text(json.dumps(about))
    weights.write_bytes(whole[:-40])
    refused("no whole adapter")
    weights.unlink()
    refused("adapter_model.safetensors")
    config.unlink()
    refused("adapter_config.json")


def test_a_model_without_lora_has_nothing_to_save():
    with pytest.raises(CourseError, match="no LoRA to save"):
        save_adapter(tiny(), "nowhere")


STARTS = [True, "gaussian", "eva", "orthogonal", "pissa", "pissa_niter_2", "olora"]


@pytest.mark.parametrize("start", STARTS)
def test_however_it_began_it_is_peft_s_or_refused(tmp_path, theirs, tokens, start):
    """PiSSA and OLoRA take out of the base weights what they begin with, so the base alone is another model."""
    peft = pytest.importorskip("peft")
    about = dict(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    about["init_lora_weights"] = True if start == "eva" else start  # eva wants data to begin with
    torch.manual_seed(3)
    made = peft.get_peft_model(theirs, peft.LoraConfig(**about))
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "lora_" in name:
                p.add_(0.1 * torch.randn_like(p))
    made.save_pretrained(tmp_path / "adapter")
    if start == "eva":
        path = tmp_path / "adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(init_lora_weights="eva")))
    if start in STARTS[4:]:
        with pytest.raises(CourseError, match=f"init_lora_weights '{start}'") as refused:
            load_adapter(tiny(), tmp_path / "adapter")
        assert "\n" not in str(refused.value)
        return
    with torch.no_grad():
        assert torch.allclose(load_adapter(tiny(), tmp_path / "adapter")(tokens), made.eval()(tokens).logits, atol=1e-4)


def test_what_an_adapter_says_and_is_not_understood_is_refused_by_name(tmp_path):
    save_adapter(add_lora(tiny()), tmp_path)
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    about = json.loads(config.read_text())
    for field, value in {
        "use_qalora": True, "layer_replication": [[0, 2], [1, 2]], "lora_bias": True,
        "target_parameters": ["mlp.experts"], "trainable_token_indices": [3], "corda_config": {"a": 1},
        "alpha_pattern": {"q_proj": 3},
        "modules_to_save": ["lm_head"], "use_bdlora": {"a": 1}, "alora_invocation_tokens": [1, 2], "of_next_year": 0.5,
    }.items():  # fmt: skip
        config.write_text(json.dumps(about | {field: value}))
        with pytest.raises(CourseError, match=f"uses {field}, which is not supported"):
            load_adapter(tiny(), tmp_path)
    config.write_text(json.dumps(about | dict(loftq_config={}, qalora_group_size=16, megatron_core="megatron.core")))
    load_adapter(tiny(), tmp_path)
    tensors = load_file(weights)
    whole, half = ({k: v.to(dtype) for k, v in tensors.items()} for dtype in (torch.int8, torch.bfloat16))
    dora = tensors | {k.replace("lora_A.weight", "lora_magnitude_vector"): v for k, v in tensors.items()}
    for changed, says in ((whole, "stored as int8"), (dora, "lora_magnitude_vector"), (half, None)):
        save_file({k: v.contiguous().clone() for k, v in changed.items()}, weights)
        if says is None:
            load_adapter(tiny(), tmp_path)
            continue
        with pytest.raises(CourseError, match=says):
            load_adapter(tiny(), tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_takes_an_adapter(tmp_path, tokens, dtype):
    model = stirred(add_lora(tiny(), rank=4))
    save_adapter(model, tmp_path)
    half = load_adapter(tiny().to(dtype), tmp_path)
    with torch.no_grad():
        assert torch.allclose(half(tokens).float(), model(tokens), atol=0.15, rtol=0.1)
