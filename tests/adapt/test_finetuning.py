"""LoRA by hand, adapters to and from peft, the loss mask, runs that repeat and go on, clear refusals."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from lib.adapt import finetuning
from lib.adapt.finetuning import (
    IGNORE,
    Row,
    add_lora,
    answer_loss,
    batch,
    count_trainable,
    finetune,
    load_adapter,
    lora_layers,
    lora_off,
    merge,
    only_last,
    remove_lora,
    save_adapter,
    unmerge,
)
from lib.errors import CourseError
from lib.inference.decoding import Decoder
from lib.shop import dialogues
from lib.shop.dialogues import Example
from lib.training import TrainConfig
from lib.transformer import Config, Transformer
from lib.weights import pretrained

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # peft asks transformers the old way
]
SIZES = dict(vocab_size=50, block_size=64, n_layer=2, n_head=4, n_kv_head=2, d_model=32, d_ff=48)
CONFIG = TrainConfig(steps=6, batch_size=2, lr=1e-2, warmup=1, weight_decay=0.0)


def tiny(**changes) -> Transformer:
    torch.manual_seed(0)
    return Transformer(Config.llama(**SIZES | changes)).eval()


def stirred(model: Transformer) -> Transformer:
    """A LoRA as after some training: B no longer zero."""
    with torch.no_grad():
        for i, layer in enumerate(lora_layers(model).values()):
            layer.b.normal_(std=0.2, generator=torch.Generator().manual_seed(i))
    return model


@pytest.fixture
def tokens():
    return torch.randint(50, (2, 11), generator=torch.Generator().manual_seed(0))  # (B, T)


def some_rows(n=6):
    draw = torch.Generator().manual_seed(1)
    made = []
    for i in range(n):
        prompt, said = 4 + i % 3, 3 + i % 2
        made.append(Row(tuple(torch.randint(50, (prompt + said,), generator=draw).tolist()), prompt))
    return made


# LoRA


def test_an_untrained_lora_changes_nothing_and_a_trained_one_is_the_paper_s_formula(tokens):
    model = tiny()
    before = model(tokens)
    add_lora(model, rank=2, alpha=6)
    assert torch.equal(model(tokens), before)
    stirred(model)
    layer = model.blocks[1].mlp.up
    x = torch.randn(3, 5, 32)
    want = x @ (layer.weight + 6 / 2 * layer.b @ layer.a).T  # (3, 5, F)
    assert torch.allclose(layer(x), want, atol=1e-5)
    assert not torch.allclose(model(tokens), before, atol=1e-2)


def test_scaling_where_it_is_narrow_changes_no_bit():
    """The course's own α / r is 4, a power of two."""
    layer = stirred(add_lora(tiny(), rank=8, alpha=32)).blocks[0].mlp.up
    x = torch.randn(7, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    wide = F.linear(x, layer.weight) + 4 * F.linear(F.linear(x, layer.a), layer.b)  # (7, F)
    push = torch.randn_like(wide)
    learns = (x, layer.a, layer.b)
    assert torch.equal(layer(x), wide)
    ours, theirs = (torch.autograd.grad(y, learns, push) for y in (layer(x), wide))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_merged_equals_unmerged_and_back(tokens):
    model = stirred(add_lora(tiny(), targets=finetuning.MATRICES))
    weights = {name: layer.weight.clone() for name, layer in lora_layers(model).items()}
    with torch.no_grad():
        apart = model(tokens)
        merge(model)
        merge(model)  # a second time adds nothing
        assert torch.allclose(model(tokens), apart, atol=1e-4)
        assert not torch.equal(model.blocks[0].attention.q.weight, weights["blocks.0.attention.q"])
        unmerge(model)
        unmerge(model)
        assert torch.allclose(model(tokens), apart, atol=1e-4)
    for name, layer in lora_layers(model).items():
        assert torch.allclose(layer.weight, weights[name], atol=1e-6)


def test_lora_off_and_remove_lora_give_the_base_again(tokens):
    model = tiny()
    with torch.no_grad():
        before = model(tokens)
        stirred(add_lora(model))
        on = model(tokens)
        with lora_off(model):
            assert torch.equal(model(tokens), before)
        assert torch.equal(model(tokens), on)
        merge(model)
        remove_lora(model)
        assert torch.allclose(model(tokens), before, atol=1e-5)
    assert not lora_layers(model) and count_trainable(model) == sum(p.numel() for p in tiny().parameters())
    assert model.state_dict().keys() == tiny().state_dict().keys()


def test_what_learns_is_what_was_asked_for():
    model = add_lora(tiny(), rank=3, targets=("q", "down"))
    assert count_trainable(model) == 2 * 3 * ((32 + 32) + (48 + 32))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    finetune(model, some_rows(), CONFIG)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == (name.rsplit(".", 1)[1] not in "ab"), name
    last = only_last(tiny(), 1)
    before = {name: p.detach().clone() for name, p in last.named_parameters()}
    finetune(last, some_rows(), CONFIG)
    for name, p in last.named_parameters():
        assert torch.equal(p, before[name]) != (name.startswith(("blocks.1.", "norm."))), name


def test_default_targets_are_about_a_hundredth_of_smollm2():
    with torch.device("meta"):
        sizes = dict(vocab_size=49152, block_size=128, n_layer=30, n_head=9, n_kv_head=3, d_model=576, d_ff=1536)
        model = Transformer(Config.llama(**sizes))
    whole = sum(p.numel() for p in model.parameters())
    assert whole == 134_515_008
    for block in model.blocks:
        for name in finetuning.TARGETS:
            layer = finetuning._find(block, name)
            assert layer is not None
    numbers = 30 * 8 * sum(a + b for a, b in ((576, 576), (576, 192), (576, 576), (576, 1536), (1536, 576)))
    assert numbers == 1_751_040 and numbers / whole < 0.015


def test_refusals():
    for call, says in (
        (lambda: add_lora(tiny(), rank=0), "rank"),
        (lambda: add_lora(tiny(), targets=("q", "query")), "'query'"),
        (lambda: add_lora(tiny(mlp="plain"), targets=("gate",)), "'gate'"),
        (lambda: add_lora(add_lora(tiny())), "has LoRA already"),
        (lambda: add_lora(tiny(), first=2), "from 0 to 1"),
        (lambda: only_last(tiny(), 3), "last 1 to 2"),
        (lambda: finetune(tiny(), [], CONFIG), "no examples"),
        (lambda: finetune(tiny().requires_grad_(False), some_rows(), CONFIG), "frozen"),
        (lambda: save_adapter(tiny(), "nowhere"), "no LoRA to save"),
    ):
        with pytest.raises(CourseError, match=says):
            call()
    model = add_lora(tiny())
    merge(model)
    with pytest.raises(CourseError, match="unmerge"):
        finetune(model, some_rows(), CONFIG)


# Adapters as files


def test_saved_and_loaded_adapters_compute_the_same(tmp_path, tokens):
    model = stirred(add_lora(tiny(), rank=4, alpha=12))
    save_adapter(model, tmp_path / "full")
    save_adapter(model, tmp_path / "half", half=True)
    again, half = load_adapter(tiny(), tmp_path / "full"), load_adapter(tiny(), tmp_path / "half")
    with torch.no_grad():
        assert torch.equal(again(tokens), model(tokens))
        assert torch.allclose(half(tokens), model(tokens), atol=1e-2)
    files = [path / "adapter_model.safetensors" for path in (tmp_path / "half", tmp_path / "full")]
    assert files[0].stat().st_size < 0.75 * files[1].stat().st_size


def test_an_adapter_of_a_very_narrow_base_comes_back(tmp_path, tokens):
    model = stirred(add_lora(tiny(d_model=8)))
    save_adapter(model, tmp_path)
    assert torch.equal(load_adapter(tiny(d_model=8), tmp_path)(tokens), model(tokens))


@pytest.fixture
def theirs(tmp_path):
    """Our tiny base as a transformers model."""
    transformers = pytest.importorskip("transformers")
    pretrained.save(tiny(), tmp_path / "base")
    return transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()


def test_our_adapter_in_peft(tmp_path, theirs, tokens):
    peft = pytest.importorskip("peft")
    for targets, first in ((finetuning.TARGETS, 0), (finetuning.MATRICES, 1), (("v",), 0)):
        ours = stirred(add_lora(tiny(), rank=4, alpha=12, targets=targets, first=first))
        assert len(lora_layers(ours)) == (2 - first) * len(targets)
        folder = tmp_path / "-".join(targets)
        save_adapter(ours, folder, base="tiny")
        loaded = peft.PeftModel.from_pretrained(theirs, folder)
        with torch.no_grad():
            assert torch.allclose(loaded(tokens).logits, ours(tokens), atol=1e-4)
            assert not torch.allclose(loaded(tokens).logits, tiny()(tokens), atol=1e-2)
        theirs = loaded.unload()


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_s_adapter_in_ours(tmp_path, theirs, tokens, rslora):
    peft = pytest.importorskip("peft")
    names = ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"]
    about = peft.LoraConfig(r=4, lora_alpha=10, target_modules=names, use_rslora=rslora, task_type="CAUSAL_LM")
    torch.manual_seed(3)
    model = peft.get_peft_model(theirs, about)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2)
        model.save_pretrained(tmp_path / "adapter")
        ours = load_adapter(tiny(), tmp_path / "adapter")
        assert torch.allclose(ours(tokens), model.eval()(tokens).logits, atol=1e-4)


