"""`course explore` in a real browser: its numbers are PyTorch's at every stage, it asks nobody, it shuts nobody out."""

import json
import random
import re
import threading

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from looked_into import KINDS, PLAY, TEXTS, trained
from playwright.sync_api import Browser, Page, expect

from lib.attention import recorded
from lib.generation import cut_tail
from lib.view import inside
from lib.view.host import Host
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
    ours, theirs = (torch.as_tensor(each, dtype=torch.float64).flatten() for each in (ours, theirs))
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


# --- the tokenizer, and what is drawn ---


def test_texts_are_cut_as_python_cuts_them(page: Page, made):
    tokenizer = made[1]
    rng = random.Random(0)
    signs = [*PLAY, *" \n\t\r\u00a0\u0085\ufeff\u3000\x1c'0٣½éЖ中🙂\u202e\u200d", "👩‍👩‍👧", "مرحبا", "'s", "  "]
    texts = ["".join(rng.choices(signs, k=rng.randint(0, 40))) for _ in range(300)]
    found = page.evaluate("texts => texts.map(text => tokenizer.encode(text))", texts)
    for text, each in zip(texts, found, strict=True):
        known = text if tokenizer.vocab_size > 256 else "".join(sign for sign in text if sign in PLAY)
        assert each["ids"] == tokenizer.encode(known), ascii(text)
        assert set(each["unknown"]) == set(text) - set(known)
        assert page.evaluate("ids => tokenizer.decode(ids)", each["ids"]) == known


def test_chances_are_those_that_the_library_draws_by(page: Page):
    rng = torch.Generator().manual_seed(0)
    for temperature, k, p in [(1.0, 0, 1.0), (0.5, 5, 1.0), (2.0, 0, 0.3), (1.3, 7, 0.8), (0.7, 1, 0.05)]:
        logits = torch.randn(50, generator=rng).mul(3)
        logits[7] = logits[9] if p == 1 else logits[7]  # a tie; where top-p cuts one, either may go
        ours = cut_tail(logits / temperature, k or None, p if p < 1 else None).softmax(-1)
        dials = dict(temperature=temperature, topK=k, topP=p)
        theirs = page.evaluate("([x, dials]) => Array.from(chances(x, dials))", [logits.tolist(), dials])
        assert torch.allclose(ours, torch.tensor(theirs, dtype=torch.float32), atol=1e-5), dials
    counts = page.evaluate("""() => { const n = [0, 0, 0]; const p = [0.2, 0.5, 0.3];
        for (let t = 0; t < 3000; t++) n[draw(p, chance(t % 7, t))]++; return n; }""")
    assert [round(count / 3000, 1) for count in counts] == [0.2, 0.5, 0.3]


# --- the view ---


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    model, tokenizer = trained()
    path = tmp_path_factory.mktemp("shown") / "page.html"
    path.write_text(page_of(model, tokenizer, "a model", "Speak, speak"), encoding="utf-8")
    return path


@pytest.fixture
def view(browser: Browser, shown):
    yield from opened(browser, shown.as_uri())


