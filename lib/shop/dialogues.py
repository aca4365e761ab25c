"""Conversations between a shop and its customers, each with a summary that can be checked fact by fact.

Orders, items, options and customers are the shop's own (lib.shop.retail). The talk is composed here, from a seed: a
customer wants one of four things, and something makes it hard: another order number, a correction, a change of mind, a
second item, small talk. What is true at the end is in the summary, one line in a fixed form, from which `facts` reads
it back.

Three splits. "train" and "seen" have the same phrasings and turn structures, but no customer or order in common.
"unseen" has other phrasings, other products and other turn structures as well.
"""

import dataclasses
import functools
import hashlib
import random
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.errors import CourseError
from lib.shop.retail import retail
from lib.sources.places import DATA

SPLITS = ("train", "seen", "unseen")
TWISTS = ("other order", "wrong order", "wrong item", "added item", "dropped item", "wrong detail", "change of mind")
INSTRUCTION = "Summarise what the customer wants."


@dataclass(frozen=True)
class Facts:
    """What a customer finally wants.

    action: return, exchange, cancel or move (to another address). items: product names, in no order; none where it is
    the whole order. detail: where the refund goes, the new option, the reason, or the city.
    """

    action: str
    order: str
    items: frozenset[str]
    detail: str


@dataclass(frozen=True)
class Example:
    """A conversation and its summary, what made it hard, and how its turns were laid out."""

    dialogue: str
    summary: str
    twists: tuple[str, ...] = ()
    structure: str = ""


def summary(wanted: Facts) -> str:
    """The one line that states the facts; of two items the one earlier in the alphabet comes first."""
    order, detail = wanted.order, wanted.detail
    things = " and ".join(f"the {item}" for item in sorted(wanted.items))
    return {
        "return": f"Return {things} from order {order}, refund to {detail}.",
        "exchange": f"Exchange {things} from order {order} for {detail}.",
        "cancel": f"Cancel order {order}, reason: {detail}.",
        "move": f"Send order {order} to {detail}.",
    }[wanted.action]


FORMS = {
    "return": re.compile(r"Return the (?P<items>.+) from order (?P<order>#W\d+), refund to (?P<detail>.+)\."),
    "exchange": re.compile(r"Exchange the (?P<items>.+) from order (?P<order>#W\d+) for (?P<detail>.+)\."),
    "cancel": re.compile(r"Cancel order (?P<order>#W\d+), reason: (?P<detail>.+)\."),
    "move": re.compile(r"Send order (?P<order>#W\d+) to (?P<detail>.+)\."),
}


def facts(text: str) -> Facts | None:
    """The facts that a summary states, or None if it is not in the form. Capitals, and the items' order, are free."""
    for action, form in FORMS.items():
        if found := re.fullmatch(form.pattern, " ".join(text.split()), re.IGNORECASE):
            parts = found.groupdict()
            items = re.split(r" and the ", parts.get("items") or "", flags=re.IGNORECASE)
            named = frozenset(item.lower() for item in items if item)
            return Facts(action, parts["order"].upper(), named, parts["detail"].lower())
    return None


def right(said: str, meant: str) -> bool:
    """Whether a summary states all the facts of another, and no others."""
    return facts(said) is not None and facts(said) == facts(meant)


def wrong_facts(said: str, meant: str) -> tuple[str, ...]:
    """Which of action, order, items and detail are wrong; ("form",) if the summary is not in the form."""
    ours, theirs = facts(said), facts(meant)
    if ours is None or theirs is None:
        return ("form",)
    return tuple(
        name for name in ("action", "order", "items", "detail") if getattr(ours, name) != getattr(theirs, name)
    )


# --- how people say it -----------------------------------------------------------------------------------------------

PHRASES = DATA / "phrases.toml"


