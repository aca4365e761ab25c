"""Lesson 12, capstone: the exercises."""

import math

from lib.exercises.exercise import Exercise, Property
from lib.exercises.properties import integer, number, require, verdicts
from lib.exercises.verdict import Wrong

# --- read_refund --------------------------------------------------------------------------------------------


def _read(answer, line):
    got = answer(line)
    if not isinstance(got, tuple | list):
        raise Wrong(
            f"`read_refund` returned something of type {type(got).__name__}; a tuple is expected: three parts, "
            "or the empty tuple `()` for a line that is no refund."
        )
    return tuple(got)


def _order(rng):
    return f"#W{integer(rng, 10**6, 10**7 - 1)}"


def _no_refund(answer, line, says):
    require(_read(answer, line) == (), says, f"line {line!r}")


def _read_right(answer, rng):
    for method in ("gift card", "paypal", "credit card"):
        order, cents = _order(rng), integer(rng, 101, 99999)
        line = f"refund {order} {cents // 100}.{cents % 100:02d} to {method}"
        got = _read(answer, line)
        require(len(got) == 3, "A line in the right form is not read.", f"line {line!r}")
        require(got[0] == order, "The order's number is not as it stands in the line, with # and W.", f"got {got[0]!r}")
        require(not isinstance(got[1], str), "The amount comes back as text; a whole number of cents is expected.")
        require(
            got[1] != cents / 100 or isinstance(got[1], int),
            "The amount comes back in dollars. Money is counted in whole cents: 0.1 + 0.2 is not 0.3.",
        )
        require(
            got[1] == cents and isinstance(got[1], int),
            "The amount is wrong. int(float(text) * 100) cuts a cent "
            "off where the float lies just below: take dollars and cents apart as text.",
            f"{line!r}: got {got[1]!r}",
        )
        require(got[2] == method, "The method is not as it stands in the line.", f"got {got[2]!r}")
    order = _order(rng)
    for cents in (1999, 457, 115, 1001, 29, 110):  # floats of which times 100 lie below or above
        got = _read(answer, f"refund {order} {cents // 100}.{cents % 100:02d} to paypal")
        require(
            got[1:2] == (cents,),
            "The amount is wrong. int(float(text) * 100) cuts a cent off where the float lies "
            "just below: take dollars and cents apart as text.",
        )


def _read_whole(answer, rng):
    line = f"refund {_order(rng)} 12.50 to paypal"
    _no_refund(
        answer,
        f"{line} and {line}",
        "A line with more behind it is read. The whole line must match, not its beginning: fullmatch, not match.",
    )
    _no_refund(
        answer,
        f"Sure! {line}",
        "A line with talk before it is read. The whole line must match, not a part of it: fullmatch, not search.",
    )
    _no_refund(
        answer,
        f"{line}\n{line}",
        "Two lines are read as one. A model that writes a second line may mean "
        "anything: the text must be one line and nothing else.",
    )
    _no_refund(
        answer,
        f"{line}\n",
        "A line break at the end is let through. `$` matches before a last line break; fullmatch does not.",
    )


def _read_strict(answer, rng):
    order = _order(rng)
    _no_refund(
        answer,
        f"refund {order} 12.50 to my cousin",
        "It pays to a method that the shop does not have. There are three: gift card, paypal, credit card.",
    )
    _no_refund(answer, f"refund {order} -12.50 to paypal", "A negative amount is read: that would be a charge.")
    _no_refund(
        answer,
        f"refund {order} 12.5 to paypal",
        "12.5 is read. Two places after the point, or it is no amount: 12.5 may have lost a digit.",
    )
    _no_refund(answer, f"refund {order} 12 to paypal", "An amount without cents is read. The form asks for two places.")
    _no_refund(answer, f"refund {order}0 12.50 to paypal", "An order of eight digits is read; there are seven.")
    _no_refund(answer, f"refund {order[:-1]} 12.50 to paypal", "An order of six digits is read; there are seven.")
    _no_refund(answer, f"refund {order[2:]} 12.50 to paypal", "An order without #W is read.")
    _no_refund(answer, f"cancel {order} 12.50 to paypal", "Another word than refund is read as a refund.")
    _no_refund(
        answer,
        f"refund {order} 12x50 to paypal",
        "12x50 is read: in a pattern a bare . stands for any character. Write \\\\. for a point.",
    )
    _no_refund(answer, "", "The empty line is read.")