def test_an_adapter_for_another_base_is_refused(tmp_path, tokens):
    save_adapter(stirred(add_lora(tiny())), tmp_path)
    other_weights = tiny()
    with torch.no_grad():
        other_weights.embedding.weight.add_(0.1)
    for model, says in (
        (tiny(d_model=64), "another base model.*shapes"),
        (tiny(n_layer=1), "another base model: it has"),
        (other_weights, "other base weights"),
        (add_lora(tiny()), "has LoRA already"),
    ):
        before = model(tokens)
        with pytest.raises(CourseError, match=says):
            load_adapter(model, tmp_path)
        assert torch.equal(model(tokens), before)


def test_damaged_and_strange_adapters_are_refused(tmp_path):
    save_adapter(add_lora(tiny()), tmp_path)
    config, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    about, whole = json.loads(config.read_text()), weights.read_bytes()

    def refused(says):
        with pytest.raises(CourseError, match=says) as error:
            load_adapter(tiny(), tmp_path)
        assert "\n" not in str(error.value)

    for change, says in (
        (dict(peft_type="IA3"), "kind 'IA3'"),
        (dict(use_dora=True), "use_dora"),
        (dict(bias="all"), "biases"),
        (dict(rank_pattern={"q_proj": 2}), "rank_pattern"),
        (dict(r="many"), "no whole adapter"),
        (dict(r=4), "another base model"),
    ):
        config.write_text(json.dumps(about | change))
        refused(says)
    for text in ("[]", "{", '{"r": 8}'):
        config.write_text(text)
        refused("no whole adapter")
    config.write_text(json.dumps(about))
    weights.write_bytes(whole[:-40])
    refused("no whole adapter")
    weights.unlink()
    refused("adapter_model.safetensors")
    config.unlink()
    refused("adapter_config.json")


