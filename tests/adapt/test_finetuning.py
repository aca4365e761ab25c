"""Fine-tuning: the loss mask, batches that repeat, runs that learn and go on, clear refusals."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from adapted import CONFIG, some_rows, tiny

from lib.adapt.finetuning import IGNORE, RATES, answer_loss, batch, finetune, only_last, order, prepare
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
