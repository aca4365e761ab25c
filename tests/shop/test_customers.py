"""Requests made from the records: each has one right answer that the desk understands, and the splits keep apart."""

import collections

import pytest

from lib.errors import CourseError
from lib.shop import customers
from lib.shop.customers import KNOWN, NEW, NEW_PRODUCTS, messages, real, requests, sheet
from lib.shop.desk import EVERYTHING, KINDS, Desk, parse
from lib.shop.retail import retail


@pytest.fixture(scope="module")
def made():
    return {split: requests(split, 400) for split in customers.SPLITS}


def test_the_same_seed_makes_the_same_requests(made):
    assert requests("train", 50) == made["train"][:50]
    assert requests("train", 50, seed=1) != made["train"][:50]


def test_no_two_are_alike_and_no_customer_is_in_two_splits(made):
    everyone = [(r.user_id, r.message) for found in made.values() for r in found]
    assert len(set(everyone)) == len(everyone)
    users = [{r.user_id for r in found} for found in made.values()]
    assert not (users[0] & users[1] or users[0] & users[2] or users[1] & users[2])


def test_every_kind_occurs_and_every_call_is_readable(made):
    for split, found in made.items():
        assert set(collections.Counter(r.call.kind for r in found)) == set(KINDS), split
        assert all(parse(str(r.call)) == r.call for r in found)


def test_the_answer_can_be_found_in_the_question(made):
    """The order's number, or an item that stands in that order alone; every item and value, word for word."""
    for r in (r for found in made.values() for r in found if r.call.kind != "human"):
        orders = {id: [i["name"] for i in retail().orders[id]["items"]] for id in retail().users[r.user_id]["orders"]}
        said = r.message.lower()
        named = [n for n in orders[r.call.order] if f"the {n.lower()}" in said]
        alone = [n for n in named if not any(n in have for id, have in orders.items() if id != r.call.order)]
        assert r.call.order.lower() in said or alone, r
        assert all(item == EVERYTHING or item in named for item in r.call.items), r
        if r.call.kind == "change":
            item = next(i for i in retail().orders[r.call.order]["items"] if i["name"] == r.call.items[0])
            options = Desk(r.user_id)._options(item)
            assert any(r.call.detail == f"{o} {v}" and v.lower() in said for o, v in options), r


def test_new_products_are_asked_about_in_unseen_only(made):
    about = {split: {item for r in found for item in r.call.items} & NEW_PRODUCTS for split, found in made.items()}
    assert not about["train"] and not about["seen"] and len(about["unseen"]) > 4


def test_the_voices_share_no_sentence():
    def sentences(voice):
        lists = [part for part in vars(voice).values() if not isinstance(part, dict)] + list(voice.because.values())
        return {sentence for part in lists for sentence in part if sentence}

    assert not sentences(KNOWN) & sentences(NEW)


def test_the_policy_stands_against_a_fair_share(made):
    replies = [Desk(r.user_id).ask(r.call) for r in made["unseen"]]
    assert 0.1 < sum(reply.refused for reply in replies) / len(replies) < 0.5
    assert 0.2 < sum(reply.todo for reply in replies) / len(replies)


def test_a_model_reads_the_orders_and_the_message():
    request = requests("train", 1)[0]
    system, user = messages(request)
    assert sheet(request.user_id) in system["content"] and user == {"role": "user", "content": request.message}
    assert all(id in system["content"] for id in retail().users[request.user_id]["orders"])


def test_real_requests_are_in_the_first_person():
    assert {split: len(real(split)) for split in ("train", "test")} == {"train": 33, "test": 19}
    for request in real("train") + real("test"):
        assert " you want" not in request.message.lower()
        assert request.call.order in retail().users[request.user_id]["orders"]


@pytest.mark.parametrize("make", [lambda: requests("exam", 3), lambda: real("exam")])
def test_an_unknown_split_is_one_line(make):
    with pytest.raises(CourseError, match="unknown split 'exam'; choose from"):
        make()


def test_an_unknown_customer_is_one_line():
    with pytest.raises(CourseError, match="no customer 'nobody'"):
        sheet("nobody")
