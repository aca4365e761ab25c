"""A shop's service desk: what can be asked of it, one line each, and the shop's rules as code.

A model writes a line such as `return #W6390527: Water Bottle`. A line is all that it can do: the desk reads it with a
fixed pattern, holds it against the records and the policy, asks the customer to confirm, and only then acts. So a wrong
line costs a wrong question at worst, never a wrong refund.
"""

import copy
import re
from dataclasses import dataclass

from lib.errors import CourseError
from lib.shop.retail import retail

KINDS = ("cancel", "return", "change", "status", "human")
REASONS = ("no longer needed", "ordered by mistake")  # the two that the policy accepts
EVERYTHING = "everything"
_LINE = re.compile(r"(cancel|return|change|status|human)(?: (#W\d{7}))?(?:: (.{1,200}))?")


@dataclass(frozen=True)
class Call:
    """One wish, as the desk understands it.

    kind: one of KINDS. order: its number, as in "#W6390527". items: product names. detail: the reason of a cancel; the
    option that a change asks for, as in "size M".
    """

    kind: str
    order: str = ""
    items: tuple[str, ...] = ()
    detail: str = ""

    def __str__(self) -> str:
        what = ", ".join(self.items)
        if self.kind == "change":
            what += f" to {self.detail}"
        elif self.kind == "cancel":
            what = self.detail
        return self.kind + (f" {self.order}" if self.order else "") + (f": {what}" if what else "")


def parse(text: str) -> Call | None:
    """The call that a line spells; None if it spells none. Only the first line counts."""
    found = _LINE.fullmatch(text.strip().split("\n")[0].rstrip())
    if not found:
        return None
    kind, order, rest = found[1], found[2] or "", found[3] or ""
    if kind == "human":
        return Call(kind) if not order and not rest else None
    if not order or bool(rest) == (kind == "status"):
        return None
    if kind == "cancel":
        return Call(kind, order, detail=rest)
    if kind == "change":
        item, to, detail = rest.partition(" to ")
        return Call(kind, order, (item,), detail) if to and item and detail else None
    return Call(kind, order, tuple(item.strip() for item in rest.split(",")) if rest else ())


@dataclass(frozen=True)
class Reply:
    """What the desk says. todo: it waits for the customer's yes. refused: a rule stands against it."""

    text: str
    todo: bool = False
    refused: bool = False


