"""Published figures, each within its tolerance, and what must hold of any estimate."""

import dataclasses
import importlib.util
import math
import os
from pathlib import Path

import pytest

from lib.decide import sizing
from lib.decide.counting import Cache, Pair, count, load
from lib.decide.sizing import (
    chinchilla_flops,
    cost,
    decode_seconds,
    device,
    devices,
    forward_flops,
    inference_memory,
    kv_cache_bytes,
    lora_parameters,
    prefill_seconds,
    serving_cost,
    training_flops,
    training_memory,
    weight_bytes,
)
from lib.errors import CourseError


def near(value, stated, tolerance):
    """Within a share of what was stated; the share is counted from the stated figure."""
    assert abs(value / stated - 1) <= tolerance, f"{value:.4g} is not within {tolerance:.0%} of {stated:.4g}"


GPT3 = dict(model_type="gpt2", n_embd=12288, n_layer=96, n_head=96, n_positions=2048, vocab_size=50257)
# Multi-query attention, a gated MLP of 4 D, one norm a layer, tied embedding: Falcon's shape but for the gate.
PALM = dict(model_type="llama", hidden_size=18432, intermediate_size=73728, num_hidden_layers=118,
            num_attention_heads=48, num_key_value_heads=1, head_dim=256, vocab_size=256000,
            max_position_embeddings=2048, tie_word_embeddings=True)  # fmt: skip

# Training compute


def test_training_compute_as_published():
    """Brown et al. 2020, table D.1; Chowdhery et al. 2022 (540 B on 780 B tokens); Llama 3's report, section 1."""
    near(training_flops(count(GPT3), 300e9)["six_nd"], 3.14e23, 0.02)
    palm = count(PALM)
    near(palm.parameters, 540.35e9, 0.001)
    near(training_flops(palm, 780e9)["palm"], 2.56e24, 0.02)
    near(training_flops(palm, 780e9)["exact"], 2.56e24, 0.02)
    near(training_flops(load("Llama-3.1-405B"), 15.6e12)["six_nd"], 3.8e25, 0.02)


def test_training_compute_of_chinchilla():
    """Table 4's shape and appendix F's count against Gopher's budget, 5.76e23, for 1.4 T tokens."""
    chinchilla = chinchilla_flops(L=80, D=8192, F=32768, H=64, Dh=128, V=32000, T=2048)
    near(chinchilla * 1.4e12 / 2048, 5.76e23, 0.02)


def test_exact_flops_by_hand():
    model = count(dict(model_type="llama", vocab_size=10, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True))  # fmt: skip
    matrices = 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 12) + 8 * 10  # the tied head multiplies, the embedding does not
    assert forward_flops(model, 5) == 2 * matrices + 2 * 4 * 4 * 2 * 5
    assert training_flops(model, 7, 5)["exact"] == 3 * 7 * forward_flops(model, 5)
    assert training_flops(model, 7, 5)["six_nd"] == 6 * model.parameters * 7


def test_a_window_bounds_attention_and_experts_rest():
    mistral = load("Mistral-7B-v0.1")
    assert sizing.attention_flops(mistral, 32768) == sizing.attention_flops(mistral, 4096)
    mixtral = load("Mixtral-8x7B-v0.1")
    near(mixtral.active, 12.9e9, 0.01)  # Jiang et al. 2024: 13 B active of 47 B
    near(load("Qwen3-30B-A3B").active, 3.3e9, 0.02)  # its model card
    assert forward_flops(mixtral) < 2 * mixtral.active


# Memory

ZERO = {  # Rajbhandari et al. 2020, table 1 and figure 1: GB a device for 7.5 B, 128 B and 1 T, by stage
    1: [(120, 2048, 16000), (52.5, 896, 7000), (35.6, 608, 4750), (31.4, 536, 4187),
        (30.4, 518, 4046), (30.1, 513, 4011)],
    2: [(120, 2048, 16000), (41.3, 704, 5500), (21.6, 368, 2875), (16.6, 284, 2218),
        (15.4, 263, 2054), (15.1, 257, 2013)],
    3: [(120, 2048, 16000), (30, 512, 4000), (7.5, 128, 1000), (1.88, 32, 250), (0.47, 8, 62.5), (0.12, 2, 15.6)],
}  # fmt: skip


