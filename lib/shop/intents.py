"""What does a customer want? Messages to a shop with a right answer each: made ones without end, and a few real ones.

The made ones come from our own phrasings with the shop's products put in. Some phrasings are kept for a test of their
own, so that a model can be asked about words it never saw. The real ones are what people wrote for tau2-bench's
customers (lib.shop.retail); what such a customer is to get in the end tells what the message was about.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from lib.decide.evaluation import overlap
from lib.errors import CourseError
from lib.shop.retail import Retail

INTENTS = ("return", "swap", "cancel", "address")
ACTIONS = {
    "return_delivered_order_items": "return",
    "exchange_delivered_order_items": "swap",
    "modify_pending_order_items": "swap",
    "cancel_pending_order": "cancel",
    "modify_pending_order_address": "address",
    "modify_user_address": "address",
}
PHRASINGS = {  # the last four of each are the unseen ones
    "return": (
        "I want to return the {a} I received.",
        "Can I send back the {a} and get a refund?",
        "The {a} from my order broke, I would like to return it.",
        "Please tell me how to return my {a} for a refund.",
        "I'd like my money back for the {a}, I am sending it back.",
        "Hello, I need to return a {a} and a {b}.",
        "The {a} is not what I expected and I want a refund.",
        "I no longer need the {a} that arrived yesterday, so I wish to return it.",
        "Your {a} arrived in pieces. How do I get my money?",
        "I have no use for the {a}; where shall I post it to?",
        "We unpacked the {a} and do not like it, take it away again please.",
        "Reimburse me for the {a}, it is on its way to you.",
    ),
    "swap": (
        "I want to exchange my {a} for a {b}.",
        "Can I swap the {a} for one in another colour?",
        "Please exchange the {a} in my order for a larger size.",
        "I would like to change the {a} to a cheaper version.",
        "I ordered the wrong {a}, could you exchange it for a black one?",
        "Hello, I need to modify my order: a {b} instead of the {a}.",
        "The {a} is too small, please exchange it for a bigger one.",
        "I'd like to upgrade the {a} in my order to the most expensive option.",
        "Rather than the {a} I would now prefer a {b}.",
        "Is the {a} available in cotton? Then give me that one.",
        "My {a} has the wrong size, can you send the next one up?",
        "Replace the {a} by one with more storage.",
    ),
    "cancel": (
        "I want to cancel my order.",
        "Please cancel the {a} I just ordered.",
        "Can I cancel my pending order of a {a}?",
        "I ordered the {a} by mistake, cancel it please.",
        "Hello, I need to cancel an order with a {a} and a {b}.",
        "I'd like to cancel everything I ordered today.",
        "I no longer need the {a}, cancel the order before it ships.",
        "Cancel the order of the {a}, I found it cheaper.",
        "Stop the order with the {a}, I have changed my mind.",
        "I did not mean to buy the {a}; do not ship it.",
        "Please call off my purchase of the {a}.",
        "Forget about the {a} I bought an hour ago.",
    ),
    "address": (
        "I want to change the address of my order.",
        "Please deliver the {a} to my new address.",
        "I moved, can you update my address?",
        "The shipping address of my {a} is wrong, please change it.",
        "Hello, I need to change where my {a} will be delivered.",
        "Can you send the {a} to my office address instead?",
        "My order with the {a} has the old address.",
        "I'd like to update the default address of my account.",
        "We live in Seattle now; the {a} should go there.",
        "Ship the {a} to suite 641 instead.",
        "There is a typo in the street you have for me.",
        "Could my daughter's home get the {a}?",
    ),
}
UNSEEN = 4


class Message(NamedTuple):
    text: str
    intent: str


def made(shop: Retail, n: int, seed: int = 0, unseen: bool = False) -> list[Message]:
    """n messages from our phrasings, the intents in turn; unseen: only from the phrasings that are kept apart."""
    if n < 1:
        raise CourseError(f"at least one message, not {n}")
    draw, messages = random.Random(f"{seed} {unseen}"), []
    names = sorted(product["name"].lower() for product in shop.products.values())
    for i in range(n):
        intent = INTENTS[i % len(INTENTS)]
        phrasings = PHRASINGS[intent][-UNSEEN:] if unseen else PHRASINGS[intent][:-UNSEEN]
        one, other = draw.sample(names, 2)
        messages.append(Message(draw.choice(phrasings).format(a=one, b=other), intent))
    return messages


def real(shop: Retail) -> list[Message]:
    """What people wrote, where all that is done for the customer has one intent; near copies are left out.

    The texts address the customer: "You want to return …".
    """
    messages: list[Message] = []
    for task in shop.tasks:
        actions = {action["name"] for action in task["evaluation_criteria"]["actions"]}
        intents = {ACTIONS[name] for name in actions if name in ACTIONS}
        text = " ".join(task["user_scenario"]["instructions"]["reason_for_call"].split())
        if len(intents) == 1 and not (messages and near_copy(text, messages)):
            messages.append(Message(text, intents.pop()))
    return messages


def near_copy(text: str, messages: Sequence[Message], n: int = 5) -> bool:
    """Whether a third of a text's runs of n words stand in one of the messages already."""
    return overlap([text], [message.text for message in messages], n)[0] > 1 / 3


def words_of(text: str) -> list[str]:
    return re.findall("[a-z']+", text.lower())


class LinearReader:
    """A specialist of one weight for each feature and intent, softmax: logistic regression on `features`.

    features: texts → (N, features), such as lib.weights.encoder's vectors.
    """

    def __init__(
        self,
        features: Callable[[list[str]], torch.Tensor],
        messages: Sequence[Message],
        steps: int = 150,
        seed: int = 0,
    ):
        self.features = features
        x, y = features([m.text for m in messages]), torch.tensor([INTENTS.index(m.intent) for m in messages])
        torch.manual_seed(seed)
        self.layer = nn.Linear(x.shape[1], len(INTENTS))
        optimizer = torch.optim.AdamW(self.layer.parameters(), lr=0.05, weight_decay=1e-3)
        for _ in range(steps):
            loss = F.cross_entropy(self.layer(x), y)  # (N, intents) against (N,)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def __call__(self, text: str) -> str:
        return self.read([text])[0]

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> list[str]:
        """The intent of each text, all at once."""
        return [INTENTS[i] for i in self.layer(self.features(list(texts))).argmax(1).tolist()]


class WordCounter(LinearReader):
    """A linear reader of a few hundred weights, whose features are the words that occur."""

    def __init__(self, messages: Sequence[Message], steps: int = 150, seed: int = 0):
        self.places = {w: i for i, w in enumerate(sorted({w for m in messages for w in words_of(m.text)}))}
        super().__init__(self.bags, messages, steps, seed)

    def bags(self, texts: Sequence[str]) -> torch.Tensor:
        """(N, words): 1 where a known word occurs."""
        x = torch.zeros(len(texts), len(self.places))
        for i, text in enumerate(texts):
            x[i, [self.places[w] for w in set(words_of(text)) if w in self.places]] = 1
        return x

    def knows(self, text: str) -> float:
        """The share of a text's words that occurred in training."""
        words = words_of(text)
        return sum(w in self.places for w in words) / max(len(words), 1)


def right(reader: Callable[[str], str], messages: Sequence[Message]) -> list[bool]:
    """For each message whether a reader, text → intent, has it right."""
    return [reader(message.text) == message.intent for message in messages]