class Desk:
    """One customer at the desk. Sees this customer's orders and nobody else's; changes copies, not the records.

    Raises CourseError for an unknown customer.
    """

    def __init__(self, user_id: str):
        shop = retail()
        if user_id not in shop.users:
            raise CourseError(f"no customer {user_id!r} in the records; lib.shop.retail.retail().users lists them")
        self.user = copy.deepcopy(shop.users[user_id])
        self.orders = {id: copy.deepcopy(shop.orders[id]) for id in self.user["orders"]}
        self.done: list[str] = []  # calls carried out, as lines
        self._waiting: tuple[Call, str, dict] | None = None  # the call, what to say once done, what changes

    def ask(self, call: Call | None) -> Reply:
        """Hold a call against records and policy. A new one takes the place of one that still waits for a yes."""
        self._waiting = None
        if call is None:
            return _refuse("Sorry, I did not understand. A colleague takes over.")
        if call.kind == "human":
            return Reply("You are being transferred to a human agent. Please hold on.")
        order = self.orders.get(call.order)
        if order is None:
            return _refuse(f"There is no order {call.order} of yours.")
        if call.kind == "status":
            return Reply(self._status(order))
        return getattr(self, f"_{call.kind}")(call, order)

    def confirm(self, yes: bool = True) -> Reply:
        """The customer's answer to what the desk proposed. Without a proposal nothing happens."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return _refuse("There is nothing to confirm.")
        if not yes:
            return Reply("Then I leave everything as it is.")
        call, said, changes = waiting
        self.orders[call.order].update(changes)
        self.done.append(str(call))
        return Reply(said)

    def _propose(self, call: Call, question: str, said: str, **changes) -> Reply:
        self._waiting = call, said, changes
        return Reply(f"{question} Shall I go ahead (yes or no)?", todo=True)

    def _status(self, order: dict) -> str:
        tracking = [number for sent in order["fulfillments"] for number in sent["tracking_id"]]
        told = f" Tracking number: {', '.join(tracking)}." if tracking else ""
        return f"Order {order['order_id']} is {order['status']}.{told}"

    def _cancel(self, call: Call, order: dict) -> Reply:
        if order["status"] != "pending":
            return _refuse(f"Order {call.order} is {order['status']}; only a pending order can be cancelled.")
        if call.detail not in REASONS:
            return _refuse(f"An order can be cancelled only if it is {' or was '.join(REASONS)}.")
        total = sum(item["price"] for item in order["items"])
        method = self._method(order)
        when = "at once" if method["source"] == "gift_card" else "in 5 to 7 business days"
        return self._propose(
            call,
            f"I cancel order {call.order} ({call.detail}) and refund ${total:.2f} to your {_say(method)}.",
            f"Order {call.order} is cancelled. You get your money back {when}.",
            status="cancelled",
        )

    def _return(self, call: Call, order: dict) -> Reply:
        if order["status"] != "delivered":
            return _refuse(f"Order {call.order} is {order['status']}; only what is delivered can be returned.")
        if call.items == (EVERYTHING,):
            chosen = order["items"]
        else:
            chosen = [self._item(order, name) for name in call.items]
            if None in chosen or len(set(call.items)) < len(call.items):
                return self._which(call, order)
        total, names = sum(item["price"] for item in chosen), ", ".join(item["name"] for item in chosen)
        return self._propose(
            call,
            f"I take back {names} of order {call.order} and refund ${total:.2f} to your {_say(self._method(order))}.",
            "Your return is noted. An e-mail tells you how to send it back.",
            status="return requested",
        )

    def _change(self, call: Call, order: dict) -> Reply:
        """A pending order is modified, a delivered one exchanged; to the customer it is the same wish."""
        if order["status"] not in ("pending", "delivered"):
            return _refuse(f"Order {call.order} is {order['status']}; nothing in it can be changed.")
        old = self._item(order, call.items[0])
        if old is None:
            return self._which(call, order)
        wanted = {f"{option} {value}": (option, value) for option, value in self._options(old)}
        if call.detail not in wanted:
            return _refuse(f"There is no {old['name']} with {call.detail}.")
        option, value = wanted[call.detail]
        new = self._variant(old, old["options"] | {option: value})
        if new is None or new["item_id"] == old["item_id"]:
            return _refuse(f"There is no {old['name']} with {call.detail} and all else the same in stock.")
        difference, method = new["price"] - old["price"], self._method(order)
        if method["source"] == "gift_card" and difference > method["balance"]:
            return _refuse("Your gift card does not cover the difference in price.")
        money = "pay" if difference > 0 else "get back"
        new = {key: new[key] for key in ("item_id", "price", "options")}
        replaced = [item | new if item["item_id"] == old["item_id"] else item for item in order["items"]]
        pending = order["status"] == "pending"
        return self._propose(
            call,
            f"I change the {old['name']} of order {call.order} to {call.detail}. You {money} ${abs(difference):.2f} by "
            f"{_say(method)}. An order can be changed only once, so name all else first.",
            f"Your {old['name']} is changed." + (" An e-mail tells you how to send the old one back." * (not pending)),
            status="pending (items modified)" if pending else "exchange requested",
            items=replaced,
        )

    def _item(self, order: dict, name: str) -> dict | None:
        """The one item of that name; None if there is none, or more than one."""
        found = [item for item in order["items"] if item["name"] == name]
        return found[0] if len(found) == 1 else None

    def _which(self, call: Call, order: dict) -> Reply:
        have = ", ".join(item["name"] for item in order["items"])
        return _refuse(f"Which item of order {call.order} is it? It has: {have}.")

    def _options(self, item: dict) -> set[tuple[str, str]]:
        variants = retail().products[item["product_id"]]["variants"].values()
        return {pair for variant in variants for pair in variant["options"].items()}

    def _variant(self, item: dict, options: dict) -> dict | None:
        variants = retail().products[item["product_id"]]["variants"].values()
        return next((variant for variant in variants if variant["available"] and variant["options"] == options), None)

    def _method(self, order: dict) -> dict:
        return self.user["payment_methods"][order["payment_history"][0]["payment_method_id"]]


def _refuse(text: str) -> Reply:
    return Reply(text, refused=True)


def _say(method: dict) -> str:
    return method["source"].replace("_", " ")