@functools.cache
def say(file: Path = PHRASES) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """For each thing to say, the phrasings of "train" and "seen", then those of "unseen".

    Raises CourseError for a damaged file.
    """
    try:
        if not (table := tomllib.loads(file.read_text(encoding="utf-8"))):
            raise ValueError("it is empty")
        return {thing: (tuple(ways["train"]), tuple(ways["unseen"])) for thing, ways in table.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(f"{file} is damaged ({error}); restore it with `git checkout -- data`") from None


FILLERS = ("Well.", "Right.", "Hm.", "Let me think.", "Listen.", "So.", "Oh dear.", "Okay.", "You know what?", "Ah.",
           "Look.", "By the way.", "Sorry about that.", "Bear with me.")  # fmt: skip
DETAIL = {"return": "refund", "exchange": "option", "move": "city"}
ASK = {"return": "ask refund", "exchange": "ask option", "cancel": "ask reason", "move": "ask city"}
REASONS = ("no longer needed", "ordered by mistake")
REFUNDS = ("gift card", "credit card", "PayPal account", "original payment method")
OTHER_ACTION = {"return": "exchange", "exchange": "return", "cancel": "move", "move": "cancel"}
STRUCTURES = {
    "train": ("at once", "asked", "read back", "two orders", "number last", "one message", "step by step"),
    "unseen": ("number first", "shop opens", "in pieces"),
}


def _held_out(text: str, share: float) -> bool:
    """Whether a name falls into a fixed share of all names, whatever the seed."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) < share * 2**32


@functools.cache
def _shop():
    """Per split the customers' orders, by what can be done with them; and the options, by product."""
    shop = retail()
    ready: dict = {split: {"pending": [], "delivered": []} for split in SPLITS}
    for order in shop.orders.values():
        user = order["user_id"]
        split = "train" if not _held_out(user, 0.4) else "seen" if _held_out(user, 0.2) else "unseen"
        if order["status"] in ("pending", "delivered"):
            ready[split][order["status"]].append(order)
    options: dict[str, dict[str, set[str]]] = {}
    for product in shop.products.values():
        for variant in product["variants"].values():
            for name, value in variant["options"].items():
                if value not in ("none", "no", "yes"):  # nobody asks for those by name
                    options.setdefault(product["name"], {}).setdefault(name.lower(), set()).add(value.lower())
    return ready, options


def _is_new(product: str) -> bool:
    """Whether only "unseen" speaks of the product."""
    return _held_out(product, 0.2)


class _Writer:
    """Composes one example from a generator of random numbers."""

    def __init__(self, split: str, rng: random.Random, made_up: bool = False, varied: bool = False):
        self.rng, self.split, self.made_up, self.varied = rng, split, made_up, varied
        self.voice = SPLITS.index("unseen") == SPLITS.index(split)  # False: the phrasings of training

    def say(self, what: str, **slots: str) -> str:
        text = self.rng.choice(say()[what][self.voice])
        for name in ("it", "od"):
            if name in slots:
                slots[name.capitalize()] = slots[name][0].upper() + slots[name][1:]
        for name, value in slots.items():
            text = text.replace(f"{{{name}}}", value)
        return text[0].upper() + text[1:]

    def case(self) -> None:
        """Draw what the customer wants, and what they say at first."""
        rng, (ready, options) = self.rng, _shop()
        while True:
            self.action = rng.choices(("return", "exchange", "cancel", "move"), (4, 3, 1.5, 1.5))[0]
            kind = "delivered" if self.action in ("return", "exchange") else "pending"
            order = rng.choice(ready[self.split][kind])
            items = sorted({item["name"] for item in order["items"]})
            if self.made_up:
                items = rng.sample(sorted(options), rng.randint(1, 5))
            if self.split == "unseen" and kind == "delivered" and not any(map(_is_new, items)):
                continue  # at least one product that training has not heard of
            if self.split != "unseen":
                items = [item for item in items if not _is_new(item)]
            rng.shuffle(items)
            if self.split == "unseen":
                items.sort(key=_is_new, reverse=True)
            if kind == "pending" or items:
                break
        self.order, user = order["order_id"], retail().users[order["user_id"]]
        self.name = user["name"]["first_name"]
        theirs = [other for other in user["orders"] if other != self.order]
        everyone = [other["order_id"] for other in ready[self.split][kind] if other is not order]
        self.other = rng.choice(theirs or everyone)
        self.products = [item.lower() for item in items]
        self.options = {item.lower(): options[item] for item in items}
        n = 2 if self.action == "return" and len(items) > 1 and rng.random() < 0.5 else 1
        self.items = self.products[:n] if kind == "delivered" else []
        self.detail = self.draw_detail(self.action)

    def draw_detail(self, action: str, but: str = "") -> str:
        if action == "exchange":
            name, values = self.rng.choice(sorted((k, v) for k, v in self.options[self.items[0]].items() if len(v) > 1))
            choices = [f"{name} {value}" for value in sorted(values)]
        elif action == "move":
            choices = sorted({user["address"]["city"] for user in retail().users.values()})
        else:
            choices = REFUNDS if action == "return" else REASONS
        return self.rng.choice([choice for choice in choices if choice != but])

    def possible(self) -> list[str]:
        """The twists that this case can take."""
        spare = len(self.products) > len(self.items)
        found = ["other order", "wrong order"]
        if self.action in ("return", "exchange"):
            found += ["wrong item"] * (spare and len(self.items) == 1)
            found += ["added item"] * (self.action == "return" and len(self.items) == 2)
            found += ["dropped item"] * (self.action == "return" and len(self.items) == 1 and spare)
        if self.action != "cancel":
            found.append("wrong detail")
        if len(self.items) < 2:
            found.append("change of mind")
        return found

    def write(self) -> Example:
        rng = self.rng
        self.case()
        # Twists of items are possible in fewer cases, so where they are, they come more often.
        twists = sorted(self.possible(), key=lambda twist: rng.random() ** (4 if twist.endswith("item") else 1))
        twists = twists[: rng.choice((1, 2, 2) if self.varied else (1, 1, 2))]
        clash = ({"wrong item", "dropped item"}, {"change of mind", "dropped item"}, {"wrong order", "other order"})
        while any(both <= set(twists) for both in clash):
            twists.pop()
        structure = rng.choice(STRUCTURES["unseen" if self.voice else "train"])
        if structure == "two orders" and "wrong order" in twists:
            structure = "asked"

        action, items, order, detail = self.action, list(self.items), self.order, self.detail  # as said at first
        mend = []  # what is said later to put it right
        spare = [product for product in self.products if product not in items]
        if "wrong order" in twists:
            order = self.other
            mend.append(self.say("wrong order", o=self.order, x=self.other))
        if "wrong item" in twists:
            items = spare[:1]
            mend.append(self.say("wrong item", a=self.items[0], y=spare[0]))
        if "added item" in twists:
            items = self.items[:1]
            mend.append(self.say("added item", b=self.items[1]))
        if "dropped item" in twists:
            items = [*self.items, spare[0]]
            mend.append(self.say("dropped item", y=spare[0]))
        if "wrong detail" in twists:
            detail = self.draw_detail(action, but=self.detail)
            the = "" if action != "return" else "my "
            mend.append(self.say("wrong detail", d=the + self.detail, w=the + detail))
        if "change of mind" in twists:
            action = OTHER_ACTION[self.action]
        rng.shuffle(items)

        told = [self.say_detail(self.action, detail)]
        if "change of mind" in twists:
            told.insert(0, self.say(f"{action} to {self.action}"))
            if rng.random() < 0.5 and action in ("return", "cancel"):
                told.insert(0, self.say_detail(action, self.draw_detail(action)))
        talk = [self.say("talk")] if rng.random() < 0.4 else []
        greet = [self.say("greet", name=self.name)] if rng.random() < 0.7 else []
        aside = [self.say("other order", x=self.other)] if "other order" in twists else []
        number = self.say("order", o=order)
        ask = self.say(ASK[action])
        ok, bye = self.say("ok"), self.say("bye")
        with_number, without = self.request(action, items, order), self.request(action, items, "")

        C, S = "Customer", "Shop"
        if structure == "at once":
            opening = [*aside, with_number] if rng.random() < 0.5 else [with_number, *aside]
            turns = [(C, [*greet, *talk, *opening, *told]), (S, [ok]), (C, mend or [bye])]
        elif structure == "asked":
            turns = [(C, [*greet, *talk, without]), (S, [self.say("ask order")]), (C, [number, *aside]),
                     (S, [ask]), (C, [*told, *mend])]  # fmt: skip
        elif structure == "read back":
            turns = [(C, [*greet, with_number]), (S, [ask]), (C, [*talk, *told, *aside]), (S, [ok]), (C, mend or [bye])]
        elif structure == "two orders":
            pair = [self.order, self.other]
            rng.shuffle(pair)
            which = self.say("ask both", **{"1": pair[0], "2": pair[1]})
            turns = [
                (C, [*greet, without]),
                (S, [which]),
                (C, [number, *aside]),
                (S, [ask]),
                (C, [*talk, *told, *mend]),
            ]
        elif structure == "number last":
            turns = [(C, [*greet, *talk, without, *told]), (S, [self.say("ask order")]), (C, [*aside, number, *mend])]
        elif structure == "one message":
            turns = [(C, [*greet, *aside, with_number, *talk, *told, *mend])]
        elif structure == "step by step":
            turns = [(C, [*greet, *talk, with_number]), (S, [ask]), (C, told), (S, [ok]), (C, [*aside, *mend] or [bye])]
        elif structure == "number first":
            turns = [(C, [*greet, self.say("about", o=order)]), (S, [self.say("what")]), (C, [*talk, without, *told]),
                     (S, [ok]), (C, [*aside, *mend] or [bye])]  # fmt: skip
        elif structure == "shop opens":
            turns = [(S, [self.say("welcome")]), (C, [*aside, *talk, with_number]), (S, [ask]), (C, [*told, *mend]),
                     (S, [ok]), (C, [bye])]  # fmt: skip
        else:  # in pieces
            turns = [(C, [without]), (C, [*talk, number]), *((C, [piece]) for piece in (*aside, *told, *mend))]
        if self.varied:
            turns = self.vary(turns, aside)
        text = "\n".join(f"{who}: {' '.join(parts)}" for who, parts in turns)
        meant = Facts(self.action, self.order, frozenset(self.items), self.detail)
        hard = (*twists, *["two items"] * (len(self.items) > 1), *["small talk"] * bool(talk))
        return Example(text, summary(meant), hard, structure)

    def vary(self, turns: list[tuple[str, list[str]]], aside: list[str]) -> list[tuple[str, list[str]]]:
        """The same talk with the aside in any of the customer's turns, and with words that say nothing."""
        rng = self.rng
        turns = [(who, [part for part in parts if part not in aside]) for who, parts in turns]
        theirs = [parts for who, parts in turns if who == "Customer"]
        for sentence in aside:
            place = rng.choice(theirs)
            place.insert(rng.randint(1 if place is theirs[0] else 0, len(place)), sentence)
        for parts in theirs:
            for i in reversed(range(len(parts))):
                if rng.random() < 0.15:
                    parts.insert(i, rng.choice(FILLERS))
        return [(who, parts) for who, parts in turns if parts]

    def request(self, action: str, items: list[str], order: str) -> str:
        source = self.rng.choice(say()["from"][self.voice]).replace("{o}", order) if order else ""
        if action in ("cancel", "move"):
            return self.say(action, od=f"order {order}" if order else self.rng.choice(("an order", "my order")))
        joint = self.rng.choice(
            (" and the ", " and also the ") if not self.voice else (" plus the ", ", and then the ")
        )
        return self.say(action, it="the " + joint.join(items), bare=items[0], fr=source)

    def say_detail(self, action: str, detail: str) -> str:
        return self.say(DETAIL.get(action, detail), d=detail)


def make(split: str, n: int, seed: int = 0, made_up: bool = False, varied: bool = False) -> list[Example]:
    """n different examples of a split, the same for the same seed; a larger n begins with those of a smaller one.

    made_up: the orders' items are drawn anew, so that there is no learning by heart what was bought together.
    varied: more twists at once, the aside anywhere, words that say nothing: to learn from, not to be measured on.
    Raises CourseError for an unknown split or a negative n.
    """
    if split not in SPLITS:
        raise CourseError(f"unknown split {split!r}; choose {', '.join(SPLITS)}")
    if n < 0:
        raise CourseError(f"n must be 0 or more, not {n}")
    writer = _Writer(split, random.Random(f"{split} {seed}"), made_up, varied)
    found: dict[str, Example] = {}
    while len(found) < n:
        example = writer.write()
        found.setdefault(example.dialogue, example)
    return list(found.values())


def renumber(example: Example, rng: random.Random) -> Example:
    """The same conversation about orders of other, made-up numbers."""
    numbers = sorted(set(re.findall(r"#W\d+", example.dialogue)))
    new = dict(zip(numbers, (f"#W{n}" for n in rng.sample(range(1_000_000, 10_000_000), len(numbers))), strict=True))
    dialogue, line = (
        re.sub(r"#W\d+", lambda found: new[found[0]], text) for text in (example.dialogue, example.summary)
    )
    return dataclasses.replace(example, dialogue=dialogue, summary=line)


def messages(dialogue: str) -> list[dict[str, str]]:
    """What the model is asked: the job, then the conversation."""
    return [dict(role="system", content=INSTRUCTION), dict(role="user", content=dialogue)]


def check(examples: Sequence[Example], most: int | None = None, length: Callable[[Example], int] | None = None) -> None:
    """Raise CourseError, with the number of the example, for one that is empty, comes twice, or is too long.

    length(example) in the unit of `most`, tokens for instance.
    """
    if not examples:
        raise CourseError("the data set has no examples; give at least one")
    first: dict[str, int] = {}
    for i, example in enumerate(examples):
        for part in ("dialogue", "summary"):
            if not getattr(example, part).strip():
                raise CourseError(f"example {i} has an empty {part}; write one or leave the example out")
        if (before := first.setdefault(example.dialogue.strip(), i)) != i:
            raise CourseError(f"example {i} has the same dialogue as example {before}; keep one of the two")
        if most is not None and length is not None and (long := length(example)) > most:
            raise CourseError(f"example {i} has {long} tokens, more than {most}; shorten it or leave it out")
