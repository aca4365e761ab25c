"""Lesson 12, capstone: references and mutants."""

from lib.answers import Answer, Mutant

read_refund = r"""
import re


def read_refund(line):
    found = re.fullmatch(r"refund (#W\d{7}) (\d+)\.(\d\d) to (gift card|paypal|credit card)", line)
    if not found:
        return ()
    return found[1], 100 * int(found[2]) + int(found[3]), found[4]
"""

refusal = """
def refusal(order, items, user):
    if order["user"] != user:
        return "not yours"
    if order["status"] != "delivered":
        return "not delivered"
    if not items:
        return "nothing named"
    if any(name not in order["items"] for name in items):
        return "not in the order"
    if any(items.count(name) > order["items"].count(name) for name in items):
        return "named twice"
    return ""
"""

break_even = """
import math


def break_even(fixed, ours, right_ours, theirs, right_theirs, person):
    saved = theirs + (1 - right_theirs) * person - ours - (1 - right_ours) * person
    return fixed / saved if saved > 1e-12 else math.inf
"""

catches_hasty = """
def catches_hasty(desk):
    known = [
        (["cancel A"], []),
        (["cancel A", "yes", "yes"], ["A"]),
        (["cancel A", "no"], []),
        (["cancel A", "no", "yes"], []),
        (["cancel A", "cancel B", "yes"], ["B"]),
    ]
    return any(list(desk(events)) != done for events, done in known)
"""

ANSWERS = {
    "12.read_refund": Answer(
        read_refund,
        (
            Mutant("the beginning is enough", "re.fullmatch", "re.match", "fullmatch, not match"),
            Mutant("a part is enough", "re.fullmatch", "re.search", "more behind it"),
            Mutant(
                "dollar sign at the end",
                're.fullmatch(r"refund (#W\\d{7}) (\\d+)\\.(\\d\\d) to (gift card|paypal|credit card)"',
                're.match(r"refund (#W\\d{7}) (\\d+)\\.(\\d\\d) to (gift card|paypal|credit card)$"',
                "A line break at the end",
            ),
            Mutant(
                "floats",
                "100 * int(found[2]) + int(found[3])",
                "int(float(found[2] + '.' + found[3]) * 100)",
                "cuts a cent off",
            ),
            Mutant("dollars", "100 * int(found[2]) + int(found[3])", "float(found[2] + '.' + found[3])", "in dollars"),
            Mutant("text", "100 * int(found[2]) + int(found[3])", "found[2] + found[3]", "comes back as text"),
            Mutant("any method", "(gift card|paypal|credit card)", "([a-z ]+)", "method that the shop does not have"),
            Mutant("negative", r"(\d+)\.", r"(-?\d+)\.", "negative amount"),
            Mutant("one place will do", r"(\d\d) to", r"(\d\d?) to", "12.5 is read"),
            Mutant("any number of digits", r"\d{7}", r"\d+", "eight digits"),
            Mutant("any character for the point", r"\.(\d\d)", r".(\d\d)", "any character"),
            Mutant("without #W", r"(#W\d{7})", r"((?:#W)?\d{7})", "without #W"),
            Mutant("any word", 'r"refund ', r'r"\w+ ', "Another word than refund"),
            Mutant("none for no refund", "return ()", "return None", "Did you forget"),
        ),
    ),
    "12.refusal": Answer(
        refusal,
        (
            Mutant("anyone's", 'order["user"] != user', "False", "Another customer's order"),
            Mutant(
                "owner asked last",
                """    if order["user"] != user:
        return "not yours"
    if order["status"] != "delivered":
        return "not delivered"
""",
                """    if order["status"] != "delivered":
        return "not delivered"
    if order["user"] != user:
        return "not yours"
""",
                "A stranger learns something",
            ),
            Mutant(
                "a list of what is not allowed",
                'order["status"] != "delivered"',
                'order["status"] in ("pending", "processed", "cancelled")',
                "a new status would slip through",
            ),
            Mutant("any status", 'order["status"] != "delivered"', "False", "not delivered goes back"),
            Mutant("nothing is fine", "if not items:", "if False:", "A return of nothing"),
            Mutant("one in the order will do", "any(name not in", "all(name not in", "One item of two"),
            Mutant(
                "never twice",
                'items.count(name) > order["items"].count(name)',
                "items.count(name) > 1",
                "has two of the same",
            ),
            Mutant(
                "as often as you like",
                'items.count(name) > order["items"].count(name)',
                "False",
                "named twice, and would be refunded twice",
            ),
            Mutant(
                "twice is once",
                'items.count(name) > order["items"].count(name)',
                'items.count(name) > max(2, order["items"].count(name))',
                "named twice, and would be refunded twice",
            ),
            Mutant("other words", 'return "not delivered"', 'return "no"', "none of the agreed words"),
            Mutant("True for yes", 'return ""', 'return "ok"', "none of the agreed words"),
        ),
    ),
    "12.break_even": Answer(
        break_even,
        (
            Mutant(
                "without theirs",
                "saved = theirs + (1 - right_theirs) * person - ours - (1 - right_ours) * person",
                "saved = ours",
                "left out",
            ),
            Mutant("without ours", " - ours", "", "left out"),
            Mutant("upside down", "fixed / saved if", "saved / fixed if", "upside down"),
            Mutant(
                "people for free",
                "saved = theirs + (1 - right_theirs) * person - ours - (1 - right_ours) * person",
                "saved = theirs - ours",
                "shares do not count",
            ),
            Mutant(
                "people for what is right",
                "saved = theirs + (1 - right_theirs) * person - ours - (1 - right_ours) * person",
                "saved = theirs + right_theirs * person - ours - right_ours * person",
                "shares do not count",
            ),
            Mutant("negative", " if saved > 1e-12 else math.inf", " if saved else math.inf", "negative"),
            Mutant("zero for never", "else math.inf", "else 0", "never pays"),
            Mutant(
                "person without price",
                "(1 - right_theirs) * person - ours - (1 - right_ours) * person",
                "(1 - right_theirs) - ours - (1 - right_ours)",
                "saves 0.10 a request",
            ),
        ),
    ),
    "12.catches_hasty": Answer(
        catches_hasty,
        (
            Mutant(
                "always True",
                "return any(list(desk(events)) != done for events, done in known)",
                "return True",
                "It says True to a desk that acts on a yes",
            ),
            Mutant(
                "never True",
                "return any(list(desk(events)) != done for events, done in known)",
                "return False",
                "without a yes",
            ),
            Mutant(
                "never says no",
                '        (["cancel A", "no"], []),\n        (["cancel A", "no", "yes"], []),\n',
                "",
                "a no for a yes",
            ),
            Mutant(
                "one yes only", '["cancel A", "yes", "yes"], ["A"]', '["cancel A", "yes"], ["A"]', "each further yes"
            ),
            Mutant(
                "no no before the yes", '        (["cancel A", "no", "yes"], []),\n', "", "remembers what was declined"
            ),
            Mutant(
                "one order only",
                '        (["cancel A", "cancel B", "yes"], ["B"]),\n',
                "",
                "take the place of the first",
            ),
            Mutant(
                "as a set of names", "list(desk(events)) != done", "set(desk(events)) != set(done)", "each further yes"
            ),
            Mutant(
                "counts only",
                "list(desk(events)) != done",
                "len(desk(events)) != len(done)",
                "take the place of the first",
            ),
            Mutant(
                "returns a list",
                "return any(list(desk(events)) != done for events, done in known)",
                "return [desk(events) for events, done in known]",
                "True or False is expected",
            ),
        ),
    ),
}