@pytest.mark.parametrize("stage", ZERO)
def test_the_zero_papers_table(stage):
    for row, count_of in zip(ZERO[stage], (1, 4, 16, 64, 256, 1024), strict=True):
        for stated, size in zip(row, (7.5e9, 128e9, 1e12), strict=True):
            model = sizing_model(size)
            found = training_memory(model, zero=stage, devices=count_of)
            states = (found["weights"] + found["gradients"] + found["optimizer"]) / 1e9
            last_digit = 0.005 if stated < 10 and stated != int(stated) else 0.05 if stated < 100 else 0.5
            assert abs(states - stated) <= max(0.02 * stated, last_digit), (stage, count_of, size)


def sizing_model(parameters: float):
    """A model of so many parameters, nothing else known of it."""
    from lib.decide.counting import Model

    return Model("test", "llama", "LlamaForCausalLM", "decoder", 1, 1, 1, 1, 1, 1, 1, 1, {"all": int(parameters)}, 1)


@pytest.mark.parametrize(
    ("D", "L", "rank", "matrices", "stated", "tolerance"),
    [(12288, 96, 1, 2, 4.7e6, 0.01), (12288, 96, 8, 2, 37.7e6, 0.01), (12288, 96, 4, 2, 18.9e6, 0.01),
     (12288, 96, 2, 4, 18.9e6, 0.01), (12288, 96, 64, 2, 301.9e6, 0.01), (768, 12, 8, 2, 0.3e6, 0.02),
     (1024, 24, 8, 2, 0.8e6, 0.02), (1536, 48, 16, 2, 4.7e6, 0.01)],
)  # fmt: skip
def test_loras_trainable_parameters(D, L, rank, matrices, stated, tolerance):
    """Hu et al. 2021, tables 2, 4, 15 and 18: GPT-3, then RoBERTa base and large, and DeBERTa XXL."""
    near(lora_parameters(D, L, rank, matrices), stated, tolerance)


@pytest.mark.parametrize(
    ("name", "context", "stated"),
    [("opt-13b", 1, 800 * 1024),  # Kwon et al. 2023, section 3: 800 KB a token
     ("Llama-2-7b-hf", 4096, 2 * 1024**3),  # MHA; NVIDIA's "Mastering LLM techniques", 2023: about 2 GB
     ("Llama-2-70b-hf", 1, 2 * 80 * 8 * 128 * 2), ("Mistral-7B-v0.3", 32768, 4 * 1024**3),
     ("Llama-3.1-8B", 1024, 0.125 * 1024**3), ("Llama-3.1-8B", 16_000, 1.95 * 1024**3),
     ("Llama-3.1-8B", 128_000, 15.62 * 1024**3), ("Llama-3.1-70B", 1024, 0.313 * 1024**3),
     ("Llama-3.1-70B", 16_000, 4.88 * 1024**3), ("Llama-3.1-70B", 128_000, 39.06 * 1024**3)],
)  # fmt: skip
def test_kv_cache_as_published(name, context, stated):
    """The Llama 3.1 figures: Hugging Face's announcement, table of cache sizes in 16 bits."""
    near(kv_cache_bytes(load(name), context), stated, 0.01)


def test_a_window_bounds_the_cache():
    assert kv_cache_bytes(load("Mistral-7B-v0.1"), 32768) == kv_cache_bytes(load("Mistral-7B-v0.3"), 4096)
    gemma = load("gemma-3-1b-pt")  # five layers of 512 places for one of all
    assert kv_cache_bytes(gemma, 32768) == 2 * 256 * 2 * (22 * 512 + 4 * 32768)
    assert kv_cache_bytes(load("bert-base-uncased"), 512) == 0


def test_quantized_weights():
    assert weight_bytes(1e9, "bfloat16") == 2e9 and weight_bytes(1e9, quantize="int8") == 1e9
    assert weight_bytes(3200, quantize="int4") == 3200 / 2 + 100 * 2  # a 16-bit scale for each 32
    assert weight_bytes(1280, quantize="int4", group=128) == 640 + 10 * 2


