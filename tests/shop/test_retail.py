"""The shop's records hang together."""

from lib.shop.retail import retail


def test_the_records_are_whole():
    shop = retail()
    assert (len(shop.products), len(shop.users), len(shop.orders), len(shop.tasks)) == (50, 500, 1000, 114)
    assert "retail agent" in shop.policy.lower()
    assert {len(shop.split["train"]), len(shop.split["test"])} == {74, 40}


def test_orders_belong_to_users_and_hold_products():
    shop = retail()
    for id, order in shop.orders.items():
        assert order["order_id"] == id and id in shop.users[order["user_id"]]["orders"]
        for item in order["items"]:
            assert item["item_id"] in shop.products[item["product_id"]]["variants"]