# What the model reads


class Letters:
    """A tokenizer for tests: a token is a character."""

    eos_id = 0

    def encode(self, text):
        return [ord(c) for c in text]

    def token(self, id):
        return chr(id)

    def chat(self, messages):
        return self.encode("".join(m["content"] for m in messages) + ">")


def test_the_loss_asks_for_the_summary_and_its_end_only():
    example = Example("Customer: hi", "Cancel.")
    row = finetuning.row(Letters(), example)
    asked = [after for _, after, asked in finetuning.shown(Letters(), row) if asked]
    assert "".join(asked) == "Cancel.\0"
    assert next(here for here, _, asked in finetuning.shown(Letters(), row) if asked) == ">"
    x, y = batch([row, Row((1, 2, 3, 4), 2)])
    assert x.shape == y.shape == (2, len(row.tokens) - 1)
    assert y[1].tolist() == [IGNORE, 3, 4] + [IGNORE] * (y.size(1) - 3)
    assert (y[0] != IGNORE).sum() == len("Cancel.") + 1


def test_rows_refuse_bad_data():
    good = Example("Customer: hi", "Cancel.")
    with pytest.raises(CourseError, match="more than 20"):
        finetuning.rows(Letters(), [good], most=20)
    with pytest.raises(CourseError, match="same dialogue"):
        finetuning.rows(Letters(), [good, good])
    assert len(finetuning.rows(Letters(), [good])) == 1


def test_answer_loss_is_cross_entropy_and_padding_costs_nothing():
    model, rows = tiny(), some_rows(3)
    x, y = batch(rows)
    want = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE)
    assert torch.allclose(answer_loss(model, x, y), want, atol=1e-6)
    other, _ = batch(rows, filler=7)
    assert torch.allclose(answer_loss(model, other, y), want, atol=1e-6)
    # what is asked for in the prompt makes no difference, what is asked for in the answer does
    alone = [answer_loss(model, *batch([row])) * (len(row.tokens) - row.prompt) for row in rows]
    assert torch.allclose(sum(alone) / sum(len(row.tokens) - row.prompt for row in rows), want, atol=1e-5)


def test_every_epoch_reads_every_row_once():
    rows = some_rows(11)
    batches = finetuning.order(rows, 3, seed=0)
    for _ in range(3):
        epoch = [next(batches) for _ in range(4)]
        assert sorted(i for chosen in epoch for i in chosen) == list(range(11))
    again = finetuning.order(rows, 3, seed=0)
    assert [next(again) for _ in range(12)] != [next(finetuning.order(rows, 3, seed=1)) for _ in range(12)]