def test_each_saving_saves():
    model = load("Llama-3.1-8B")
    full = training_memory(model, 4, 4096, devices=8)
    for stage in (1, 2, 3):
        less = training_memory(model, 4, 4096, devices=8, zero=stage)
        assert less["total"] < full["total"]
        full = less
    kept = training_memory(model, 4, 4096)
    again = training_memory(model, 4, 4096, checkpointing=True)
    assert again["activations"] < kept["activations"] / 10 and again["weights"] == kept["weights"]
    parts = {k: v for k, v in kept.items() if k != "total"}
    assert math.isclose(sum(parts.values()), kept["total"])
    small = inference_memory(model, 1, 4096, quantize="int4")
    assert small["total"] < inference_memory(model, 1, 4096)["total"] / 2


# Time and money


def test_writing_is_bound_by_bandwidth_and_reading_by_arithmetic():
    model, chip = load("Llama-3.1-8B"), device("h100")
    nbytes = 2 * model.parameters + kv_cache_bytes(model, 1000)
    assert math.isclose(decode_seconds(model, chip, 1000), nbytes / 3350e9)
    assert decode_seconds(model, chip, 1000, batch=2) < 1.1 * decode_seconds(model, chip, 1000)
    assert decode_seconds(model, chip, 1000, batch=4096) > chip.memory / chip.bandwidth  # arithmetic, and the caches
    reading = prefill_seconds(model, chip, 4096)
    blocks = model.matrices - 4096 * 128256  # the head is asked about the last token only
    near(reading, 4096 * (2 * blocks + 4 * 32 * 4096 * 4096) / 989.4e12, 0.001)
    assert prefill_seconds(model, chip, 1) >= 2 * model.parameters / 3350e9


def test_cost_by_hand():
    chip = device("a100")
    spent = cost(312e12 * 3600, chip, count=2, utilisation=0.5, price=1.5)
    assert math.isclose(spent["seconds"], 3600) and math.isclose(spent["device_hours"], 2)
    assert math.isclose(spent["kwh"], 0.8) and math.isclose(spent["money"], 3.0)
    assert cost(1e15, device("h200"))["money"] is None, "no price is not a price of zero"


def test_break_even_moves_with_the_prices():
    model, chip = load("Llama-3.1-8B"), device("h100")
    asked = dict(requests=1e5, prompt=1000, answer=200, price=2.0)
    one, dear = (serving_cost(model, chip, api_price=price, **asked) for price in (0.5, 5.0))
    assert math.isclose(one["break_even"], 2.0 * 720 / (1200 / 1e6 * 0.5)) and dear["break_even"] < one["break_even"]
    assert serving_cost(model, chip, api_price=0.0, **asked)["break_even"] == math.inf
    many = serving_cost(model, chip, api_price=0.5, **(asked | dict(requests=1e9)))
    assert many["needed"] > one["needed"] and many["rent"] > one["rent"]


def test_the_busiest_hour_decides_how_many_devices():
    model, chip = load("Llama-3.1-8B"), device("h100")
    asked = dict(prompt=1000, answer=200, price=2.0, api_price=0.5)
    even = serving_cost(model, chip, requests=1, **asked)
    peaked = serving_cost(model, chip, requests=1, peak=4.0, **asked)
    assert math.isclose(peaked["able"], even["able"] / 4) and peaked["seconds"] == even["seconds"]
    full = serving_cost(model, chip, requests=even["able"], **asked)["rent"]
    assert math.isclose(serving_cost(model, chip, requests=even["able"], peak=4.0, **asked)["rent"], 4 * full)
    assert peaked["break_even"] in (even["break_even"], math.inf), "the price of one device does not change"
    for wrong in (0.5, math.nan, math.inf):
        with pytest.raises(CourseError, match="peak is 1 or more"):
            serving_cost(model, chip, requests=1, peak=wrong, **asked)


@pytest.mark.parametrize(
    "name, quantize, count", [("Llama-3.1-8B", None, 1), ("Llama-3.1-70B", None, 4), ("Llama-3.1-405B", None, 16),
                              ("Llama-3.1-405B", "int8", 8), ("SmolLM2-360M", None, 1)])  # fmt: skip
