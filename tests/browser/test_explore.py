"""`course explore` in a real browser: its numbers are PyTorch's, at every stage; it asks nobody for anything."""

import json

import pytest
import torch
from looked_into import KINDS, TEXTS
from playwright.sync_api import Browser, Page

from lib.attention import recorded
from lib.view import inside
from lib.view.inside import Changes
from lib.view.page import page as page_of

CLOSE = 1e-4  # of a number, or of 1 where it is smaller
HEADS = ((0, 1), (1, 0))
# What the page shows at a place, numbers as lists.
SEE = """([ids, changes, at]) => JSON.stringify(model.see(ids, changes, at),
  (_, value) => ArrayBuffer.isView(value) ? Array.from(value) : value)"""


@pytest.fixture(scope="module", params=list(KINDS))
def made(request, tmp_path_factory):
    model, tokenizer = KINDS[request.param]()
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page_of(model, tokenizer, request.param), encoding="utf-8")
    return model, tokenizer, path


@pytest.fixture
def page(browser: Browser, made):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.wrong = []
    page.on("console", lambda said: page.wrong.append(said.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or page.wrong.append(asked.url))
    page.goto(made[2].as_uri())
    yield page
    assert not page.wrong
    page.close()


def compare(theirs, ours, path=""):
    """Every number; of choices among near-equals (the nearest, the strongest) not which, but that they are as good."""
    if isinstance(ours, dict):
        assert set(ours) == set(theirs), path
        for name in ours:
            compare(theirs[name], ours[name], f"{path}.{name}")
        return
    ours, theirs = torch.as_tensor(ours, dtype=torch.float64).flatten(), torch.tensor(theirs, dtype=torch.float64).flatten()
    assert ours.shape == theirs.shape, (path, ours.shape, theirs.shape)
    off = ((ours - theirs).abs() / ours.abs().clamp_min(1)).max().item() if len(ours) else 0
    compare.most = max(compare.most, off)
    assert off <= CLOSE, (path, off)


compare.most = 0.0


def seen(page: Page, ids, changes: Changes, at):
    plain = dict(mask=changes.mask, scale=changes.scale, order=changes.order, heads=[*map(list, changes.heads)],
                 features=[*map(list, changes.features)])  # fmt: skip
    return json.loads(page.evaluate(SEE, [ids, plain, at]))


@pytest.mark.parametrize("changes", [
    Changes(), Changes(heads=frozenset(HEADS)), Changes(heads=frozenset(HEADS), features=frozenset([(0, 3), (1, 7)])),
    Changes(mask=False), Changes(scale=False), Changes(order=False),
], ids=["plain", "heads", "features", "mask", "scale", "order"])  # fmt: skip
def test_the_numbers_are_pytorchs(page: Page, made, changes):
    model, tokenizer, _ = made
    c = model.config
    for n, text in enumerate(TEXTS):
        ids = tokenizer.encode(text)
        assert page.evaluate("text => tokenizer.encode(text).ids", text) == ids
        at = dict(layer=n % c.n_layer, head=n % c.n_head, query=len(ids) * 2 // 3, key=len(ids) // 3)
        compare(seen(page, ids, changes, at), inside.see(model, inside.forward(model, ids, changes), ids, at))
    print(f"{compare.most:.1e}", end=" ")


def test_the_reference_is_the_models_own_pass(made):
    """Against the model itself, and hooks in it: else both could be wrong in the same way."""
    model, tokenizer, _ = made
    ids = tokenizer.encode(TEXTS[-1])
    with torch.no_grad(), recorded(model) as maps:
        logits = model(torch.tensor([ids]))[0]  # (T, V)
    run = inside.forward(model, ids)
    assert torch.allclose(run.logits, logits, atol=1e-4)
    for layer, weights in zip(run.layers, maps, strict=True):
        assert torch.allclose(layer.weights, weights[0], atol=1e-5)

    Dh = model.config.head_dim
    hooks = []
    for layer, head in HEADS:
        def silence(_, given, head=head):
            x = given[0].clone()
            x[..., head * Dh : (head + 1) * Dh] = 0
            return (x,)

        hooks.append(model.blocks[layer].attention.out.register_forward_pre_hook(silence))
    with torch.no_grad():
        silenced = model(torch.tensor([ids]))[0]  # (T, V)
    for hook in hooks:
        hook.remove()
    assert torch.allclose(inside.forward(model, ids, Changes(heads=frozenset(HEADS))).logits, silenced, atol=1e-4)
    assert not torch.allclose(silenced, logits, atol=1e-2)