def test_it_learns_by_heart():
    model = tiny()
    with torch.no_grad():
        before = answer_loss(model, *batch(some_rows())).item()
    history = finetune(model, some_rows(), TrainConfig(steps=100, batch_size=3, lr=3e-3, warmup=5, weight_decay=0.0))
    assert before > 3 and history.train_loss[-1] < 0.7 and history.step == 100


@pytest.mark.parametrize("prepare", [add_lora, lambda model: only_last(model, 1), lambda model: model])
def test_threads_that_share_a_batch_change_nothing_but_rounding(prepare):
    config = TrainConfig(steps=5, batch_size=3, lr=1e-2, warmup=2)
    found = []
    for workers in (1, 2, 2, 4):
        model = prepare(tiny())
        history = finetune(model, some_rows(), config, workers=workers)
        found.append((history.train_loss, torch.cat([p.detach().flatten() for p in model.parameters()])))
    (alone, weights), (two, by_two), (again, by_two_again), (four, by_four) = found
    assert alone == pytest.approx(two, abs=1e-5) and alone == pytest.approx(four, abs=1e-5)
    assert torch.allclose(weights, by_two, atol=1e-3) and torch.allclose(weights, by_four, atol=1e-3)
    assert two == again and torch.equal(by_two, by_two_again)


def test_a_fault_in_a_thread_is_raised():
    model = add_lora(tiny())
    model.hidden = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        finetune(model, some_rows(), CONFIG, workers=2)


class Stop(Exception):
    pass