def test_as_many_cards_as_hold_the_model_and_divide_its_heads(name, quantize, count):
    model, chip = load(name), device("h100")
    assert sizing.cards(model, chip, 16, 1200, quantize) == count and model.n_head % count == 0
    fewer = max((n for n in range(1, count) if model.n_head % n == 0), default=0)
    assert 1.2 * sizing.inference_memory(model, 16, 1200, quantize=quantize)["total"] > fewer * chip.memory


def test_more_than_any_number_of_cards():
    with pytest.raises(CourseError, match="more than 32 × NVIDIA H100 SXM hold"):
        sizing.cards(load("Llama-3.1-8B"), device("h100"), 10_000, 8192)
    with pytest.raises(CourseError, match="not known"):
        sizing.cards(shaped(cache=None), CHIP, 1, 8)


def test_devices_state_their_source():
    for chip in devices().values():
        assert chip.source and chip.memory > 1e9 and chip.bandwidth > 1e10 and chip.watts > 0
        assert (chip.price is None) == (chip.priced == ""), "a price says whose it is and when"
    with pytest.raises(CourseError, match=r"unknown device 'h1000'; choose h100, .*laptop.*Did you mean h100"):
        device("h1000")
    assert device("H100").peak("float8") == device("h100").peak("bfloat16")


# Every formula by hand, on figures that can be told apart

SHAPE = dict(name="small", family="llama", counted="LlamaForCausalLM", kind="decoder", n_layer=3, d_model=10, n_head=4,
             n_kv_head=2, head_dim=5, d_ff=7, vocab_size=11, context=13, parts={"all": 1000}, matrices=900)  # fmt: skip


def shaped(**fields):
    from lib.decide.counting import Model

    return Model(**(SHAPE | fields))


CHIP = sizing.Device("chip", "A chip", memory=1e6, bandwidth=1e3, flops={"bfloat16": 1e4, "float32": 3e3}, watts=500.0,
                     price=6.0)  # fmt: skip


PAIR = Pair(layers=2, reads=50, looks=7, own=11, cross=13)


def test_arithmetic_by_hand():
    model = shaped(windows=(None, 2, 6), idle=200)
    assert sizing.attention_flops(model, 5) == 4 * 4 * 5 * (5 + 2 + 5)
    assert sizing.attention_flops(shaped(), 5) == 4 * 4 * 5 * 3 * 5
    assert forward_flops(model) == 2 * 900 and forward_flops(model, 5) == 2 * 900 + 4 * 4 * 5 * 12
    assert forward_flops(shaped(kind="encoder-decoder"), 5) is None, "not without what its encoder multiplies"
    both = shaped(kind="encoder-decoder", pair=PAIR)
    assert sizing.pair_flops(both, 5, 3) == 2 * (50 * 5 + 900 * 3 + 7 * 25 + 11 * 9 + 13 * 15)
    assert sizing.attention_flops(both, 5) == 2 * (7 + 11 + 13) * 25 / 10
    assert forward_flops(both, 5) == sizing.pair_flops(both, 5, 5) / 10
    hears = shaped(kind="encoder-decoder", pair=dataclasses.replace(PAIR, places=20))
    assert forward_flops(hears, 5) == 2 * (50 * 20 + 900 * 5 + 7 * 400 + 11 * 25 + 13 * 100) / 5, "by token written"
    spent = training_flops(model, 7, 5)
    assert spent == {"six_nd": 6 * 800 * 7, "exact": 3 * forward_flops(model, 5) * 7,
                     "palm": (6 * 800 + 3 * 4 * 4 * 5 * 12) * 7}  # fmt: skip
    assert training_flops(model, 7) == training_flops(model, 7, 13)
    layer = 6 * 17 * 2 * 5 * 7 + 4 * 17 * 17 * 5 * 7 + 3 * 5 * 17 * 17 + 2 * 17 * 5 * 7 * 2 + 4 * 17 * 2 * 3
    assert chinchilla_flops(L=4, D=2, F=3, H=5, Dh=7, V=11, T=17) == 3 * (4 * 17 * 11 * 2 + 4 * layer)
    assert lora_parameters(10, 3, 4) == 2 * 10 * 4 * 2 * 3 and lora_parameters(10, 3, 4, 5) == 2 * 10 * 4 * 5 * 3


