"""What customers say to the desk, and the call that each of them means: requests made from the shop's records.

Two voices. `train` and `seen` share their sentences, but not their customers. `unseen` has customers, products,
sentences and an order of telling that the other two never have.
"""

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from lib.errors import CourseError
from lib.shop.desk import EVERYTHING, REASONS, Call
from lib.shop.retail import retail

SPLITS = ("train", "seen", "unseen")
INSTRUCTION = "You are a shop's service desk. Write the call that the customer asks for. The customer's orders:"
# Products that no request of `train` and `seen` is about; they do occur in those customers' orders.
NEW_PRODUCTS = frozenset(
    ["Yoga Mat", "Tea Kettle", "Skateboard", "Wall Clock", "Digital Camera", "Garden Hose", "Fleece Jacket", "Tablet"]
)


@dataclass(frozen=True)
class Request:
    """What a customer says, and the call that it comes to."""

    user_id: str
    message: str
    call: Call


@dataclass(frozen=True)
class _Voice:
    """Sentences by what they say. {order}, {item}, {other}, {items}, {option} and {value} are filled in."""

    hello: Sequence[str]
    chat: Sequence[str]
    distraction: Sequence[str]  # a second order that is not the one
    cancel: Sequence[str]
    because: dict[str, Sequence[str]]
    give_back: Sequence[str]
    give_back_all: Sequence[str]
    change: Sequence[str]
    status: Sequence[str]
    human: Sequence[str]
    correction: Sequence[str]  # {wrong} was said first


KNOWN = _Voice(
    hello=["Hi,", "Hello!", "Good morning,", "Hello there,", "Hi, I need some help.", "Good evening.", "Hi team,",
           "Good afternoon.", "Hello, it's me again.", "", "", "", ""],
    chat=["I hope you are having a good day.", "I have been a customer for years.", "It is raining here.",
          "Sorry to bother you.", "My daughter helps me write this.", "I am on the train, so I will be brief.",
          "Last week was a long one.", "We are painting the kitchen.", "My neighbour likes your shop too.",
          "I am typing this with one hand.", "Thanks for the quick delivery last time.", "", "", "", "", ""],
    distraction=["My other order {extra} is fine.", "Please leave order {extra} alone.",
                 "I do not mean order {extra}.", "Order {extra} can stay as it is.", "{extra} is not the one I mean.",
                 "Keep order {extra} as it is, I like that one.", "I also have order {extra}, but that one is good.",
                 "Forget about {extra}, that was last month.", "Do nothing with order {extra}."],
    cancel=["please cancel {the order}.", "I want to cancel {the order}.", "can you cancel {the order}?",
            "I would like {the order} to be cancelled.", "could you call off {the order}?",
            "cancel {the order}, please.", "please do not send {the order}.",
            "I don't want {the order} any more.",
            "stop {the order}, please.", "is there still time to cancel {the order}?",
            "{the order} should be cancelled.",
            "drop {the order}, will you?"],
    because={
        REASONS[0]: ["I don't need it any more.", "I no longer need it.", "I changed my mind.", "It is not needed now.",
                     "I have no use for it any more.", "We have one already, so there is no need.",
                     "My project was called off.", "I can manage without it.", "Things have changed here."],
        REASONS[1]: ["I ordered it by mistake.", "It was a mistake.", "I pressed the wrong button.",
                     "I did not mean to buy it.", "I clicked by accident.", "My son ordered it on my phone.",
                     "That order was an accident.", "I never wanted to order that."],
        "other": ["I found it cheaper elsewhere.", "The delivery takes too long.", "A friend told me it is no good.",
                  "My bank account is empty.", "It costs too much.", "Your reviews made me doubt.",
                  "I need the money for something else."],
    },
    give_back=["I want to return {items}.", "can I send back {items}?", "I would like to give back {items}.",
               "please take back {items}.", "I need to return {items}.", "I'd like a refund for {items}.",
               "{items} should go back to you.", "I don't like {items} and want to return that.",
               "how can I return {items}?", "{items} is broken, I want my money.", "I am sending you back {items}.",
               "could you refund me for {items}?"],
    give_back_all=["I want to return everything in order {order}.", "please take back the whole order {order}.",
                   "I would like to send back all of order {order}.", "all of {order} should go back.",
                   "I don't like anything in order {order}, take it all back.", "everything from {order} goes back."],
    change=["can I have {item} in {value} instead?", "I would like {item} with {option} {value}.",
            "please change {item} to {value} ({option}).", "I want to swap {item} for one with {option} {value}.",
            "could you change the {option} of {item} to {value}?",
            "I want to exchange {item}, I need {option} {value}.",
            "the {option} of {item} should be {value}.",
            "please give me {item} with {value} as {option}.",
            "I picked the wrong {option} for {item}, I meant {value}.",
            "can {item} come with {option} {value}?", "{item} should have been {value}, that is the {option}.",
            "I'd like another {option} for {item}: {value}."],
    status=["where is {the order}?", "can you tell me the status of {the order}?", "has {the order} been sent?",
            "when does {the order} arrive?", "I want to track {the order}.",
            "what happens with {the order}?",
            "did you ship {the order} yet?", "I have not received {the order}.",
            "how long does {the order} still take?",
            "please tell me about {the order}.", "is {the order} on its way?"],
    human=["I want to talk to a person.", "please bring back an order that was cancelled.",
           "I have a discount code that does not work.", "can you repair my washing machine?",
           "I want to speak to your manager.", "your driver damaged my fence.", "do you have jobs?",
           "please connect me to a human.", "I cancelled an order last month and want that undone.",
           "I have a complaint about your staff.", "can I pay with crypto?", "please match another shop's price.",
           "I want to sell things in your shop.", "do you deliver to the moon?", "I lost my password.",
           "your website shows an error.", "give me someone who can decide."],
    correction=["Sorry, I mean {right}, not {wrong}.", "No, wait: {right}, not {wrong}.",
                "Not {wrong}, I meant {right}.", "I said {wrong}, but I mean {right}.", "Wrong, {right} is the one.",
                "Make that {right}, not {wrong}.", "Correction: {right}.", "{wrong} was a slip, I mean {right}."],
)  # fmt: skip