@pytest.mark.parametrize("prepare", [add_lora, lambda model: only_last(model, 1), lambda model: model])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, prepare):
    config = TrainConfig(steps=6, batch_size=2, lr=1e-2, warmup=2, checkpoint_every=2)
    straight = prepare(tiny())
    wanted = finetune(straight, some_rows(), config)

    def killed(done, loss):
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        finetune(prepare(tiny()), some_rows(), config, tmp_path, watch=killed)
    resumed = prepare(tiny())
    got = finetune(resumed, some_rows(), config, tmp_path)
    assert got.train_loss == wanted.train_loss and got.tokens == wanted.tokens and got.seconds > 0
    for (name, a), (_, b) in zip(straight.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(CourseError, match="another text"):
        finetune(prepare(tiny()), some_rows(4), config, tmp_path)


def test_a_run_goes_on_with_its_own_lora_only(tmp_path):
    given = dict(rank=2, alpha=8, targets=("q", "v"), first=0)
    finetune(add_lora(tiny(), **given), some_rows(), CONFIG, tmp_path)
    finetune(add_lora(tiny(), **given), some_rows(), CONFIG, tmp_path)
    for change in (dict(rank=3, alpha=12), dict(alpha=4), dict(targets=("q", "out")), dict(first=1)):
        model = add_lora(tiny(), **given | change)
        before = {name: p.clone() for name, p in model.named_parameters()}
        with pytest.raises(CourseError, match="another text or LoRA"):
            finetune(model, some_rows(), CONFIG, tmp_path)
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with pytest.raises(CourseError, match="another text or LoRA"):
        finetune(tiny(), some_rows(), CONFIG, tmp_path)


def test_a_checkpoint_of_adapters_is_small(tmp_path):
    finetune(add_lora(tiny(), rank=1, targets=("q",)), some_rows(), CONFIG, tmp_path)
    size = (tmp_path / "checkpoint.safetensors").stat().st_size
    assert size < sum(p.numel() for p in tiny().parameters()) * 4


class Numbers:
    """A tokenizer for tests: a token is its number."""

    eos_id = 3

    def decode(self, ids):
        return " ".join(str(int(i)) for i in ids)


def test_replies_are_in_order_whatever_their_length_and_end_at_the_end():
    model = stirred(add_lora(tiny()))
    prompts = [[5, 6, 7, 8, 9], [1, 2], [4, 4, 4, 10, 11, 12, 13], [20]]
    alone = [finetuning.reply(model, Numbers(), [prompt], most=8)[0] for prompt in prompts]
    assert finetuning.reply(model, Numbers(), prompts, batch_size=3, most=8) == alone
    assert finetuning.reply(model, Numbers(), prompts, batch_size=1, most=8, workers=2) == alone
    assert len(set(alone)) > 1 and not any("3" in text.split() for text in alone)
    assert not any(layer.merged for layer in lora_layers(model).values())
    with torch.no_grad():
        x = torch.tensor([prompts[0]])
        assert alone[0].split()[0] == str(model(x)[0, -1].argmax().item())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_copied_or_saved_has_the_lora_in_it_and_leaves_the_model_alone(family, tmp_path, tokens):
    torch.manual_seed(0)
    base = getattr(Config, family)(**SIZES | dict(n_kv_head=4))
    model = stirred(add_lora(Transformer(base).eval(), targets=("q", "v", "out", "up")))
    before = {name: p.clone() for name, p in model.state_dict().items()}

    def same(other):
        return torch.allclose(other(tokens), model(tokens), atol=1e-4)

    with torch.no_grad():
        pretrained.save(model, tmp_path)
        assert same(Decoder(model)) and same(pretrained.load(tmp_path))
        finetuning.reply(model, Numbers(), [[5, 6, 7]], most=2)
        assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
        with lora_off(model):
            pretrained.save(model, tmp_path)
            assert same(Decoder(model)) and same(pretrained.load(tmp_path))
        written = Decoder(model)(tokens).clone()
        merge(model)
        assert torch.equal(Decoder(model)(tokens), written), "not what merge computes, to the bit"


def test_messages_hold_the_instruction_and_the_dialogue():
    system, user = dialogues.messages("Customer: hi")
    assert (system["role"], user["role"]) == ("system", "user")
    assert system["content"] == dialogues.INSTRUCTION and user["content"] == "Customer: hi"


def test_prepare_frees_what_the_method_says():
    assert finetuning.prepare(model := tiny(), "LoRA").lr == finetuning.RATES["LoRA"] and lora_layers(model)
    assert finetuning.prepare(model := tiny(), "last layers", last=1).lr == 5e-4
    assert count_trainable(model) == sum(p.numel() for p in model.blocks[1].parameters()) + 32
    finetuning.prepare(model := tiny(), "full")
    assert count_trainable(model) == sum(p.numel() for p in model.parameters())
    with pytest.raises(CourseError, match="unknown method 'lora'"):
        finetuning.prepare(tiny(), "lora")


def test_a_request_s_flops_by_hand():
    model = tiny(n_layer=1, n_kv_head=4)
    matrices = 4 * 32 * 32 + 3 * 32 * 48
    assert finetuning.request_flops(model, 2, 1) == 2 * matrices * 3 + 2 * 50 * 32 + 4 * 32 * (1 + 2 + 3)


def test_the_adapter_that_ships_does_its_job():
    assert sum(path.stat().st_size for path in finetuning.ADAPTER.iterdir()) < 5e6
    model, tokenizer = pretrained.load_smollm2()
    load_adapter(model, finetuning.ADAPTER)
    assert count_trainable(model) < 0.015 * 134_515_008
    held_out = dialogues.make("seen", 4, 7)
    said = finetuning.summarise(model, tokenizer, [e.dialogue for e in held_out])
    assert sum(dialogues.right(one, e.summary) for one, e in zip(said, held_out, strict=True)) >= 3


@pytest.mark.long("a quarter of an hour")
def test_the_adapter_that_ships_can_be_made_anew():
    model, tokenizer = pretrained.load_smollm2()
    config = finetuning.prepare(model, "LoRA", dataclasses.replace(finetuning.RECIPE, seed=1))
    finetune(model, finetuning.rows(tokenizer, finetuning.training_set(seed=1)), config)
    for split, least in (("seen", 0.85), ("unseen", 0.7)):
        held_out = dialogues.make(split, 60, 1001)
        said = finetuning.summarise(model, tokenizer, [e.dialogue for e in held_out], batch_size=20)
        assert sum(dialogues.right(one, e.summary) for one, e in zip(said, held_out, strict=True)) >= least * 60


def test_the_studies_that_ship_are_whole(tmp_path):
    runs = finetuning.studies()["runs"]
    of_recipe = [run for run in runs if run["examples"] == finetuning.EXAMPLES]
    assert {run["method"] for run in of_recipe} == set(finetuning.METHODS)
    assert all(run["steps"] == finetuning.RECIPE.steps for run in of_recipe)
    assert len({run["examples"] for run in runs if run["method"] == "LoRA"}) >= 4
    broken = tmp_path / "finetuning.json"
    for text in ("[]", "{", '{"table": []}'):
        broken.write_text(text)
        with pytest.raises(CourseError, match=r"finetuning.json is missing or damaged .*git checkout"):
            finetuning.studies(broken)
    with pytest.raises(CourseError, match="missing or damaged"):
        finetuning.studies(tmp_path / "none.json")
