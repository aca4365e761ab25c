"""The desk reads calls with a fixed pattern and keeps to the shop's policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import CourseError
from lib.shop.desk import EVERYTHING, REASONS, Call, Desk, parse
from lib.shop.retail import retail


def orders(status, ok=lambda order, user: True):
    """(customer, order) with that status."""
    shop = retail()
    found = [(order["user_id"], order) for order in shop.orders.values() if order["status"] == status]
    return [(user, order) for user, order in found if ok(order, shop.users[user])]


def first(status, ok=lambda order, user: True):
    return orders(status, ok)[0]


def unique(order, _=None):
    names = [item["name"] for item in order["items"]]
    return len(names) > 1 and len(set(names)) == len(names)


@pytest.mark.parametrize(
    "line, call",
    [
        ("cancel #W1234567: no longer needed", Call("cancel", "#W1234567", detail="no longer needed")),
        ("return #W1234567: Desk Lamp, T-Shirt", Call("return", "#W1234567", ("Desk Lamp", "T-Shirt"))),
        ("return #W1234567: everything", Call("return", "#W1234567", (EVERYTHING,))),
        ("change #W1234567: T-Shirt to size M", Call("change", "#W1234567", ("T-Shirt",), "size M")),
        ("status #W1234567", Call("status", "#W1234567")),
        ("human", Call("human")),
        ("  human  \nand more", Call("human")),
    ],
)
def test_a_line_is_a_call_and_back(line, call):
    assert parse(line) == call
    assert parse(str(call)) == call


@pytest.mark.parametrize(
    "line",
    [
        "",
        "refund #W1234567",
        "cancel",
        "cancel #W123: x",
        "cancel #W1234567",
        "change #W1234567: T-Shirt",
        "human #W1234567",
        "status #W1234567: now",
        "return #W1234567: " + "x" * 300,
        "CANCEL #W1234567: x",
        "return 1234567: Lamp",
    ],
)
def test_what_is_no_call_is_none(line):
    assert parse(line) is None


@given(st.text())
def test_no_text_raises(line):
    call = parse(line)
    assert call is None or parse(str(call)) == call


def test_cancel_needs_a_pending_order_a_good_reason_and_a_yes():
    user, order = first("pending")
    desk = Desk(user)
    call = Call("cancel", order["order_id"], detail=REASONS[0])
    assert desk.ask(Call("cancel", order["order_id"], detail="other")).refused
    assert desk.ask(call).todo
    assert desk.orders[order["order_id"]]["status"] == "pending", "nothing happens before the yes"
    desk.confirm(False)
    assert desk.orders[order["order_id"]]["status"] == "pending" and not desk.done
    total = sum(item["price"] for item in order["items"])
    assert f"${total:.2f}" in desk.ask(call).text
    desk.confirm()
    assert desk.orders[order["order_id"]]["status"] == "cancelled" and desk.done == [str(call)]
    assert desk.ask(call).refused, "a cancelled order is cancelled once"
    assert retail().orders[order["order_id"]]["status"] == "pending", "the records are left as they are"


@pytest.mark.parametrize("status", ["processed", "delivered", "cancelled"])
def test_cancel_refuses_what_is_not_pending(status):
    user, order = first(status)
    assert Desk(user).ask(Call("cancel", order["order_id"], detail=REASONS[1])).refused


@pytest.mark.parametrize("status", ["pending", "processed", "cancelled"])
def test_return_refuses_what_is_not_delivered(status):
    user, order = first(status)
    assert Desk(user).ask(Call("return", order["order_id"], (EVERYTHING,))).refused


def test_return_refunds_what_goes_back_and_only_once():
    user, order = first("delivered", unique)
    one, two = order["items"][:2]
    desk = Desk(user)
    assert desk.ask(Call("return", order["order_id"], ("Moon Rocket",))).refused
    assert desk.ask(Call("return", order["order_id"], (one["name"], one["name"]))).refused
    reply = desk.ask(Call("return", order["order_id"], (one["name"], two["name"])))
    assert reply.todo and f"${one['price'] + two['price']:.2f}" in reply.text
    desk.confirm()
    assert desk.ask(Call("return", order["order_id"], (one["name"],))).refused


def test_everything_counts_twins():
    user, order = first("delivered", lambda o, _: len({i["name"] for i in o["items"]}) < len(o["items"]))
    reply = Desk(user).ask(Call("return", order["order_id"], (EVERYTHING,)))
    assert f"${sum(item['price'] for item in order['items']):.2f}" in reply.text


def change_of(status, stock=True):
    """A customer, an order, an item and an option that is in stock with all else the same (or is not)."""
    for user, order in orders(status, unique):
        for item in order["items"]:
            variants = list(retail().products[item["product_id"]]["variants"].values())
            pairs = {pair for v in variants for pair in v["options"].items()} - set(item["options"].items())
            for option, value in sorted(pairs):
                wanted = item["options"] | {option: value}
                new = [v for v in variants if v["options"] == wanted and v["available"]]
                covered = retail().users[user]["payment_methods"][order["payment_history"][0]["payment_method_id"]]
                if bool(new) == stock and (not new or covered.get("balance", 1e9) >= new[0]["price"] - item["price"]):
                    return user, order, item, f"{option} {value}", new
    raise AssertionError("no such order in the records")


@pytest.mark.parametrize(
    "status, after", [("pending", "pending (items modified)"), ("delivered", "exchange requested")]
)
def test_change_takes_the_variant_with_all_else_the_same_once(status, after):
    user, order, item, detail, [new] = change_of(status)
    desk = Desk(user)
    reply = desk.ask(Call("change", order["order_id"], (item["name"],), detail))
    assert reply.todo and f"${abs(new['price'] - item['price']):.2f}" in reply.text
    desk.confirm()
    now = desk.orders[order["order_id"]]
    assert now["status"] == after and new["item_id"] in [i["item_id"] for i in now["items"]]
    assert desk.ask(Call("change", order["order_id"], (item["name"],), detail)).refused
    assert desk.ask(Call("cancel", order["order_id"], detail=REASONS[0])).refused, "a modified order stays"


def test_change_refuses_what_is_not_in_stock_or_no_option():
    user, order, item, detail, _ = change_of("pending", stock=False)
    desk = Desk(user)
    assert desk.ask(Call("change", order["order_id"], (item["name"],), detail)).refused
    assert desk.ask(Call("change", order["order_id"], (item["name"],), "flavour vanilla")).refused


def test_a_gift_card_must_cover_the_difference():
    def poor(order, user):
        method = user["payment_methods"][order["payment_history"][0]["payment_method_id"]]
        return unique(order) and method["source"] == "gift_card"

    for user, order in orders("pending", poor):
        desk = Desk(user)
        desk._method(desk.orders[order["order_id"]])["balance"] = -1e6
        for item in order["items"]:
            for option, value in sorted(desk._options(item)):
                reply = desk.ask(Call("change", order["order_id"], (item["name"],), f"{option} {value}"))
                assert not reply.todo
                if "gift card does not cover" in reply.text:
                    return
    raise AssertionError("never refused for the gift card's sake")


def test_nobody_reaches_anothers_order_and_a_yes_alone_does_nothing():
    user, _ = first("pending")
    other = next(o for u, o in orders("pending") if u != user)
    desk = Desk(user)
    assert desk.ask(Call("cancel", other["order_id"], detail=REASONS[0])).refused
    assert desk.confirm().refused and not desk.done
    assert desk.ask(None).refused


def test_a_refusal_withdraws_what_waited():
    user, order = first("pending")
    desk = Desk(user)
    assert desk.ask(Call("cancel", order["order_id"], detail=REASONS[0])).todo
    desk.ask(None)
    assert desk.confirm().refused and not desk.done


def test_status_tells_the_tracking_number():
    user, order = first("delivered", lambda o, _: bool(o["fulfillments"]))
    assert order["fulfillments"][0]["tracking_id"][0] in Desk(user).ask(Call("status", order["order_id"])).text


def test_an_unknown_customer_is_one_line():
    with pytest.raises(CourseError, match="no customer 'nobody'"):
        Desk("nobody")