NEW = _Voice(
    hello=["Hey,", "Dear team,", "Howdy.", "To whom it may concern:", "", ""],
    chat=["What a week this has been.", "I just moved house.", "Your shop has lovely things.",
          "My cat is on the keyboard.", "", "", ""],
    distraction=["Don't touch {extra}, I am happy with that one.", "{extra} is another matter, forget about that."],
    cancel=["I'd rather not get {the order} after all, so stop it before it goes out.",
            "is it too late to withdraw {the order}?", "scrap {the order} for me."],
    because={
        REASONS[0]: ["My plans are different now.", "We can do without.", "There is no need for it these days."],
        REASONS[1]: ["My toddler placed it.", "That purchase was unintended.", "I bought it in error."],
        "other": ["Another shop sells it for less.", "I am short of money."],
    },
    give_back=["{items} did not work out for me, I want my money back.", "how do I go about returning {items}?",
               "I am not happy with {items}; you can have that back."],
    give_back_all=["nothing in {order} is what I hoped for, all of that goes back to you."],
    change=["{item} is the wrong one for me, {option} {value} would be right.",
            "is there any way to get {item} with {value} as {option}?", "make {item} the {value} one ({option})."],
    status=["any news about {the order}?", "I am still waiting for {the order}, what is going on?",
            "how far along is {the order}?"],
    human=["let me speak with a real agent.", "I'd like to sue you, who do I write to?",
           "can I buy shares of your company?", "undo the cancellation of last week."],
    correction=["Oh, did I write {wrong}? It should be {right}.", "Hm, {wrong} is wrong. {right} it is."],
)  # fmt: skip


def of(split: str) -> list[str]:
    """The customers of a split, a third each by a checksum of their id; only those with one to three orders."""
    if split not in SPLITS:
        raise CourseError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    users = retail().users.values()
    return [
        user["user_id"]
        for user in users
        if zlib.crc32(user["user_id"].encode()) % 3 == SPLITS.index(split) and 1 <= len(user["orders"]) <= 3
    ]


def sheet(user_id: str) -> str:
    """A customer's orders as the model reads them, a line each. Raises CourseError for an unknown customer."""
    shop = retail()
    if user_id not in shop.users:
        raise CourseError(f"no customer {user_id!r} in the records")
    orders = [shop.orders[id] for id in shop.users[user_id]["orders"]]
    return "\n".join(f"{order['order_id']}: {', '.join(item['name'] for item in order['items'])}" for order in orders)


def messages(request: Request) -> list[dict[str, str]]:
    """The conversation that a model answers with a call: instruction and orders, then what the customer says."""
    return [
        {"role": "system", "content": f"{INSTRUCTION}\n{sheet(request.user_id)}"},
        {"role": "user", "content": request.message},
    ]


