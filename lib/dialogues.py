"""Conversations between a shop and its customers, each with a summary that can be checked fact by fact.

Orders, items, options and customers are the shop's own (lib.retail). The talk is composed here, from a seed: a customer
wants one of four things, and something makes it hard: another order number, a correction, a change of mind, a second
item, small talk. What is true at the end is in the summary, one line in a fixed form, from which `facts` reads it back.

Three splits. "train" and "seen" have the same phrasings and turn structures, but no customer or order in common.
"unseen" has other phrasings, other products and other turn structures as well.
"""

import dataclasses
import functools
import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lib.errors import CourseError
from lib.retail import retail

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


# --- how people say it: for each thing to say, the phrasings of "train" and "seen", then those of "unseen" -----------

SAY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "greet": (
        (
            "Hi!",
            "Hello.",
            "Hi, this is {name}.",
            "Good morning, {name} here.",
            "Hello, my name is {name}.",
            "Hey there.",
            "Hi there.",
            "Good afternoon, {name} speaking.",
            "Hello, it's {name} again.",
            "Dear team, I am {name}.",
            "Good day to you.",
            "Hello there, {name} writing.",
        ),
        (
            "Good evening.",
            "Greetings, {name} speaking.",
            "Hiya, it's {name}.",
        ),
    ),
    "talk": (
        (
            "Lovely weather today.",
            "I hope you had a nice weekend.",
            "Sorry, my dog is barking.",
            "I was number 7 in the queue.",
            "It is my third coffee already.",
            "My sister told me about your shop.",
            "I have been a customer for 12 years.",
            "The courier was very friendly.",
            "Sorry for the noise, we are moving house.",
            "I only have 5 minutes.",
            "It has been a long day.",
            "My neighbour bought the same.",
            "I tried the website, but it was slow.",
            "My coffee has gone cold.",
            "I have 2 children and little time.",
            "The bus was full again today.",
            "Your shop is in my street, I think.",
        ),
        (
            "What a week, my train was late every day.",
            "The kids are shouting, ignore that.",
            "I saw your advert on channel 5 last night.",
            "You should hear the rain here.",
        ),
    ),
    "return": (
        (
            "I want to return {it}{fr}.",
            "I'd like to send {it}{fr} back.",
            "Could I give back {it}{fr}?",
            "Please help me return {it}{fr}.",
            "I am not happy with {it}{fr} and want my money back.",
            "I would like a refund for {it}{fr}.",
            "{It}{fr} should go back to you.",
            "I have to return {it}{fr}.",
            "Please take {it}{fr} back.",
            "I don't like {it}{fr} and will send it back.",
            "{It}{fr} can go back.",
            "Is a refund possible for {it}{fr}?",
            "I have no need of {it}{fr}, please refund me.",
            "{It}{fr} was a bad buy, I want to be paid back.",
            "I was hoping to hand {it}{fr} back to you.",
            "{It}{fr} did not meet my hopes, so I am returning it.",
            "Would you take back {it}{fr} and repay me?",
            "I am sending {it}{fr} back.",
        ),
        (
            "Can you take {it}{fr} back?",
            "{It}{fr} let me down; I'd like my money again.",
            "How do I ship {it}{fr} back for a refund?",
            "I don't want to keep {it}{fr}.",
        ),
    ),
    "exchange": (
        (
            "I want to exchange {it}{fr}.",
            "Can I swap {it}{fr} for another one?",
            "I'd like to change {it}{fr} for a different version.",
            "Please exchange {it}{fr}.",
            "I picked the wrong kind of {bare}{fr} and would like to swap it.",
            "I need another version of {it}{fr}.",
            "{It}{fr} should be exchanged, please.",
            "{It}{fr} is the wrong variant, can I have another?",
            "Would you change {it}{fr} for me?",
            "Instead of {it}{fr} I'd like a different one.",
            "I ordered {it}{fr}, but I need a different model.",
            "Could {it}{fr} be replaced?",
            "Something else than {it}{fr} would suit me better, can we exchange?",
            "I'd be glad of another variant of {it}{fr}.",
            "{It}{fr} does not suit me, please send a different one in its place.",
            "An exchange of {it}{fr}, please.",
        ),
        (
            "May I trade {it}{fr} in for another model?",
            "Could you replace {it}{fr} with another variant?",
            "{It}{fr} is not the version I need, please switch it.",
        ),
    ),
    "cancel": (
        (
            "I want to cancel {od}.",
            "Please cancel {od}.",
            "Can you cancel {od} for me?",
            "I'd like to call off {od}.",
            "I need to stop {od} before it ships.",
            "{Od} has to be cancelled.",
            "Don't ship {od}, please.",
            "{Od} is to be cancelled.",
            "I don't want {od} any longer.",
            "Please take {od} out of the system, I won't take it.",
            "Is it too late to withdraw {od}?",
            "Please forget about {od}, I won't buy it.",
            "I'd rather not have {od}, please cancel.",
            "{Od} should never leave your warehouse.",
            "I'm writing to cancel {od}.",
            "Can {od} still be revoked?",
        ),
        (
            "Could you undo {od}?",
            "Kindly drop {od} altogether.",
            "I'm calling to get rid of {od} before you ship it.",
        ),
    ),
    "move": (
        (
            "I want to change the address of {od}.",
            "Please send {od} to another address.",
            "The address of {od} is wrong.",
            "Can you deliver {od} somewhere else?",
            "{Od} should go to my new address.",
            "I need a new delivery address for {od}.",
            "{Od} is going to the wrong place.",
            "I moved, so {od} needs another address.",
            "Could {od} be delivered to a different city?",
            "Please update where {od} is shipped.",
            "I won't be at home when {od} comes, send it elsewhere.",
            "Please change the destination of {od}.",
            "{Od} must not go to the old address.",
            "I gave you an outdated address for {od}.",
            "Can you have {od} brought to another town?",
            "A different address for {od}, please.",
        ),
        (
            "Could you reroute {od}?",
            "{Od} is on its way to my old flat, please redirect it.",
            "Where {od} goes must change.",
        ),
    ),
    "refund": (
        (
            "Please refund it to my {d}.",
            "The money should go to my {d}.",
            "Refund to the {d}, please.",
            "Put the money on my {d}.",
            "I'd like the refund on my {d}.",
            "To my {d}, please.",
            "I want it back on my {d}.",
            "{d} would be best for the refund.",
            "You can pay it back to my {d}.",
            "The refund goes to my {d}.",
            "Pay me through my {d}.",
            "My {d} is where I want it.",
            "I'd choose my {d}.",
            "Let it come to my {d}.",
            "The {d}, I think.",
        ),
        (
            "Just credit my {d}.",
            "My {d} should get the money.",
            "Use my {d} for the refund.",
        ),
    ),
    "option": (
        (
            "I'd like {d} instead.",
            "Make it {d}, please.",
            "The new one should have {d}.",
            "I want the one with {d}.",
            "Please send me {d}.",
            "It should be {d}.",
            "Give me {d}.",
            "{d}, please.",
            "I was hoping for {d}.",
            "The right one has {d}.",
            "Swap it for one with {d}.",
            "Do you have {d}?",
            "One with {d}, if I may.",
            "{d} is what I was after.",
            "I would be happy with {d}.",
            "My choice is {d}.",
        ),
        (
            "What I need is {d}.",
            "If you have it with {d}, then that.",
            "Could I get {d} this time?",
        ),
    ),
    "no longer needed": (
        (
            "I no longer need it.",
            "I don't need it any more.",
            "It is not needed now.",
            "We can do without it now.",
            "I have no use for it any longer.",
            "I won't need it after all.",
            "My plans changed, it is of no use to me.",
            "I already have one, so it is not needed.",
            "We got one as a gift, so it is superfluous.",
            "There is no reason to have it now.",
            "I can manage without.",
            "I found one in the cellar, so I can do without.",
            "I have changed my plans and need none.",
            "We have enough of those now.",
            "It would only stand around unused.",
        ),
        (
            "There is simply no need for it now.",
            "It has become unnecessary.",
            "It turns out I won't need any of it.",
        ),
    ),
    "ordered by mistake": (
        (
            "I ordered it by mistake.",
            "It was an accident, I never meant to order.",
            "I clicked the wrong button.",
            "My son ordered it without asking.",
            "It was a mistake of mine.",
            "I pressed buy by accident.",
            "My daughter was playing with my phone and ordered it.",
            "That purchase was an error.",
            "I did not intend to buy it.",
            "I must have ordered it in my sleep.",
            "I wanted to look at it only, and it got ordered.",
            "My thumb hit the button before I noticed.",
            "That was not on purpose.",
            "I meant to close the page and bought it.",
            "Someone at home pressed the button without telling me.",
            "I had not meant to buy anything.",
            "Clumsy me, I tapped on buy.",
        ),
        (
            "My cat walked over the keyboard and bought it.",
            "I didn't mean to place it.",
            "A slip of the finger, sorry.",
        ),
    ),
    "city": (
        (
            "I now live in {d}.",
            "It should go to {d}.",
            "The new city is {d}.",
            "Please ship it to {d}.",
            "Send it to my place in {d}.",
            "We moved to {d}.",
            "{d}, please.",
            "I am in {d} now.",
            "Deliver it to my office in {d}.",
            "My family lives in {d}, bring it there.",
            "From now on I live in {d}.",
            "It has to reach me in {d}.",
            "My address is in {d} these days.",
            "{d} would be right.",
        ),
        (
            "I've just moved to {d}.",
            "{d} is where I am now.",
            "My new home is in {d}.",
        ),
    ),
    "order": (
        (
            "It is {o}.",
            "The order number is {o}.",
            "Sure, {o}.",
            "{o}.",
            "Order {o}.",
            "My order is {o}.",
            "Let me see, {o}.",
            "It says {o}.",
            "The one with {o}.",
            "Number {o}.",
            "One second, it is {o}.",
        ),
        (
            "Here you go: {o}.",
            "I have it right here, {o}.",
            "That would be {o}.",
        ),
    ),
    "from": (
        (
            " from order {o}",
            " from {o}",
            " in order {o}",
            " of order {o}",
            ", order {o},",
            " (order {o})",
            " I got with {o}",
            " bought in {o}",
        ),
        (
            " out of {o}",
            " that came with {o}",
            " in my order {o}",
        ),
    ),
    "other order": (
        (
            "I also have order {x}, but that one is fine.",
            "My other order {x} is all right.",
            "Order {x} was perfect, no problem there.",
            "Thanks for {x}, by the way, that came quickly.",
            "This is not about {x}.",
            "With {x} everything went well.",
            "Please don't touch {x}, that is another one.",
            "Order {x} is my husband's, it does not matter here.",
            "Another order, {x}, is still on its way.",
            "I don't mean {x}.",
            "Nothing to do with {x}, of course.",
            "You sent me {x} last month, which I like.",
            "Leave {x} as it is.",
            "I have no complaint about {x}.",
            "Just so you know, {x} arrived safely.",
            "{x} belongs to my sister, pay no attention to it.",
            "I am happy with {x}, keep that as it is.",
            "You will also see {x}, ignore it.",
            "{x} is a different matter.",
            "Nothing needs to happen to {x}.",
            "I mention {x} only so that you know.",
        ),
        (
            "Please leave {x} alone.",
            "{x} is my wife's and has nothing to do with it.",
            "Don't mix it up with {x}.",
        ),
    ),
    "wrong order": (
        (
            "Sorry, I meant order {o}, not {x}.",
            "No wait, the number is {o}.",
            "Oops, wrong number, it is {o}.",
            "I misread that, it's {o} and not {x}.",
            "Correction: the order is {o}.",
            "{x} was wrong, it should be {o}.",
            "Forget {x}, take {o}.",
            "I gave you the wrong one, {o} is right.",
            "Not {x}. It is {o}.",
            "Wait, I looked at an old mail: {o}.",
            "Please use {o} instead of {x}.",
            "My mistake, {o}.",
            "Ah, that was the number of an earlier mail, the right one is {o}.",
            "Pardon, {o} is what I should have said.",
            "It must be {o}, I took {x} from the wrong line.",
            "I meant to type {o}.",
            "Strike that. {o}.",
            "Hold on, it is not {x} but {o}.",
            "{o} is the correct one, I confused it with {x}.",
            "Wrong slip in my hand, the order is {o}.",
            "Take {o}, please, I mistook {x} for it.",
            "Let me look again. Yes, {o}, the first was wrong.",
        ),
        (
            "Hang on, wrong e-mail. {o} it is.",
            "Scratch that number, {o} is the one.",
            "I read you an old one; take {o} rather than {x}.",
        ),
    ),
    "wrong item": (
        (
            "Sorry, not the {y}, the {a}.",
            "I mean the {a}, not the {y}.",
            "Wait, it is the {a}, the {y} is fine.",
            "Actually I will keep the {y}, it is the {a}.",
            "No, the {a}. I mixed it up with the {y}.",
            "It's the {a} I meant, the {y} works well.",
            "Hm, the {y} is good. I was talking about the {a}.",
            "Please make that the {a} and not the {y}.",
            "I said {y}, but I meant the {a}.",
            "Correction, the {a}, I like the {y}.",
            "The {y} is not the problem, the {a} is.",
            "I confused the {y} with the {a}, the {a} is what this is about.",
            "Oh no, I named the wrong thing: the {a}.",
            "The {y} I keep. The {a} is the one.",
            "I wrote {y} and had the {a} in mind.",
            "Nothing is wrong with the {y}, it is about the {a}.",
            "Strike the {y} and put down the {a}.",
            "Only the {a}, I named the {y} by mistake.",
        ),
        (
            "Did I say {y}? I was thinking of the {a}.",
            "The {y} can stay, my trouble is with the {a}.",
        ),
    ),
    "added item": (
        (
            "And the {b} too, please.",
            "Oh, and the {b} as well.",
            "Please add the {b}.",
            "The {b} should go back as well.",
            "I also want to return the {b}.",
            "I want to send back the {b} too.",
            "The {b} likewise, please.",
            "Could you also take the {b}?",
            "One more thing: the {b} goes back, too.",
            "Plus the {b}, please.",
            "The {b} can go the same way.",
            "While you do that, the {b} is to go back as well.",
            "There is also the {b}, which I do not want either.",
            "Put the {b} on the list, too.",
            "I forgot the {b}, please take that, too.",
            "And I would be rid of the {b} as well.",
            "My refund should cover the {b} as well.",
            "Both, in fact: the {b} goes with it.",
        ),
        (
            "While we are at it, the {b} can come along.",
            "Same thing for the {b}.",
        ),
    ),
    "dropped item": (
        (
            "On second thought I will keep the {y}.",
            "Forget about the {y}, I like it.",
            "Please leave out the {y}.",
            "Not the {y} after all.",
            "Actually the {y} stays with me.",
            "I'd better keep the {y}.",
            "The {y} is fine, only the other one.",
            "My wife likes the {y}, so we keep it.",
            "You can take the {y} off again.",
            "Hold on, the {y} I want to have.",
            "I have come to like the {y}, so I keep it.",
            "The {y} I will not give away.",
            "My son wants the {y}, so not that.",
            "Only the other one then, the {y} is staying.",
            "Cross out the {y}.",
            "I tried the {y} again, and it is good.",
        ),
        (
            "The {y} has grown on me, so that one stays here.",
            "My brother wants to have the {y}, so take it off the list.",
        ),
    ),
    "wrong detail": (
        (
            "Actually, {d} is better.",
            "No, {d}, not {w}.",
            "Wait, I mean {d}.",
            "Sorry, {d} instead of {w}.",
            "Not {w} after all, {d} please.",
            "I changed my mind: {d}.",
            "Make that {d} and not {w}.",
            "Correction: {d}.",
            "{w} is wrong, {d} is right.",
            "I'd rather have {d}.",
            "Hm, {d} after all.",
            "Strike {w}, it is to be {d}.",
            "{d} would be better than {w}.",
            "I misspoke, {d}.",
            "After all I want {d}.",
            "{w} was a slip, {d} is meant.",
            "Let it be {d}.",
        ),
        (
            "Let me correct myself: {d}.",
            "Hm, rather {d} than {w}.",
        ),
    ),
    "exchange to return": (
        (
            "Actually, I don't want another one, I want to return it.",
            "I changed my mind, I'd rather return it for a refund.",
            "No, no exchange. I want my money back.",
            "On second thought, just take it back.",
            "Skip the exchange, a refund is fine.",
            "Better give me the money for it.",
            "I'd prefer a refund to a swap.",
            "Forget the other version, I'll send it back for good.",
            "You know, I want no other one. Refund me, please.",
            "A different one would not help, please pay me back.",
            "No swap then, I return it.",
            "The money would be better than another one.",
        ),
        (
            "Know what, skip the swap and give me a refund.",
            "Thinking about it, I'd sooner have the money.",
        ),
    ),
    "return to exchange": (
        (
            "Actually, I would rather exchange it.",
            "I changed my mind, I want to exchange it instead.",
            "No, no refund. Please swap it.",
            "On second thought, an exchange is better.",
            "Skip the refund, send me another one.",
            "Better change it for another version.",
            "I'd prefer a swap to a refund.",
            "Forget the money, I'll take a different one.",
            "You know, I do want one, but another version.",
            "A refund would not help, please send another variant.",
            "No refund then, I swap it.",
            "Another one would be better than the money.",
        ),
        (
            "Know what, skip the refund and replace it.",
            "Thinking about it, I'd sooner have another version.",
        ),
    ),
    "cancel to move": (
        (
            "Actually, don't cancel it, just change the address.",
            "I changed my mind, I want it, but at a new address.",
            "No, keep the order, only the address changes.",
            "I do want it, only somewhere else.",
            "Better send it to another address.",
            "Don't cancel, deliver it to a different place.",
            "Forget cancelling, I only need it redirected.",
            "You know, I do want it, but the address must change.",
            "No cancelling then, a new address is all.",
            "Let it come, but to another place.",
            "Leave the order in place and change where it goes.",
        ),
        (
            "Know what, keep it and redirect it.",
            "Thinking about it, only deliver it elsewhere.",
        ),
    ),
    "move to cancel": (
        (
            "Actually, forget the address, cancel it.",
            "I changed my mind, please cancel it instead.",
            "No, no new address. I want to cancel.",
            "I don't want it at all any more, cancel it.",
            "Better call it off.",
            "Skip the new address, just cancel.",
            "Forget the delivery, I don't want it now.",
            "You know, I do not want it any more, please cancel.",
            "No new address then, I cancel.",
            "Let it not come at all.",
            "Drop the address, I want to be out of this order.",
        ),
        (
            "Know what, skip the redirecting and call it off.",
            "Thinking about it, I'd sooner not get it at all.",
        ),
    ),
    "about": (
        (),
        (
            "It is about order {o}.",
            "I have a question on {o}.",
            "Something came up with {o}.",
        ),
    ),
    "bye": (
        (
            "Thanks!",
            "That is all.",
            "Thank you.",
            "Yes, please.",
            "Great, thanks.",
            "Good, that's it.",
            "Thanks a lot.",
            "Yes, that is right.",
            "No, that was it.",
        ),
        (
            "Perfect, have a good one.",
            "Cheers.",
            "That settles it.",
        ),
    ),
    "welcome": (
        (),
        (
            "Welcome to the shop, how may I help?",
            "Good day, what brings you here?",
        ),
    ),
    "ask order": (
        (
            "What is the order number?",
            "Which order is it?",
            "May I have the order number?",
            "Please tell me the order.",
            "Do you have the order number at hand?",
        ),
        (
            "Could you give me the number?",
            "Which purchase do you mean?",
        ),
    ),
    "ask both": (
        (
            "I see {1} and {2}. Which one?",
            "You have {1} and {2}, which is it?",
            "Is it {1} or {2}?",
        ),
        ("Two are open, {1} and {2}; which do you mean?",),
    ),
    "ask refund": (
        (
            "Where should the refund go?",
            "How do you want the refund?",
            "To which account shall we refund?",
            "Which payment method for the refund?",
        ),
        ("Which way would you like to be paid back?",),
    ),
    "ask option": (
        (
            "Which one would you like?",
            "What should the new one be like?",
            "Which version do you need?",
        ),
        ("And in place of it?",),
    ),
    "ask reason": (
        (
            "May I ask why?",
            "What is the reason?",
            "Is there a reason?",
        ),
        ("What made you decide that?",),
    ),
    "ask city": (
        (
            "Where should it go?",
            "What is the new city?",
            "Which city, please?",
        ),
        ("And the destination?",),
    ),
    "ok": (
        (
            "I can do that.",
            "Let me see.",
            "Sure.",
            "One moment, please.",
            "All right, anything else?",
            "Noted.",
            "Understood. Is there more?",
            "Of course.",
        ),
        (
            "Let me look into it.",
            "Happy to help with that.",
        ),
    ),
    "what": (
        (),
        (
            "What can I do about it?",
            "I have it open. Yes?",
        ),
    ),
}

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
        text = self.rng.choice(SAY[what][self.voice])
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
        source = self.rng.choice(SAY["from"][self.voice]).replace("{o}", order) if order else ""
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
