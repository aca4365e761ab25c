"""Fine-tuning: the loss mask, batches that repeat, runs that learn and go on, clear refusals."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from adapted import CONFIG, Letters, some_rows, tiny

from lib.adapt.finetuning import (
    IGNORE,
    RATES,
    RECIPE,
    Row,
    answer_loss,
    batch,
    finetune,
    only_last,
    order,
    prepare,
    shown,
)
from lib.adapt.lora import add_lora, count_trainable, lora_layers, merge
from lib.errors import CourseError
from lib.training import TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_batch_by_hand():
    rows = [Row((5, 6, 7, 8), 2), Row((1, 2), 1)]
    assert [row.targets for row in rows] == [[IGNORE, 7, 8], [2]]
    x, y = batch(rows)
    assert x.tolist() == [[5, 6, 7], [1, 0, 0]] and y.tolist() == [[IGNORE, 7, 8], [2, IGNORE, IGNORE]]
    assert batch(rows, filler=9)[0].tolist() == [[5, 6, 7], [1, 9, 9]]
    assert {part.device.type for part in batch(rows, device="meta")} == {"meta"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        rows[0].prompt = 1


def test_what_the_loss_asks_for_can_be_shown():
    row = Row(tuple(Letters().encode("ab>cd")), 3)
    assert shown(Letters(), row) == [("a", "b", False), ("b", ">", False), (">", "c", True), ("c", "d", True)]


def test_rows_of_like_length_share_a_batch():
    rows = [Row(tuple(range(length)), 1) for length in (9, 3, 7, 5, 2, 8, 6, 4, 12, 11, 10, 13, 15, 14, 16, 17, 18)]
    batches = order(rows, 2, seed=0)
    first, second = ([next(batches) for _ in range(9)] for _ in range(2))  # 17 rows: a pool of 16 and one of 1
    for epoch in (first, second):
        assert sorted(map(len, epoch)) == [1, *[2] * 8]
        (left,) = next(chosen for chosen in epoch if len(chosen) == 1)
        pool = sorted((i for i in range(17) if i != left), key=lambda i: len(rows[i].tokens))
        pairs = [pool[i : i + 2] for i in range(0, 16, 2)]
        assert sorted(chosen for chosen in epoch if len(chosen) == 2) == sorted(pairs)
        assert [chosen for chosen in epoch if len(chosen) == 2] != pairs, "not from short to long"
    assert first != second
    drawn = torch.randperm(17, generator=torch.Generator().manual_seed(0)).tolist()
    pool = sorted(drawn[:16], key=lambda i: len(rows[i].tokens))
    assert sorted(first) == sorted([*(pool[i : i + 2] for i in range(0, 16, 2)), drawn[16:]])


def test_every_epoch_reads_every_row_once():
    rows = some_rows(11)
    batches = order(rows, 3, seed=0)
    for _ in range(3):
        epoch = [next(batches) for _ in range(4)]
        assert sorted(i for chosen in epoch for i in chosen) == list(range(11))
    again = order(rows, 3, seed=0)
    assert [next(again) for _ in range(12)] != [next(order(rows, 3, seed=1)) for _ in range(12)]


def test_it_learns_by_heart():
    model = tiny()
    with torch.no_grad():
        before = answer_loss(model, *batch(some_rows())).item()
    history = finetune(model, some_rows(), TrainConfig(steps=100, batch_size=3, lr=3e-3, warmup=5, weight_decay=0.0))
    assert before > 3 and history.train_loss[-1] < 0.7 and history.step == 100


def test_a_batch_is_a_step_whatever_the_config_accumulates():
    losses = [finetune(tiny(), some_rows(), dataclasses.replace(CONFIG, accumulate=a)).train_loss for a in (1, 3)]
    assert losses[0] == losses[1]


def test_who_watches_hears_each_step_and_the_bar_its_name():
    told, named = [], []
    history = finetune(tiny(), some_rows(), CONFIG, watch=lambda *step: told.append(step),
                       progress=lambda steps, label: named.append(label) or steps)  # fmt: skip
    assert [done for done, _ in told] == [1, 2, 3, 4, 5, 6] and named == ["fine-tuning"]
    assert [loss for _, loss in told] == pytest.approx(history.train_loss)
    assert history.tokens == sum(len(some_rows()[i].tokens) for chosen in _numbers(3) for i in chosen) * 2
    assert history.val_loss == []


def _numbers(n):
    batches = order(some_rows(), 2, CONFIG.seed)
    return [next(batches) for _ in range(n)]


def test_seed_and_precision_are_the_configs(monkeypatch):
    runs = [finetune(tiny(), some_rows(), dataclasses.replace(CONFIG, seed=seed)).train_loss for seed in (0, 0, 5)]
    assert runs[0] == runs[1] != runs[2]
    half = finetune(tiny(), some_rows(), dataclasses.replace(CONFIG, precision="bfloat16")).train_loss
    assert half != runs[0] and half == pytest.approx(runs[0], rel=0.1)


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


def test_prepare_frees_what_the_method_says():
    assert prepare(model := tiny(), "LoRA").lr == RATES["LoRA"] and lora_layers(model)
    assert prepare(model := tiny(), "last layers", last=1).lr == 5e-4
    assert count_trainable(model) == sum(p.numel() for p in model.blocks[1].parameters()) + 32
    prepare(model := tiny(), "full")
    assert count_trainable(model) == sum(p.numel() for p in model.parameters())
    with pytest.raises(CourseError, match="unknown method 'lora'"):
        prepare(tiny(), "lora")


def test_the_recipe_and_that_it_stays_so():
    assert RATES == {"LoRA": 2e-3, "last layers": 5e-4, "full": 1e-4}
    assert RECIPE == TrainConfig(steps=240, batch_size=2, lr=2e-3, warmup=10, weight_decay=0.0, min_lr=0.05)


def test_prepare_draws_a_lora_by_the_seed_and_frees_what_was_frozen():
    drawn = []
    for seed in (1, 1, 2):
        prepare(model := tiny(n_layer=6), "LoRA", dataclasses.replace(CONFIG, seed=seed))
        drawn.append(model.blocks[5].attention.q.a.tolist())
        assert {name.split(".")[1] for name in lora_layers(model)} == {"4", "5"}
        assert all(len(layer.a) == 8 and layer.scale == 4 for layer in lora_layers(model).values())
    assert drawn[0] == drawn[1] != drawn[2]
    prepare(model := tiny(), "LoRA")
    assert {name.split(".")[1] for name in lora_layers(model)} == {"1"}, "the last block at the latest"
    prepare(model := tiny(n_layer=3), "LoRA", first=1)
    assert {name.split(".")[1] for name in lora_layers(model)} == {"1", "2"}
    given = prepare(model := tiny().requires_grad_(False), "full", CONFIG)
    assert given == dataclasses.replace(CONFIG, lr=1e-4) and all(p.requires_grad for p in model.parameters())
    prepare(model := tiny(n_layer=8), "last layers")
    assert [all(p.requires_grad for p in block.parameters()) for block in model.blocks] == [False] * 2 + [True] * 6
    assert not model.embedding.weight.requires_grad and model.norm.weight.requires_grad


def test_a_run_goes_on_with_its_own_base_only(tmp_path):
    finetune(add_lora(tiny()), some_rows(), CONFIG, tmp_path)
    other = tiny()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    with pytest.raises(CourseError, match="another text"):
        finetune(add_lora(other), some_rows(), CONFIG, tmp_path)
    longer = [dataclasses.replace(row, prompt=row.prompt - 1) for row in some_rows()]
    with pytest.raises(CourseError, match="another text"):
        finetune(add_lora(tiny()), longer, CONFIG, tmp_path)


def test_refusals():
    for call, says in (
        (lambda: only_last(tiny(), 3), "last 1 to 2"),
        (lambda: finetune(tiny(), [], CONFIG), "no examples"),
        (lambda: finetune(tiny().requires_grad_(False), some_rows(), CONFIG), "frozen"),
    ):
        with pytest.raises(CourseError, match=says):
            call()
    with pytest.raises(CourseError, match="diverged"):
        finetune(tiny(), some_rows(), dataclasses.replace(CONFIG, lr=1e38, warmup=0, grad_clip=0.0))
    model = add_lora(tiny())
    merge(model)
    with pytest.raises(CourseError, match="unmerge"):
        finetune(model, some_rows(), CONFIG)