def test_memory_of_answers_by_hand():
    assert weight_bytes(100) == 200 and weight_bytes(100, "float32") == 400 and weight_bytes(100, "float16") == 200
    assert weight_bytes(100, quantize="int8", group=50) == 100 + 4
    model = shaped(windows=(None, 2, 6))
    assert kv_cache_bytes(model, 5) == 2 * 2 * 5 * 12 * 1 * 2
    assert kv_cache_bytes(model, 5, 3, 4) == 2 * 2 * 5 * 12 * 3 * 4
    assert kv_cache_bytes(shaped(kind="vision"), 5) == 0
    answering = inference_memory(shaped(), 3, 9, prompt=4)
    assert answering == {"weights": 2000, "kv_cache": 2 * 2 * 5 * 27 * 3 * 2, "working": 3 * 4 * (40 + 14) * 2,
                         "total": 2000 + 2 * 2 * 5 * 27 * 3 * 2 + 3 * 4 * 54 * 2}  # fmt: skip
    assert inference_memory(shaped(gated=True), 3, 9, precision="float32")["working"] == 3 * 9 * (40 + 21) * 4
    assert inference_memory(shaped(vocab_size=5000), 3, 9, prompt=1)["working"] == 3 * 5000 * 4
    assert inference_memory(shaped()) == inference_memory(shaped(), 1, 13, prompt=13)
    assert inference_memory(shaped(), quantize="int8")["weights"] == 1000


def test_a_cache_of_its_own_and_weights_as_they_are_stored_by_hand():
    kept = Cache(layers=((6, None), (8, 4)), state=10, source=3)
    model = shaped(cache=kept, looked=(7, 9), windows=(None, 4), n_layer=2)
    assert kv_cache_bytes(model, 5, 3, 4) == (6 * 5 + 8 * 4 + 10 + 3 * 5) * 3 * 4
    assert kv_cache_bytes(shaped(cache=dataclasses.replace(kept, heard=20)), 5) == (6 * 5 + 8 * 4 + 10 + 3 * 20) * 2
    assert kv_cache_bytes(shaped(cache=None), 5) is None
    assert sizing.attention_flops(model, 5) == 2 * (7 * 5 + 9 * 4) + 4 * 10
    parts = {"experts": 600, "the rest": 400}
    stored = shaped(parts=parts, quantized="gptq", bits={"experts": 4.5})
    assert sizing.stored_bytes(stored) == (600 * 4.5 + 400 * 16) / 8
    assert sizing.stored_bytes(stored, "float32") == (600 * 4.5 + 400 * 32) / 8
    assert sizing.stored_bytes(stored, parameters=700) == (300 * 4.5 + 400 * 16) / 8, "of the experts, some rest"
    assert sizing.stored_bytes(stored, quantize="int8") == 1000
    assert sizing.stored_bytes(shaped(), parameters=700) == 1400
    both = dataclasses.replace(stored, kind="encoder-decoder", pair=PAIR)
    assert sizing.stored_bytes(both, parameters=250) == (600 * 4.5 + 400 * 16) / 8 / 4
    assert sizing.stored_bytes(shaped(quantized="strange")) is None


def test_training_of_layers_that_are_not_known_gives_what_is():
    asked = training_memory(shaped(plain=False), 2, 6)
    assert {name: asked[name] for name in ("weights", "gradients", "optimizer")} == {
        "weights": 2000, "gradients": 2000, "optimizer": 12_000}  # fmt: skip
    assert asked["activations"] is None and asked["total"] is None