def requests(split: str, count: int, seed: int = 0) -> list[Request]:
    """`count` requests of a split, no two alike, the kinds in turn. Raises CourseError for an unknown split."""
    users = of(split)
    rng = random.Random(f"{split} {seed}")
    found: dict[tuple[str, str], Request] = {}
    makers = (_cancel, _return, _change, _status, _change, _return, _human)  # the long ones twice
    while len(found) < count:
        made = makers[len(found) % len(makers)](rng, rng.choice(users), NEW if split == "unseen" else KNOWN)
        allowed = made and not _about_new(made.call) if split != "unseen" else made
        if allowed:
            found.setdefault((made.user_id, made.message), made)
    return list(found.values())


def _about_new(call: Call) -> bool:
    return any(item in NEW_PRODUCTS for item in call.items)


def _say(item: str) -> str:
    return f"the {item.lower()}"


def _orders(user_id: str) -> dict[str, list[str]]:
    """The names in each order of a customer."""
    shop = retail()
    return {id: [item["name"] for item in shop.orders[id]["items"]] for id in shop.users[user_id]["orders"]}


def _pick(rng: random.Random, user_id: str, *statuses: str) -> tuple[str, list[str], list[str]]:
    """An order, the names that stand once in it, and those of them that stand in no other order.

    Most customers ask for what is possible: four times in five an order in one of the statuses, if there is one.
    """
    orders = _orders(user_id)
    fit = [id for id in orders if retail().orders[id]["status"] in statuses]
    order = rng.choice(fit if fit and rng.random() < 0.8 else list(orders))
    names = [name for name in orders[order] if orders[order].count(name) == 1]
    elsewhere = {name for id, have in orders.items() if id != order for name in have}
    return order, names, [name for name in names if name not in elsewhere]


