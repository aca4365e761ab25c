"""The shop's job: what is read and asked for, the adapter that ships, and the studies."""

import dataclasses

import pytest
from adapted import Letters

from lib.adapt import summaries
from lib.adapt.adapters import load_adapter
from lib.adapt.finetuning import IGNORE, METHODS, RECIPE, Row, batch, finetune, prepare, shown
from lib.adapt.lora import count_trainable
from lib.errors import CourseError
from lib.shop import dialogues
from lib.shop.dialogues import Example
from lib.weights import pretrained

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_loss_asks_for_the_summary_and_its_end_only():
    example = Example("Customer: hi", "Cancel.")
    row = summaries.row(Letters(), example)
    asked = [after for _, after, asked in shown(Letters(), row) if asked]
    assert "".join(asked) == "Cancel.\0"
    assert next(here for here, _, asked in shown(Letters(), row) if asked) == ">"
    x, y = batch([row, Row((1, 2, 3, 4), 2)])
    assert x.shape == y.shape == (2, len(row.tokens) - 1)
    assert y[1].tolist() == [IGNORE, 3, 4] + [IGNORE] * (y.size(1) - 3)
    assert (y[0] != IGNORE).sum() == len("Cancel.") + 1


def test_rows_refuse_bad_data():
    good = Example("Customer: hi", "Cancel.")
    with pytest.raises(CourseError, match="more than 20"):
        summaries.rows(Letters(), [good], most=20)
    with pytest.raises(CourseError, match="same dialogue"):
        summaries.rows(Letters(), [good, good])
    assert len(summaries.rows(Letters(), [good])) == 1


def test_messages_hold_the_instruction_and_the_dialogue():
    system, user = dialogues.messages("Customer: hi")
    assert (system["role"], user["role"]) == ("system", "user")
    assert system["content"] == dialogues.INSTRUCTION and user["content"] == "Customer: hi"


def test_the_adapter_that_ships_does_its_job():
    assert sum(path.stat().st_size for path in summaries.ADAPTER.iterdir()) < 5e6
    model, tokenizer = pretrained.load_smollm2()
    load_adapter(model, summaries.ADAPTER)
    assert count_trainable(model) < 0.015 * 134_515_008
    held_out = dialogues.make("seen", 4, 7)
    said = summaries.summarise(model, tokenizer, [e.dialogue for e in held_out])
    assert sum(dialogues.right(one, e.summary) for one, e in zip(said, held_out, strict=True)) >= 3


@pytest.mark.long("a quarter of an hour")
def test_the_adapter_that_ships_can_be_made_anew():
    model, tokenizer = pretrained.load_smollm2()
    config = prepare(model, "LoRA", dataclasses.replace(RECIPE, seed=1))
    finetune(model, summaries.rows(tokenizer, summaries.training_set(seed=1)), config)
    for split, least in (("seen", 0.85), ("unseen", 0.7)):
        held_out = dialogues.make(split, 60, 1001)
        said = summaries.summarise(model, tokenizer, [e.dialogue for e in held_out], batch_size=20)
        assert sum(dialogues.right(one, e.summary) for one, e in zip(said, held_out, strict=True)) >= least * 60


def test_the_studies_that_ship_are_whole(tmp_path):
    runs = summaries.studies()["runs"]
    of_recipe = [run for run in runs if run["examples"] == summaries.EXAMPLES]
    assert {run["method"] for run in of_recipe} == set(METHODS)
    assert all(run["steps"] == RECIPE.steps for run in of_recipe)
    assert len({run["examples"] for run in runs if run["method"] == "LoRA"}) >= 4
    broken = tmp_path / "finetuning.json"
    for text in ("[]", "{", '{"table": []}'):
        broken.write_text(text)
        with pytest.raises(CourseError, match=r"finetuning.json is missing or damaged .*git checkout"):
            summaries.studies(broken)
    with pytest.raises(CourseError, match="missing or damaged"):
        summaries.studies(tmp_path / "none.json")