def test_memory_of_training_by_hand():
    plain, gated = 40 + 2 * 20 + 2 * 10 + 14, 40 + 2 * 20 + 2 * 10 + 20 + 28  # numbers a layer keeps of a token
    assert sizing.layer_activations(shaped()) == 4 * plain
    assert sizing.layer_activations(shaped(gated=True), 2) == 2 * gated
    asked = training_memory(shaped(), 2, 6)
    kept = 12 * (3 * 2 * plain + 3 * 20)
    assert asked == {"weights": 2000, "gradients": 2000, "optimizer": 12_000, "activations": kept,
                     "logits": 12 * 11 * 12, "total": 16_000 + kept + 12 * 11 * 12}  # fmt: skip
    assert training_memory(shaped()) == training_memory(shaped(), 1, 13)
    again = training_memory(shaped(), 2, 6, checkpointing=True)
    assert again["activations"] == 12 * (3 * 20 + 2 * plain)
    single = training_memory(shaped(), 2, 6, precision="float32", optimizer="momentum")
    assert (single["weights"], single["gradients"], single["optimizer"]) == (4000, 4000, 4000)
    assert training_memory(shaped(), 2, 6, precision="bfloat16", optimizer="sgd")["optimizer"] == 0
    assert training_memory(shaped(), 2, 6, optimizer="sgd")["optimizer"] == 4000, "mixed keeps a master copy"
    assert training_memory(shaped(kind="encoder"), 2, 6)["logits"] == 0
    both = training_memory(shaped(kind="encoder-decoder", pair=PAIR), 2, 6)
    assert both["activations"] == 12 * (5 * 2 * plain + 3 * 20) and both["logits"] == 12 * 11 * 12
    for zero, shares in ((0, (1, 1, 1)), (1, (1, 1, 4)), (2, (1, 4, 4)), (3, (4, 4, 4))):
        found = training_memory(shaped(), 2, 6, zero=zero, devices=4)
        assert [found[k] for k in ("weights", "gradients", "optimizer")] == [
            whole / share for whole, share in zip((2000, 2000, 12_000), shares, strict=True)]  # fmt: skip
    # Gradients that grow as activations go: the larger of the two moments counts.
    small = training_memory(shaped(), 1, 1, accumulate=False)
    assert small["total"] == 2000 + 12_000 + (2000 + 2 * 2 * plain)
    tied = training_memory(shaped(tied=True), 1, 1, accumulate=False)
    assert tied["total"] == small["total"] + 2 * 11 * 10
    large = training_memory(shaped(), 20, 6, accumulate=False)
    assert large["total"] == 14_000 + large["activations"] + large["logits"]


def test_seconds_and_money_by_hand():
    model = shaped(idle=200)
    reading = prefill_seconds(model, CHIP, 6, 3)
    assert reading == (18 * forward_flops(model, 6) - 3 * 5 * 2 * 10 * 11) / 1e4
    assert prefill_seconds(shaped(kind="encoder"), CHIP, 6, 3) == 18 * forward_flops(model, 6) / 1e4
    assert prefill_seconds(model, CHIP, 6, 3, "float32") == pytest.approx(reading * 1e4 / 3e3)
    assert prefill_seconds(model, CHIP, 1) == 2 * 800 / 1e3
    assert prefill_seconds(model, CHIP, 1, quantize="int8") == 800 / 1e3
    assert decode_seconds(model, CHIP, 6) == (2 * 800 + kv_cache_bytes(model, 6)) / 1e3
    read = 800 + 200 * (1 - 0.2**2)  # three texts: an idle weight stays idle with a chance of 0.2 for each further one
    assert decode_seconds(model, CHIP, 6, 3) == pytest.approx((2 * read + kv_cache_bytes(model, 6, 3)) / 1e3)
    quick = dataclasses.replace(CHIP, bandwidth=1e12)
    assert decode_seconds(model, quick, 6, 3) == 3 * forward_flops(model, 6) / 1e4
    quantized = decode_seconds(model, CHIP, 6, precision="float32", quantize="int8")
    assert quantized == (800 + kv_cache_bytes(model, 6, width=4)) / 1e3
    spent = cost(1e7, CHIP, 2)
    seconds = 1e7 / (2 * 1e4 * 0.4)
    hours = 2 * seconds / 3600
    assert spent == {"seconds": pytest.approx(seconds), "device_hours": pytest.approx(hours),
                     "kwh": pytest.approx(hours * 0.5), "money": pytest.approx(hours * 6)}  # fmt: skip
    assert cost(1e7, CHIP, price=0.0)["money"] == 0 and cost(1e7, CHIP, precision="float32")["seconds"] == 1e7 / 1.2e3
    assert CHIP.peak("float8") == 1e4 and CHIP.peak("float32") == 3e3
    with pytest.raises(CourseError, match="A chip states no speed that bfloat16 could use"):
        dataclasses.replace(CHIP, flops={"int8": 1.0}).peak("bfloat16")