READ_REFUND = Exercise(
    id="12.read_refund",
    title="Read one line, and nothing else",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
The shop wants a new call: `refund #W6390527 12.50 to paypal`. Write `read_refund(line)`. For a line of exactly this
form it returns a tuple: the order as text, the amount in **whole cents** as an int, the method as text. Here that is
`("#W6390527", 1250, "paypal")`. For anything else it returns the empty tuple `()`.

An order is `#W` and seven digits. An amount is digits, a point and two digits. The methods are `gift card`, `paypal`
and `credit card`. The line comes from a model, so anything may be in it; the answer cell may import `re`.
""",
    stub='''
import re


def read_refund(line):
    """"refund #W6390527 12.50 to paypal" -> ("#W6390527", 1250, "paypal"); () for anything else."""
    raise NotImplementedError
''',
    properties=[
        Property("lines in the right form", 2, _read_right),
        Property("the whole line", 2, _read_whole, proof=False),
        Property("everything else is no refund", 2, _read_strict, proof=False),
    ],
    ready=("lib.shop.desk.parse",),
    hints=(
        "One regular expression can hold the whole form. Put brackets around the parts that you want back.",
        "re.fullmatch matches only if the pattern covers all of the text. Put dollars and cents in groups of their "
        "own, and no float comes near your money.",
        r'found = re.fullmatch(r"refund (#W\d{7}) (\d+)\.(\d\d) to (gift card|paypal|credit card)", line), then '
        "100 * int(found[2]) + int(found[3]).",
    ),
)

# --- refusal ------------------------------------------------------------------------------------------------

REASONS = ("", "not delivered", "nothing named", "named twice", "not in the order", "not yours")


def _refused(answer, order, items, user, want, says):
    got = answer(order, items, user)
    if got not in REASONS:
        raise Wrong(
            "`refusal` returned something that is none of the agreed words; the prompt lists them.", f"got {got!r}"
        )
    require(got == want, says, f"order {order}, items {items}, customer {user!r}: got {got!r}, expected {want!r}")


def _an_order(rng, **other):
    goods = ["lamp", "kettle", "grill", "tablet", "bookshelf"]
    start = integer(rng, 0, 2)
    return {"user": f"user_{integer(rng, 1, 999)}", "status": "delivered", "items": goods[start : start + 3]} | other


def _refusal_yes(answer, rng):
    order = _an_order(rng)
    for items in ([order["items"][0]], order["items"][1:], list(reversed(order["items"]))):
        _refused(answer, order, items, order["user"], "", "A return that keeps to every rule is refused.")


def _refusal_status(answer, rng):
    for status in ("pending", "processed", "cancelled", "return requested", "exchange requested"):
        order = _an_order(rng, status=status)
        _refused(
            answer,
            order,
            order["items"][:1],
            order["user"],
            "not delivered",
            "Something that is not delivered goes back. Ask for the one status that is allowed, not for those that "
            "are not: a new status would slip through.",
        )


def _refusal_items(answer, rng):
    order = _an_order(rng)
    _refused(answer, order, [], order["user"], "nothing named", "A return of nothing is let through.")
    _refused(
        answer, order, ["moon rocket"], order["user"], "not in the order", "An item that is not in the order goes back."
    )
    _refused(
        answer,
        order,
        [order["items"][0], "moon rocket"],
        order["user"],
        "not in the order",
        "One item of two is not in the order, and the return goes through: all must be.",
    )
    _refused(
        answer,
        order,
        [order["items"][0]] * 2,
        order["user"],
        "named twice",
        "One item is named twice, and would be refunded twice.",
    )
    twins = _an_order(rng, items=["lamp", "lamp", "grill"])
    _refused(
        answer,
        twins,
        ["lamp", "lamp"],
        twins["user"],
        "",
        "The order has two of the same, and both may go back: "
        "compare how often an item is named with how often it "
        "is there.",
    )
    _refused(
        answer, twins, ["lamp", "lamp", "lamp"], twins["user"], "named twice", "Two lamps were bought, three go back."
    )


def _refusal_owner(answer, rng):
    order = _an_order(rng)
    _refused(
        answer,
        order,
        order["items"][:1],
        order["user"] + "0",
        "not yours",
        "Another customer's order is returned. Whose order it is must be asked first.",
    )
    _refused(
        answer,
        _an_order(rng, status="pending"),
        [],
        "somebody",
        "not yours",
        "A stranger learns something about an order (its status, or what is in it) from the refusal. Whose order it "
        "is must be asked first.",
    )


REFUSAL = Exercise(
    id="12.refusal",
    title="A rule as code",
    points=6,
    difficulty=2,
    minutes=15,
    prompt="""
Write the shop's rule for returns: `refusal(order, items, user)`. `order` is a dictionary with `"user"` (whose it is),
`"status"` and `"items"` (a list of names; the same name twice if two were bought). `items` is the list of names that
are to go back, `user` the customer who asks. Return why not, in one of these words, the first that applies:

1. `"not yours"`: the order is another customer's;
2. `"not delivered"`: its status is anything but `"delivered"`;
3. `"nothing named"`: no items;
4. `"not in the order"`: an item that the order does not have;
5. `"named twice"`: an item more often than the order has it;

and `""` if nothing stands against it.
""",
    stub='''
def refusal(order, items, user):
    """{"user", "status", "items"}, names, customer -> why the return is refused, or ""."""
    raise NotImplementedError
''',
    properties=[
        Property("what is allowed", 1, _refusal_yes, proof=False),
        Property("only what is delivered", 1, _refusal_status),
        Property("only what was bought, and once", 2, _refusal_items),
        Property("whose order it is comes first", 2, _refusal_owner),
    ],
    ready=("lib.shop.desk.Desk",),
    hints=(
        "Write the rules down one by one, in the order of the list, each as an if with a return.",
        'For the last rule compare items.count(name) with order["items"].count(name).',
        'if any(items.count(name) > order["items"].count(name) for name in items): return "named twice".',
    ),
)

# --- break_even ---------------------------------------------------------------------------------------------


def _months(answer, *given):
    return number(answer(*given))


def _about(got, want):
    return math.isclose(got, want, rel_tol=1e-6)


def _break_hand(answer, rng):
    """Fixed 100 a month; wrong answers cost 2 each; ours 0.01 and 90 % right, theirs 0.03 and 90 % right."""
    got = _months(answer, 100.0, 0.01, 0.9, 0.03, 0.9, 2.0)
    require(
        not _about(got, 100 / 0.01) and not _about(got, 100 / 0.03),
        "One of the two prices a request is left out: what counts is the difference.",
    )
    require(not _about(got, 0.02 / 100), "The quotient is upside down.")
    require(
        _about(got, 5000), "100 a month, 0.01 against 0.03 a request, both 90 % right: 5,000 requests.", f"got {got}"
    )


def _break_human(answer, rng):
    fixed = integer(rng, 50, 500)
    got = _months(answer, fixed, 0.01, 0.95, 0.01, 0.9, 2.0)
    require(
        not math.isinf(got),
        "With equal prices a request, being right more often pays too: every wrong answer costs "
        "a person's time. It seems that the shares do not count.",
    )
    require(
        not _about(got, fixed / (2.0 * 0.95 - 2.0 * 0.9) * -1) and got > 0,
        "The shares count the wrong way round: a person is needed for the *wrong* answers, a share of 1 - right.",
    )
    require(
        _about(got, fixed / 0.1), "95 % against 90 % right and 2 for each wrong one saves 0.10 a request.", f"got {got}"
    )
    got = _months(answer, fixed, 0.01, 0.8, 0.05, 0.81, 1.0)
    require(
        _about(got, fixed / 0.03),
        "A price that is 0.04 lower, with one wrong answer more in a hundred at 1 each, "
        "saves 0.03 a request. The person's price must count once for each wrong answer.",
        f"got {got}",
    )


def _break_never(answer, rng):
    got = _months(answer, 100.0, 0.03, 0.9, 0.01, 0.9, 2.0)
    require(
        got >= 0,
        "Where ours is dearer a request, the result is negative. There is no such number of requests: return math.inf.",
    )
    require(math.isinf(got), "Where ours is dearer a request it never pays, however many come: return math.inf.")
    require(
        math.isinf(_months(answer, 100.0, 0.01, 0.9, 0.01, 0.9, 2.0)),
        "Where a request costs the same with both, the fixed part never comes back: return math.inf.",
    )
    require(
        math.isinf(_months(answer, 100.0, 0.01, 0.5, 0.05, 0.9, 2.0)),
        "Ours is cheaper a request but wrong so often that it never pays: return math.inf.",
    )


BREAK_EVEN = Exercise(
    id="12.break_even",
    title="From how many requests on?",
    points=5,
    difficulty=2,
    minutes=10,
    prompt="""
A model of your own costs `fixed` a month (a machine, care) and `ours` a request, and a share `right_ours` of its
answers is right. A hosted one costs nothing fixed, `theirs` a request, and is right in `right_theirs`. Whenever an
answer is wrong a person takes over, for `person`.

Write `break_even(fixed, ours, right_ours, theirs, right_theirs, person)`: the number of requests a month from which
your own is the cheaper one. It need not be whole. If there is none, return `math.inf`.
""",
    stub='''
import math


def break_even(fixed, ours, right_ours, theirs, right_theirs, person):
    """Requests a month from which our own model is cheaper; math.inf if it never is."""
    raise NotImplementedError
''',
    properties=[
        Property("prices", 1, _break_hand, proof=False),
        Property("wrong answers cost a person", 2, _break_human),
        Property("it may never pay", 2, _break_never, proof=False),
    ],
    hints=(
        "What does one request cost in all, with either model? A wrong answer costs the model's price *and* a person.",
        "One request costs price + (1 - right) * person. Each request saves the difference; fixed divided by that is "
        "the answer, if the difference is above 0.",
        "saved = theirs + (1 - right_theirs) * person - ours - (1 - right_ours) * person.",
    ),
)

# --- catches_hasty: the learner writes the test -------------------------------------------------------------


def _steps(events, propose=True, stale=False, twice=False, no_is_yes=False, first_stays=False, both=False, last=False):
    """A desk as a function: events in, orders cancelled out; each flag is a bug."""
    waiting, done, before = [], [], None
    for event in events:
        if event.startswith("cancel "):
            order = before = event.removeprefix("cancel ")
            if not propose:
                done.append(order)
            elif both:
                waiting.append(order)
            elif not (first_stays and waiting):
                waiting = [order]
        elif event == "yes" or (event == "no" and no_is_yes):
            done += waiting or ([before] if last and before else [])
            waiting = waiting if twice else []
        elif event == "no":
            waiting = waiting if stale else []
    return done


def _right(events):
    return _steps(events)


def _right_otherwise(events):
    """The same, written another way."""
    done = []
    for i, event in enumerate(events):
        if event == "yes" and i and events[i - 1].startswith("cancel "):
            done = [*done, events[i - 1][7:]]
    return done


RIGHT = [
    (_right, False, "It says True to a desk that acts on a yes to its last proposal, and on nothing else."),
    (_right_otherwise, False, "It says True to a desk that is right and written another way."),
]


def _hasty(*cases):
    def test(answer, rng):
        verdicts(lambda desk: answer(lambda events: desk(events)), rng,
                 [*((function, True, says) for function, says in cases), *RIGHT])  # fmt: skip

    return test


_hasty_ask = _hasty(
    (lambda events: _steps(events, propose=False), "It misses a desk that cancels at once, without a yes."),
    (lambda events: _steps(events, no_is_yes=True), "It misses a desk that takes a no for a yes."),
)
_hasty_again = _hasty(
    (
        lambda events: _steps(events, twice=True),
        'It misses a desk that cancels again with each further yes: the customer says "yes", then "yes, thanks".',
    ),
    (
        lambda events: _steps(events, stale=True),
        "It misses a desk that remembers what was declined: cancel, no, and later a yes to something else.",
    ),
)
_hasty_other = _hasty(
    (
        lambda events: _steps(events, first_stays=True),
        "It misses a desk in which a second proposal does not take the "
        "place of the first: cancel A, cancel B, yes cancels A.",
    ),
    (
        lambda events: _steps(events, both=True),
        "It misses a desk that collects proposals: cancel A, cancel B, yes cancels both.",
    ),
    (
        lambda events: _steps(events, last=True),
        "It misses a desk for which a yes is enough: after a no, or after a yes "
        "that has been used, another yes cancels the last order named.",
    ),
)

CATCHES_HASTY = Exercise(
    id="12.catches_hasty",
    title="Write the test: nothing without a yes",
    points=6,
    difficulty=3,
    minutes=20,
    prompt="""
Somebody wrote a desk that takes a list of events, each `"cancel A"` (any name of an order), `"yes"` or `"no"`, and
returns the list of orders that it cancelled. A right desk makes a proposal for each cancel, which takes the place of
one that still waits; a yes carries out the one that waits, once; a no drops it. Nothing else happens, and a yes with
nothing waiting does nothing.

Write `catches_hasty(desk)`: call `desk` with events of your choice, as often as you like, and return True if it ever
does anything else, False if it is right.
""",
    stub='''
def catches_hasty(desk):
    """True if desk, events -> orders cancelled, acts on anything but a yes to what it proposed last."""
    raise NotImplementedError
''',
    properties=[
        Property("no yes, or a no", 2, _hasty_ask),
        Property("one yes, one cancel", 2, _hasty_again),
        Property("the last proposal", 2, _hasty_other),
    ],
    hints=(
        "Write down short lists of events, and beside each what a right desk returns. Compare.",
        "Some lists: cancel A alone; cancel A, no; cancel A, yes, yes; cancel A, cancel B, yes; cancel A, no, yes.",
        'known = [(["cancel A"], []), (["cancel A", "yes", "yes"], ["A"]), …], then '
        "return any(desk(events) != done for events, done in known).",
    ),
)

EXERCISES = [READ_REFUND, REFUSAL, BREAK_EVEN, CATCHES_HASTY]
