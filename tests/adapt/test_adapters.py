"""Adapters to and from peft, and clear refusals of those that do not fit."""

import json

import pytest
import torch
from adapted import stirred, tiny

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
