"""A specialist from nothing: its tokenizer, its data, its file; the one that ships does its job."""

import dataclasses
import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.adapt import specialist
from lib.adapt.specialist import SpecialistTokenizer
from lib.adapt.summaries import summarise
from lib.errors import CourseError
from lib.shop import dialogues
from lib.shop.dialogues import facts, right
from lib.transformer import count_parameters

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = dict(n_layer=1, d_model=32, n_head=2, d_ff=48)
SHORT = dataclasses.replace(specialist.RECIPE, steps=12, batch_size=4, warmup=2)


@pytest.fixture(scope="module")
def tokenizer():
    return SpecialistTokenizer.train(text for e in dialogues.make("train", 100) for text in (e.dialogue, e.summary))


def test_digits_stay_apart_and_text_comes_back(tokenizer):
    text = "Customer: order #W2611340, 30 of them. Naïve?"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    digits = [tokenizer.token(id).strip() for id in ids if re.search(r"\d", tokenizer.token(id))]
    assert digits == list("261134030")
    assert tokenizer.vocab_size <= specialist.VOCABULARY + 2


def test_a_prompt_is_the_conversation_and_a_sign(tokenizer):
    ids = tokenizer.chat(dialogues.messages("Customer: hello"))
    assert ids[-1] == tokenizer.answer_id and tokenizer.decode(ids) == "Customer: hello"
    assert max(ids) < tokenizer.eos_id == tokenizer.vocab_size - 1


def test_training_data_has_other_numbers_and_the_same_truth():
    plain, renumbered = dialogues.make("train", 20, 3, made_up=True, varied=True), specialist.examples(20, 3)
    for before, after in zip(plain, renumbered, strict=True):
        a, b = facts(before.summary), facts(after.summary)
        assert a.order != b.order and b.order in after.dialogue
        assert dataclasses.replace(a, order="") == dataclasses.replace(b, order="")
        pattern = [re.sub(r"#W\d+", "#", e.dialogue) for e in (before, after)]
        assert pattern[0] == pattern[1]
    assert all(drill.summary in drill.dialogue for drill in specialist.drills(5))


def test_the_recipe_in_short_repeats_and_learns():
    seen = []
    first, _, history = specialist.train(64, SHORT, watch=lambda done, loss: seen.append(loss), **TINY)
    second, _, again = specialist.train(64, SHORT, **TINY)
    assert history.train_loss == again.train_loss == seen and len(seen) == SHORT.steps and seen[-1] < seen[0] - 0.5
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_saved_and_loaded(tmp_path, tokenizer):
    model = specialist.new(tokenizer, **TINY).eval()
    specialist.save(model, tokenizer, tmp_path / "one.safetensors")
    again, words = specialist.load(tmp_path / "one.safetensors")
    x = torch.tensor([tokenizer.encode("Customer: hello")])
    with torch.no_grad():
        assert torch.allclose(again(x), model(x), atol=1e-2)
    assert words.encode("Customer: hello") == x[0].tolist() and again.head.weight is again.embedding.weight
    whole = (tmp_path / "one.safetensors").read_bytes()
    for damaged in (whole[:-10], b"", b"{}", whole[:100]):
        (tmp_path / "two.safetensors").write_bytes(damaged)
        with pytest.raises(CourseError, match="not a specialist's file") as error:
            specialist.load(tmp_path / "two.safetensors")
        assert "\n" not in str(error.value)
    with pytest.raises(CourseError):
        specialist.load(tmp_path / "none.safetensors")


def test_a_head_of_its_own_is_kept(tmp_path, tokenizer):
    model = specialist.new(tokenizer, **TINY, tie=False).eval()
    specialist.save(model, tokenizer, tmp_path / "one.safetensors")
    again, _ = specialist.load(tmp_path / "one.safetensors")
    assert torch.equal(again.head.weight, model.head.weight.half().float())


@pytest.mark.parametrize("pairs", [[[97, 9999]], [[97, 98], [97, 98]], [[97]], "ab"])
def test_pairs_that_are_no_merges(tmp_path, tokenizer, pairs):
    file = tmp_path / "one.safetensors"
    specialist.save(specialist.new(tokenizer, **TINY), tokenizer, file)
    with specialist.safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["specialist"])
    save_file(load_file(file), file, {"specialist": json.dumps(about | dict(pairs=pairs))})
    with pytest.raises(CourseError, match="not a specialist's file"):
        specialist.load(file)


def test_the_one_that_ships_does_its_job_and_no_other():
    assert specialist.FILE.stat().st_size < 4e6
    model, tokenizer = specialist.load()
    assert count_parameters(model) < 2_000_000
    held_out = dialogues.make("seen", 40, 7)
    said = summarise(model, tokenizer, [e.dialogue for e in held_out], batch_size=40)
    assert sum(right(one, e.summary) for one, e in zip(said, held_out, strict=True)) >= 32
    assert "paris" not in summarise(model, tokenizer, ["What is the capital of France?"])[0].lower()
