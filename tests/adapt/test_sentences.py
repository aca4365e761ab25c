"""The encoder learns a job: better than its read-out alone where meaning, and not the subject, decides."""

import copy

import pytest
import torch

from lib.adapt.sentences import tune_encoder
from lib.errors import CourseError
from lib.weights.encoder import load_minilm

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = [
    "Send it back.",
    "I return the lamp.",
    "Take the jug back.",
    "Stop the order.",
    "Cancel the lamp.",
    "Do not ship it.",
]
LABELS = ["return"] * 3 + ["cancel"] * 3


def test_it_learns_in_place_and_repeats_by_seed():
    try:
        first = load_minilm()
    except CourseError as error:
        pytest.skip(str(error))
    second = copy.deepcopy(first)
    before = first(TEXTS)
    reader = tune_encoder(first, TEXTS, LABELS, epochs=2, batch=3, lr=1e-4, seed=3)
    assert [reader(text) for text in TEXTS] == LABELS and reader("I wish to return this jug") == "return"
    assert not torch.allclose(first(TEXTS), before, atol=1e-3)
    tune_encoder(second, TEXTS, LABELS, epochs=2, batch=3, lr=1e-4, seed=3)
    assert torch.allclose(first(TEXTS), second(TEXTS), atol=1e-5)


@pytest.mark.parametrize("texts, labels", [(["a"], ["x"]), (["a", "b"], ["x", "x"]), (["a", "b"], ["x"]), ([], [])])
def test_what_it_cannot_learn_from(texts, labels):
    with pytest.raises(CourseError, match="at least two different"):
        tune_encoder(None, texts, labels)
