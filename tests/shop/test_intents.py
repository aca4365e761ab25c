"""Messages with a right answer: phrasings kept apart, real ones without near copies, a counter that learns."""

from collections import Counter

import pytest
import torch

from lib.decide.evaluation import overlap
from lib.errors import CourseError
from lib.shop import intents
from lib.shop.intents import INTENTS, PHRASINGS, UNSEEN, LinearReader, Message, WordCounter, made, real, right
from lib.shop.retail import retail

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shop():
    try:
        return retail()
    except CourseError as error:
        pytest.skip(str(error))


def test_phrasings_are_all_different_and_some_are_kept_apart(shop):
    every = [phrasing for several in PHRASINGS.values() for phrasing in several]
    assert set(PHRASINGS) == set(INTENTS) and len(set(every)) == len(every)
    assert all(len(several) > 2 * UNSEEN for several in PHRASINGS.values())
    seen, unseen = made(shop, 400), made(shop, 400, unseen=True)
    shared = overlap([m.text for m in unseen], [m.text for m in seen], 5)
    assert sum(shared) / len(shared) < 0.02
    assert Counter(m.intent for m in seen) == dict.fromkeys(INTENTS, 100)
    assert not any("{" in m.text for m in seen + unseen)


def test_made_messages_repeat_by_seed(shop):
    assert made(shop, 50, 1) == made(shop, 50, 1) != made(shop, 50, 2)
    with pytest.raises(CourseError, match="at least one"):
        made(shop, 0)


def test_real_messages(shop):
    messages = real(shop)
    assert 50 < len(messages) < 75 and set(m.intent for m in messages) == set(INTENTS)
    assert not any(intents.near_copy(m.text, messages[:i]) for i, m in enumerate(messages) if i)
    texts = {m.text: m.intent for m in messages}
    assert texts["You want to change #W8665881 to be delivered to Suite 641 instead."] == "address"
    assert texts["You want to cancel all pending orders."] == "cancel"


def test_the_counter_learns_what_words_tell():
    messages = [Message("give it back", "return"), Message("another one", "swap"), Message("stop it", "cancel"),
                Message("new street", "address")]  # fmt: skip
    counter = WordCounter(messages)
    assert right(counter, messages) == [True] * 4
    assert counter("Back, please!") == "return" and counter("street") == "address"
    assert counter.knows("give it away") == pytest.approx(2 / 3) and counter.knows("!") == 0
    assert right(lambda text: "swap", messages) == [False, True, False, False]


def test_a_linear_reader_learns_on_any_features_and_reads_alike_alone_and_together():
    def features(texts):  # what it is told apart by: two numbers
        return torch.tensor([[float("back" in text), float("street" in text)] for text in texts])

    messages = [Message("give it back", "return"), Message("new street", "address")] * 4
    reader = LinearReader(features, messages)
    assert right(reader, messages) == [True] * 8
    assert reader.read(["back", "street", "back"]) == ["return", "address", "return"]
    assert [reader(text) for text in ("back", "street")] == ["return", "address"]