def test_an_encoder_decoder_reads_once_and_writes_with_its_decoder():
    model, fast = shaped(kind="encoder-decoder", pair=PAIR), dataclasses.replace(CHIP, bandwidth=1e12)
    assert prefill_seconds(model, fast, 6, 2) == 2 * sizing.pair_flops(model, 6, 1) / 1e4
    assert decode_seconds(model, fast, 6, 2) == 2 * 2 * (900 + 11 * 6 + 13 * 6) / 1e4
    slow = dataclasses.replace(CHIP, flops={"bfloat16": 1e15})
    cache = kv_cache_bytes(model, 6, 2)
    assert decode_seconds(model, slow, 6, 2) == pytest.approx((900 * 2 + cache) / 1e3), "the encoder is not read again"


def test_a_month_of_requests_by_hand():
    model, fast = shaped(), dataclasses.replace(CHIP, bandwidth=1e8, flops={"bfloat16": 1e9})
    asked = dict(prompt=6, answer=4, price=2.0, api_price=0.5)
    one = (prefill_seconds(model, fast, 6, 16) + 4 * decode_seconds(model, fast, 10, 16)) / 16 / 2 / 0.5
    able, month = 30 * 24 * 3600 / one, 30 * 24
    found = serving_cost(model, fast, requests=2.5 * able, count=2, **asked)
    assert found["seconds"] == pytest.approx(one) and found["needed"] == 6
    assert found["rent"] == pytest.approx(3 * 2 * 2.0 * month) and found["api"] == pytest.approx(2.5 * able * 5e-6)
    assert found["break_even"] == pytest.approx(2 * 2.0 * month / 5e-6)
    assert serving_cost(model, fast, requests=1, **asked)["needed"] == 1
    slow = serving_cost(model, CHIP, requests=1, **asked)
    assert slow["break_even"] == math.inf, "as many as would pay it cannot serve"
    fourfold = serving_cost(model, fast, requests=1, quantize="int4", batch=4, utilisation=0.25, **asked)
    one = prefill_seconds(model, fast, 6, 4, quantize="int4") + 4 * decode_seconds(model, fast, 10, 4, quantize="int4")
    assert fourfold["seconds"] == pytest.approx(one / 4 / 0.25)
    strange = shaped(quantized="strange")  # what its file holds is not known; what int8 would be is
    assert serving_cost(strange, fast, requests=1, quantize="int8", **asked)["seconds"] > 0
    with pytest.raises(CourseError, match="not known for this family, so no price"):
        serving_cost(strange, fast, requests=1, **asked)


def test_the_table_of_devices_is_read_as_it_stands(monkeypatch, tmp_path):
    table = tmp_path / "devices.toml"
    table.write_text('[a-chip]\ntitle = "A chip"\nmemory = 80\nbandwidth = 2\nwatts = 7\nsource = "here"\n'
                     "flops = {bfloat16 = 3}\n")  # fmt: skip
    monkeypatch.setattr(sizing, "DEVICES", table)
    devices.cache_clear()
    try:
        found = device(" A_Chip ")
        assert (found.name, found.memory, found.bandwidth, found.flops) == ("a-chip", 80e9, 2e9, {"bfloat16": 3e12})
        assert found.watts == 7.0 and found.price is None and found.source == "here"
        with pytest.raises(CourseError, match=r"unknown device 'zzz'; choose a-chip\.$"):
            device("zzz")
        devices.cache_clear()
        table.unlink()
        with pytest.raises(CourseError, match=r"cannot read .*devices\.toml \(No such file or directory\)"):
            devices()
    finally:
        monkeypatch.undo()
        devices.cache_clear()
    with pytest.raises(dataclasses.FrozenInstanceError):
        device("h100").watts = 3


# Against what this machine really uses


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel's high-water mark is Linux's")
@pytest.mark.parametrize("name", ["train, grouped heads", "answer, many texts"])
def test_estimates_against_measured_peaks(name):
    """Two of the shapes that benchmarks/sizing.py measures, within 10 %."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "sizing.py"
    spec = importlib.util.spec_from_file_location("benchmarks_sizing", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    near(bench.estimated(name), bench.measured(name), 0.10)