def _tell(rng: random.Random, user_id: str, voice: _Voice, order: str, *sentences: str) -> str:
    """The sentences with what people put around them."""
    others = [id for id in retail().users[user_id]["orders"] if id != order]
    parts = [rng.choice(voice.hello), rng.choice(voice.chat), *sentences]
    if order and others and rng.random() < 0.4:
        place = len(parts) if rng.random() < 0.5 else 2
        parts.insert(place, rng.choice(voice.distraction).format(extra=rng.choice(others)))
    if rng.random() < 0.3:  # the chat comes last
        parts.append(parts.pop(1))
    text = " ".join(part for part in parts if part)
    return re.sub(r"(^|[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)


def _the_order(rng: random.Random, order: str, own: list[str]) -> tuple[str, bool]:
    """How a customer names an order, and whether by its number."""
    if own and rng.random() < 0.5:
        return f"the order with {_say(rng.choice(own))}", False
    return f"order {order}", True


def _whole(
    rng: random.Random, user_id: str, voice: _Voice, templates: Sequence[str], *statuses: str
) -> tuple[str, list[str]]:
    """A sentence about a whole order, and perhaps a second one that corrects its number."""
    order, _, own = _pick(rng, user_id, *statuses)
    name, by_number = _the_order(rng, order, own)
    others = [id for id in retail().users[user_id]["orders"] if id != order]
    template = rng.choice(templates)
    if by_number and others and rng.random() < 0.25:
        wrong = rng.choice(others)
        fixed = rng.choice(voice.correction).format(right=order, wrong=wrong)
        return order, [template.replace("{the order}", f"order {wrong}"), fixed]
    return order, [template.replace("{the order}", name)]


def _cancel(rng: random.Random, user_id: str, voice: _Voice) -> Request:
    order, sentences = _whole(rng, user_id, voice, voice.cancel, "pending")
    reason = rng.choice([*REASONS, *REASONS, "other"])
    why = rng.choice(voice.because[reason])
    sentences = [why, *sentences] if voice is NEW and rng.random() < 0.5 else [*sentences, why]
    return Request(user_id, _tell(rng, user_id, voice, order, *sentences), Call("cancel", order, detail=reason))


def _status(rng: random.Random, user_id: str, voice: _Voice) -> Request:
    order, sentences = _whole(rng, user_id, voice, voice.status)
    return Request(user_id, _tell(rng, user_id, voice, order, *sentences), Call("status", order))


def _human(rng: random.Random, user_id: str, voice: _Voice) -> Request:
    return Request(user_id, _tell(rng, user_id, voice, "", rng.choice(voice.human)), Call("human"))


def _named(rng: random.Random, order: str, item: str, own: list[str]) -> str:
    """An item, with its order's number where the name alone does not tell, and sometimes where it does."""
    return _say(item) if item in own and rng.random() < 0.6 else f"{_say(item)} from order {order}"


def _return(rng: random.Random, user_id: str, voice: _Voice) -> Request | None:
    order, names, own = _pick(rng, user_id, "delivered")
    if rng.random() < 0.12:
        sentence = rng.choice(voice.give_back_all).format(order=order)
        return Request(user_id, _tell(rng, user_id, voice, order, sentence), Call("return", order, (EVERYTHING,)))
    if not names:
        return None
    chosen = rng.sample(names, min(len(names), rng.choice([1, 1, 2])))
    said = _named(rng, order, chosen[-1], own)
    if len(chosen) == 2:
        both_own = all(item in own for item in chosen)
        said = f"{_say(chosen[0])} and " + (said if both_own else f"{_say(chosen[1])} from order {order}")
    sentences = [rng.choice(voice.give_back).format(items=said)]
    rest = [name for name in names if name not in chosen]
    if len(chosen) == 1 and rest and rng.random() < 0.25:
        wrong = rng.choice(rest)
        named = said.replace(_say(chosen[0]), _say(wrong))
        if wrong in own or " from order " in named:
            sentences = [rng.choice(voice.give_back).format(items=named),
                         rng.choice(voice.correction).format(right=_say(chosen[0]), wrong=_say(wrong))]  # fmt: skip
    return Request(user_id, _tell(rng, user_id, voice, order, *sentences), Call("return", order, tuple(chosen)))


def _change(rng: random.Random, user_id: str, voice: _Voice) -> Request | None:
    order, names, own = _pick(rng, user_id, "pending", "delivered")
    if not names:
        return None
    name = rng.choice(names)
    shop = retail()
    item = next(item for item in shop.orders[order]["items"] if item["name"] == name)
    variants = shop.products[item["product_id"]]["variants"].values()
    pairs = {pair for variant in variants for pair in variant["options"].items()} - set(item["options"].items())
    in_stock = [variant["options"] for variant in variants if variant["available"]]
    fit = {(option, value) for option, value in pairs if item["options"] | {option: value} in in_stock}
    if not pairs:
        return None
    option, value = rng.choice(sorted(fit if fit and rng.random() < 0.8 else pairs))
    sentence = rng.choice(voice.change).format(item=_named(rng, order, name, own), option=option, value=value)
    if "{option}" not in sentence and option not in sentence:  # said by its value alone: it must tell the option
        if sum(v == value for _, v in pairs) > 1 or value in ("yes", "no", "none"):
            return None
    call = Call("change", order, (name,), f"{option} {value}")
    return Request(user_id, _tell(rng, user_id, voice, order, sentence), call)


def real(split: str) -> list[Request]:
    """tau2's own tasks that come to one call: written by people, not by this file. split: train or test.

    The customers speak to a simulator ("You want to …"), which is turned into the first person. Only kind and order of
    the call are known for certain; a change's option is left empty.
    """
    shop = retail()
    if split not in shop.split:
        raise CourseError(f"unknown split {split!r}; choose from {', '.join(shop.split)}")
    kinds = {
        "cancel_pending_order": "cancel",
        "return_delivered_order_items": "return",
        "exchange_delivered_order_items": "change",
        "modify_pending_order_items": "change",
        "transfer_to_human_agents": "human",
    }
    found = []
    for task in shop.tasks:
        actions = task["evaluation_criteria"]["actions"] or ()
        writes = [action for action in actions if not re.match("get|find|list|calc", action["name"])]
        if task["id"] not in shop.split[split] or len(writes) != 1 or writes[0]["name"] not in kinds:
            continue
        kind, given = kinds[writes[0]["name"]], writes[0]["arguments"]
        if kind == "human":
            continue  # no order tells whose task it is
        order = shop.orders[given["order_id"]]
        names = [item["name"] for id in given.get("item_ids", ()) for item in order["items"] if item["item_id"] == id]
        message = _first_person(task["user_scenario"]["instructions"]["reason_for_call"])
        call = Call(kind, given["order_id"], tuple(names), given.get("reason", ""))
        found.append(Request(order["user_id"], message, call))
    return found


PERSONS = {"You're": "I'm", "You are": "I am", "You've": "I've", "Your": "My", "Yourself": "Myself", "You": "I"}


def _first_person(text: str) -> str:
    for old, new in PERSONS.items():
        text = re.sub(rf"\b{old}\b", new, text)
        text = re.sub(rf"\b{old.lower()}\b", new if new[0] == "I" else new.lower(), text)
    return text
