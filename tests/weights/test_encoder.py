"""MiniLM as sentence vectors: the published recipe, whatever the batch; like meanings lie close."""

import pytest
import torch

from lib.errors import CourseError
from lib.weights.encoder import LONGEST, load_minilm

TEXTS = ["I would like my money back.", "Please refund me.", "The parcel should go to my office.", "Cancel it.", "x"]


@pytest.fixture(scope="module")
def encoder():
    try:
        return load_minilm()
    except CourseError as error:
        pytest.skip(str(error))


def test_vectors_are_the_mean_over_a_texts_own_tokens_at_length_one(encoder):
    found = encoder(TEXTS)
    assert found.shape == (5, 384) and torch.allclose(found.norm(dim=1), torch.ones(5), atol=1e-5)
    for text, vector in zip(TEXTS, found, strict=True):  # one at a time, so that there is no filler to leave out
        encoder.tokenizer.no_padding()
        ids = torch.tensor([encoder.tokenizer.encode(text).ids])
        encoder.tokenizer.enable_padding()
        with torch.no_grad():
            mean = encoder.model(input_ids=ids).last_hidden_state[0].mean(0)
        assert torch.allclose(vector, mean / mean.norm(), atol=1e-5)


def test_the_order_of_texts_and_the_batch_make_no_difference(encoder):
    found = encoder(TEXTS)
    assert torch.allclose(encoder(TEXTS, batch=2), found, atol=1e-5)
    assert torch.allclose(encoder(TEXTS[::-1]), found.flip(0), atol=1e-5)


def test_like_meanings_lie_close_without_a_word_in_common(encoder):
    money, refund, office = encoder(TEXTS[:3])
    assert money @ refund > 0.5 > 0.4 > money @ office


def test_a_long_text_is_cut_and_what_is_no_list_of_texts_refused(encoder):
    long = "a box " * 400
    assert torch.allclose(encoder([long]), encoder([long + "and an address"]), atol=1e-6)
    assert len(encoder.tokenizer.encode(long).ids) == LONGEST
    for wrong in ([], "a text", [1], ["a", None]):
        with pytest.raises(CourseError, match="at least one text"):
            encoder(wrong)