def opened(browser: Browser, address: str, **options):
    page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
    page.wrong = []
    page.on("console", lambda said: page.wrong.append(said.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    own = address.split("#")[0], "data:"
    page.on("request", lambda asked: asked.url.startswith(own) or page.wrong.append(asked.url))
    page.goto(address)
    expect(page.locator("#verdict")).not_to_be_empty()
    yield page
    assert not page.wrong
    page.close()


def test_typing_shows_everything_anew(view: Page):
    before = view.locator("#rivers-says").inner_text()
    view.locator("#text").press_sequentially(", friend")
    expect(view.locator("#rivers-says")).to_contain_text("20 pieces")
    expect(view.locator("#verdict")).to_contain_text("Next comes")
    assert view.locator("#rivers-says").inner_text() != before


def test_silencing_a_head_shows_before_and_after_until_it_is_undone(view: Page):
    view.get_by_label("Head 0 speaks").uncheck()
    expect(view.locator("#verdict")).to_contain_text("before")
    expect(view.locator("#changes")).to_contain_text("layer 1 head 0 is silent")
    expect(view.locator("#close")).to_contain_text("Before and now are the same here")  # it looks as it did
    view.evaluate("point({}, 6)")
    expect(view.locator(".maps figcaption")).to_contain_text(["before", "now", "now − before"])
    view.evaluate("point({}, 4)")
    view.get_by_role("button", name="Undo all changes").click()
    expect(view.locator("#verdict")).not_to_contain_text("before")
    expect(view.get_by_label("Head 0 speaks")).to_be_checked()


def test_a_pinned_state_stays_to_compare_with(view: Page):
    view.get_by_role("button", name="Pin").click()
    view.locator("#text").press_sequentially("!")
    expect(view.locator("#verdict")).to_contain_text("before")
    expect(view.locator("#bars")).to_contain_text("before")
    view.get_by_role("button", name="Unpin").click()
    expect(view.locator("#verdict")).not_to_contain_text("before")


def test_all_by_keyboard(view: Page):
    view.locator("#text").focus()
    reached = set()
    for _ in range(70):
        view.keyboard.press("Tab")
        reached.add(view.evaluate("(at => at.id || at.closest('[data-key]')?.dataset.key)(document.activeElement)"))
    assert {"write", "pin", "mask", "rivers-keys", "where", "query", "head1", "step2", "key", "temperature", "seed",
            "back", "forget"} <= reached  # fmt: skip
    view.locator("#rivers-keys").focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowRight"):
        view.keyboard.press(key)
    expect(view.locator("#query")).to_have_value("9")
    expect(view.locator("#close")).to_contain_text("features write most")
    view.keyboard.press("ArrowLeft")
    view.locator(".map").last.focus()
    view.keyboard.press("ArrowUp")
    expect(view.locator("#query")).to_have_value("8")
    assert view.evaluate("document.activeElement.className") == "map"  # shown anew, and the focus is where it was


def test_write_on_draws_by_the_seed(view: Page):
    def written(seed):
        view.locator("#text").fill("Speak")
        view.locator("#seed").fill(str(seed))
        view.get_by_role("button", name="Write 20").click()
        expect(view.locator("#text")).to_have_value(re.compile("^.{25}$", re.S))
        return view.locator("#text").input_value()

    assert written(3) == written(3) != written(4)


STAGES = range(9)  # of the cpu preset's model: pieces, embedding, attention and MLP of three layers, the stream


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(browser: Browser, shown, scheme, width):
    for page in opened(browser, shown.as_uri(), color_scheme=scheme):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("document.querySelectorAll('#cards details').forEach(each => each.open = true)")
        page.evaluate("silence('heads', 1, 0); silence('features', 0, 3)")
        for stage in (0, 1, 3, 8, 4):
            page.evaluate("stage => point({query: 8}, stage)", stage)
            page.wait_for_timeout(250)
            found = [(v["id"], v["nodes"][0]["target"]) for v in Axe().run(page).response["violations"]
                     if v["impact"] in ("serious", "critical")]  # fmt: skip
            assert not found, (stage, found)


@pytest.mark.parametrize("width", [360, 480, 768, 1024, 1440, 1920])
def test_it_fits_any_width(view: Page, width):
    view.set_viewport_size({"width": width, "height": 900})
    for stage in STAGES:
        view.evaluate("stage => point({}, stage)", stage)
        view.wait_for_timeout(60)
        assert view.evaluate("document.documentElement.scrollWidth") <= width, stage


def test_the_theme_follows_the_system_and_the_button(browser: Browser, shown):
    for page in opened(browser, shown.as_uri(), color_scheme="dark"):
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        page.get_by_role("button", name="light theme").click()
        assert page.evaluate(ground) != dark


@pytest.mark.parametrize(("text", "says"), [
    ("", "Type a text"), ("🙂", "no piece for “🙂”"), ("مرحبا", "no piece for"), ("Speak 🙂 é", "“🙂”, “é”"),
    ("Speak, " * 30, "at most 64 pieces at once"), ("\ud83d", "no piece for"),
])  # fmt: skip
def test_a_text_that_does_not_fit_is_said_so(view: Page, text, says):
    view.evaluate("text => { document.getElementById('text').value = text; read(text); }", text)
    expect(view.locator("#notice" if text else "#verdict")).to_contain_text(says)
    view.evaluate("write('Speak')")
    expect(view.locator("#rivers")).to_be_visible()


MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def test_markup_stays_text(browser: Browser, tmp_path):
    model, tokenizer = KINDS["gpt2"]()
    (tmp_path / "page.html").write_text(page_of(model, tokenizer, MARKUP, MARKUP + "مرحبا\u202e"), encoding="utf-8")
    for page in opened(browser, (tmp_path / "page.html").as_uri()):
        expect(page.locator("h1")).to_contain_text("<img src=x")
        page.on("dialog", lambda dialog, page=page: page.wrong.append(dialog.message))
        for stage in range(7):
            page.evaluate("stage => point({query: 3}, stage)", stage)
            page.wait_for_timeout(50)
            assert page.locator("img").count() == 0 and page.locator("script").count() == 3


def test_every_question_answers(view: Page):
    for card in view.locator("#cards > details").all():
        card.locator("> summary").click()
        for button in card.get_by_role("button").all():  # what lays it out, then the check
            button.click()
        expect(card.locator(".score")).not_to_be_empty()
        expect(card.locator(".score")).not_to_have_text("Looking …")
    view.evaluate("restore(); write('Speak, speak! You are all')")
    shares = view.evaluate("""async () => { const T = state.ids.length, found = [];
        for (let l = 0; l < L; l++) for (let h = 0; h < H; h++) {
          const w = model.see(state.ids, PLAIN, {layer: l, head: h, query: 0, key: 0}).weights;
          let sum = 0; for (let t = 1; t < T; t++) sum += w[(h * T + t) * T + t - 1]; found.push(sum); }
        return found; }""")
    layer, head = divmod(max(range(6), key=lambda n: shares[n]), 2)
    view.evaluate("([layer, head]) => point({head}, 2 + 2 * layer)", [layer, head])
    view.locator("#question-back").get_by_role("button", name="Check").click()
    expect(view.locator("#question-back .score")).to_contain_text("Yes.")
    expect(view.locator("#questions-h")).to_contain_text("1 of")


def test_a_question_opens_by_its_address(browser: Browser, shown):
    for page in opened(browser, shown.as_uri() + "#question=copy"):
        assert page.locator("#question-copy").get_attribute("open") is not None


# --- with a server behind it ---


def test_a_served_page_shows_the_same(browser: Browser):
    model, tokenizer = trained()
    with Host(model, page_of(model, tokenizer, "a model", "Speak, speak", served=True)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        for page in opened(browser, server.address):
            for stage in STAGES:
                page.evaluate("stage => point({query: 6}, stage)", stage)
                page.wait_for_timeout(100)
            page.evaluate("point({}, 4)")
            page.get_by_label("Head 0 speaks").uncheck()
            expect(page.locator("#verdict")).to_contain_text("before")
            ids, at = tokenizer.encode("Speak, speak"), dict(layer=1, head=0, query=6, key=2)
            told = json.loads(page.evaluate("""async ([ids, at]) => JSON.stringify(await see(ids, PLAIN, at),
                (_, value) => ArrayBuffer.isView(value) ? Array.from(value) : value)""", [ids, at]))
            compare(told, inside.see(model, inside.forward(model, ids), ids, at))
        server.shutdown()
        thread.join()
