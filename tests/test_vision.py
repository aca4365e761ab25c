"""The same Block reads pictures: patches by hand, order heard or not, training that repeats, clear refusals."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lib import training, vision
from lib.attention import recorded
from lib.embedding import sinusoidal
from lib.errors import CourseError
from lib.training import TrainConfig
from lib.transformer import Block, Config, Transformer
from lib.vision import SmallCNN, VisionTransformer, accuracy, patches, shuffle_patches, train_classifier

pytestmark = pytest.mark.usefixtures("one_thread")
PICTURE = (1, 8, 8)
SIZES = dict(vocab_size=10, block_size=16, n_layer=2, n_head=2, d_model=16, causal=False)


def vit(**changes) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(Config(**(SIZES | dict(position="learned") | changes)), PICTURE, 2).eval()


@pytest.fixture
def images():
    return torch.rand(6, *PICTURE, generator=torch.Generator().manual_seed(0))  # (B, C, Y, X)


def bars(n=64, seed=0):
    """Pictures with a bright bar across one of four bands: (N, 1, 8, 8) and which band (N,)."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=draw)
    images = 0.3 * torch.rand(n, *PICTURE, generator=draw)
    for i, band in enumerate(labels.tolist()):
        images[i, 0, 2 * band] += 0.7
    return images, labels


# Patches


def test_patches_by_hand():
    picture = torch.arange(16).view(1, 1, 4, 4)
    assert patches(picture, 2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]
    two = torch.stack((picture[0], 100 + picture[0]), dim=1)  # (1, 2, 4, 4): channel after channel within a patch
    assert patches(two, 2)[0, 1].tolist() == [2, 3, 6, 7, 102, 103, 106, 107]


@pytest.mark.parametrize(("shape", "size"), [((1, 8, 8), 2), ((3, 6, 9), 3), ((2, 4, 4), 1), ((1, 4, 4), 4)])
def test_patches_and_back(shape, size):
    images = torch.randn(3, *shape)
    parts = patches(images, size)
    assert parts.shape == (3, shape[1] * shape[2] // size**2, shape[0] * size**2)
    assert torch.equal(vision.assemble(parts, size, shape), images)
    assert torch.equal(patches(images.mT.contiguous().mT, size), parts), "memory laid out otherwise"


def test_embedding_patches_is_a_convolution_with_stride(images):
    embedding = vit().embedding
    kernel = embedding.weight.view(-1, 1, 2, 2)  # (D, C, P, P)
    convolved = F.conv2d(images, kernel, embedding.bias, stride=2).flatten(2).mT  # (B, T, D)
    torch.testing.assert_close(embedding(patches(images, 2)), convolved)


def test_a_shuffle_is_a_picture_and_can_be_undone(images):
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    mixed = shuffle_patches(images, 2, order)
    assert mixed.shape == images.shape and not torch.equal(mixed, images)
    assert torch.equal(patches(mixed, 2)[:, 3], patches(images, 2)[:, order[3]])
    assert torch.equal(shuffle_patches(mixed, 2, order.argsort()), images)


# The model


def test_it_is_the_very_same_block():
    words = Transformer(Config(vocab_size=10, block_size=16, n_layer=1, n_head=2, d_model=16))
    assert type(vit().blocks[0]) is type(words.blocks[0]) is Block
    assert all(type(block) is Block for block in vit().blocks)
    one, other = vit(n_kv_head=1, position="none").blocks[0], Block(Config(**SIZES, n_kv_head=1))
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 5, 16)
    assert torch.equal(one(x, vision.EVERYONE), other(x, vision.EVERYONE))


@pytest.mark.parametrize("position", vision.POSITIONS)
def test_order_counts_only_with_positions(images, position):
    model = vit(position=position)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5)  # an untrained model hardly looks at anything
        order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
        plain, mixed = model(images), model(shuffle_patches(images, 2, order))
    assert plain.shape == (6, 10)
    moved = (plain - mixed).abs().max()
    assert moved < 1e-5 if position == "none" else moved > 1e-3


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
def test_from_picture_to_class_by_hand(images, position):
    model = vit(position=position)
    x = model.embedding(patches(2 * images - 1, 2))  # (B, T, D)
    if position == "learned":
        x = x + model.positions.weight
    elif position == "sinusoidal":
        x = x + sinusoidal(16, 16)
    for block in model.blocks:
        x = block(x, vision.EVERYONE)
    torch.testing.assert_close(model(images), model.head(model.norm(x.mean(1))))
    half = model.bfloat16()
    assert half(images.bfloat16()).dtype is torch.bfloat16
    assert model.to("meta")(images.bfloat16().to("meta")).shape == (6, 10)


def test_dropout_falls_on_the_patches_too(images):
    model = vit(dropout=0.5)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))
    for block in model.blocks:
        block.eval()
    assert not torch.equal(model(images), model(images)), "before the first block"


def test_training_ends_ready_for_use_and_predictions_leave_it_so(images):
    model, labels = vit(dropout=0.5), torch.arange(6)
    train_classifier(model, images, labels, TrainConfig(steps=2, batch_size=4))
    assert not model.training
    assert torch.equal(vision.predict(model.train(), images), vision.predict(model, images)) and model.training
    assert torch.equal(vision.predict(model, images, 4), vision.predict(model, images))


def test_every_patch_hears_every_other(images):
    model = vit()
    x = model.embedding(patches(images[:1], 2)).detach().requires_grad_()  # (1, T, D)
    for t in (0, 15):
        [gradient] = torch.autograd.grad(model.blocks[0](x, vision.EVERYONE)[0, t].square().sum(), x, retain_graph=True)
        assert (gradient[0].norm(dim=-1) > 0).all()


def test_attention_maps_are_shares_and_change_nothing(images):
    model = vit(n_head=4, n_kv_head=2)
    with recorded(model) as attention:
        logits = model(images)
    torch.testing.assert_close(logits, model(images))
    assert [tuple(weights.shape) for weights in attention] == [(6, 4, 16, 16)] * 2
    torch.testing.assert_close(attention[0].sum(-1), torch.ones(6, 4, 16))
    assert (attention[0] > 0).all(), "nobody is hidden"


@pytest.mark.parametrize("model", [vit(), vit(position="sinusoidal", norm="layer"), SmallCNN(PICTURE, 10)],
                         ids=["vit", "sinusoidal", "cnn"])  # fmt: skip
def test_gradients_reach_every_parameter(model, images):
    F.cross_entropy(model(images), torch.arange(6)).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name
    model.zero_grad()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(block_size=64), "block_size=64, but the picture has 16 patches; set block_size=16"),
        (dict(causal=True), "causal mask hides .*; set causal=False"),
        (dict(position="rotary"), "position='rotary' is for places on a line; choose learned, sinusoidal, none"),
    ],
)
def test_a_config_that_does_not_fit(changes, says):
    with pytest.raises(CourseError, match=says):
        vit(**changes)


def test_pictures_that_do_not_fit(images):
    with pytest.raises(CourseError, match="patches of 3 x 3 do not divide a picture of 8 x 8"):
        VisionTransformer(Config(**SIZES, position="none"), PICTURE, 3)
    for size in (0, 5):
        with pytest.raises(CourseError, match=f"patches of {size} x {size} do not divide"):
            patches(images, size)
    with pytest.raises(CourseError, match=r"shape \(B, C, Y, X\), not \(6, 8, 8\)"):
        patches(images[:, 0], 2)
    for model in (vit(), SmallCNN(PICTURE, 10)):
        with pytest.raises(CourseError, match=r"reads pictures of \(B, 1, 8, 8\), not \(6, 1, 8, 4\)"):
            model(images[..., :4])
    with pytest.raises(CourseError, match="are not the 2 x 2 patches of a picture of 1 x 8 x 8"):
        vision.assemble(torch.zeros(2, 15, 4), 2, PICTURE)
    with pytest.raises(CourseError, match="order must name each of the 16 patches once"):
        shuffle_patches(images, 2, torch.zeros(16, dtype=torch.long))
    for Y, X in ((6, 8), (8, 6)):
        with pytest.raises(CourseError, match=f"{Y} x {X} does not divide by 4"):
            SmallCNN((1, Y, X), 10)
        with pytest.raises(CourseError, match=f"patches of 4 x 4 do not divide a picture of {Y} x {X}"):
            patches(torch.zeros(1, 1, Y, X), 4)


def test_where_training_starts_and_how_wide_a_cnn_is():
    torch.manual_seed(0)
    wide = VisionTransformer(Config(**SIZES | dict(d_model=128, n_layer=2), position="learned"), PICTURE, 2)
    for weight in (wide.embedding.weight, wide.head.weight, wide.blocks[0].mlp.up.weight, wide.positions.weight):
        assert abs(weight.std().item() / 0.02 - 1) < 0.1
    assert abs(wide.blocks[0].mlp.down.weight.std().item() / (0.02 / 2) - 1) < 0.1 and not wide.head.bias.any()
    cnn = SmallCNN(PICTURE, 10)
    shapes = [tuple(p.shape) for p in cnn.parameters()]
    assert shapes == [(16, 1, 3, 3), (16,), (32, 16, 3, 3), (32,), (10, 32 * 2 * 2), (10,)]
    assert SmallCNN(PICTURE, 10, 4).conv2.out_channels == 8
    filtered = cnn.conv1(torch.zeros(2, *PICTURE))  # (B, width, Y, X): as large as the picture, and so is the second
    assert filtered.shape[2:] == PICTURE[1:] == cnn.conv2(filtered).shape[2:]


# Training


def test_shifts_by_hand():
    image = torch.arange(1.0, 10).view(1, 1, 3, 3).repeat(3, 1, 1, 1)
    moved = vision.shifted(image, torch.tensor([0, 1, -1]), torch.tensor([0, 0, 2]))
    assert torch.equal(moved[0], image[0])
    assert moved[1, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]  # one down
    assert moved[2, 0].tolist() == [[0, 0, 4], [0, 0, 7], [0, 0, 0]]  # one up, two to the right


def test_pictures_are_moved_both_ways_and_by_every_width_alike():
    spot = torch.zeros(1, 1, 9, 9)
    spot[0, 0, 4, 4] = 1
    x, _ = vision.batch(spot, torch.zeros(1, dtype=torch.long), 3000, 0, 0, shift=2)
    for axis in (2, 3):
        where = x.sum(dim=5 - axis).flatten(1).argmax(-1) - 4  # along Y, or along X
        times = torch.bincount(where + 2, minlength=5)
        assert len(times) == 5 and times.min() > 3000 / 5 * 0.85


def test_batches_depend_on_seed_and_step_alone():
    images, labels = bars(20)
    x, y = vision.batch(images, labels, 5, seed=1, step=7)
    again = vision.batch(images, labels, 5, seed=1, step=7)
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])
    assert not torch.equal(y, vision.batch(images, labels, 5, seed=1, step=8)[1])
    for picture, label in zip(x, y, strict=True):  # each with its own label
        at = (images == picture).flatten(1).all(1).nonzero()[0]
        assert labels[at] == label
    moved, same = vision.batch(images, labels, 5, seed=1, step=7, shift=1)
    assert torch.equal(same, y) and not torch.equal(moved, x)


@pytest.mark.parametrize("make", [vit, lambda: (torch.manual_seed(0), SmallCNN(PICTURE, 10))[1]], ids=["vit", "cnn"])
@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_it_learns_and_a_second_run_is_the_same(make, optimizer):
    config = TrainConfig(steps=120, batch_size=16, lr=1e-2, warmup=5, optimizer=optimizer, eval_every=50)
    runs, looked = [], []
    for _ in range(2):
        model = make()
        torch.manual_seed(len(runs))  # the caller's random state does not matter, and is left alone
        before = torch.get_rng_state()
        runs.append(train_classifier(model, *bars(), config, on_eval=looked.append))
        assert torch.equal(torch.get_rng_state(), before)
    assert runs[0].train_loss == runs[1].train_loss and len(runs[0].train_loss) == 120
    assert looked == [0, 50, 100, 120] * 2
    assert runs[0].train_loss[-1] < 0.5 * runs[0].train_loss[0] and runs[0].tokens == 1920 and runs[0].seconds > 0
    assert accuracy(model, *bars(seed=1)) > 0.9
    for change in (dict(seed=1), dict()):
        other = train_classifier(make(), *bars(), dataclasses.replace(config, **change), shift=0 if change else 1)
        assert other.train_loss != runs[0].train_loss


def test_dropout_is_part_of_the_run_and_off_afterwards(images):
    config = TrainConfig(steps=3, batch_size=8, warmup=0)
    runs = [train_classifier(vit(dropout=p), *bars(), config).train_loss for p in (0.2, 0.2, 0.0)]
    assert runs[0] == runs[1] != runs[2]
    model = vit(dropout=0.2)
    train_classifier(model, *bars(), config)
    assert torch.equal(model(images), model(images))


def test_accumulating_is_one_large_batch():
    one, two = (TrainConfig(steps=4, batch_size=b, accumulate=a, warmup=0) for b, a in ((16, 1), (4, 4)))
    first, second = (train_classifier(vit(), *bars(), config).train_loss for config in (one, two))
    assert first == pytest.approx(second, abs=1e-5)


def test_the_schedule_and_the_clip_are_those_of_the_config(monkeypatch):
    rates, clips = [], []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step",
                        lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1])  # fmt: skip
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, most: clips.append(most))
    config = TrainConfig(steps=6, batch_size=4, warmup=2, lr=0.01, grad_clip=0.3)
    train_classifier(vit(), *bars(), config)
    assert rates == pytest.approx([0.01 * training.schedule(s, config) for s in range(6)])
    assert clips == [0.3] * 6


def test_a_bar_that_ends_early_ends_the_run():
    history = train_classifier(vit(), *bars(), TrainConfig(steps=50), progress=lambda steps, label: list(steps)[:3])
    assert history.step == 3


def test_bfloat16_runs_and_stays_close():
    config = TrainConfig(steps=3, batch_size=8, warmup=0)
    half = dataclasses.replace(config, precision="bfloat16")
    first, second = (train_classifier(vit(), *bars(), c).train_loss for c in (config, half))
    assert first != second and first == pytest.approx(second, abs=0.05)


def test_accuracy_counts(images):
    model = vit()
    likeliest = model(images).argmax(-1)
    labels = likeliest.clone()
    labels[:3] = (labels[:3] + 1) % 10
    model.train()
    assert accuracy(model, images, labels, batch_size=4) == 0.5
    assert model.training and torch.equal(vision.predict(model, images, 4), likeliest)


def test_a_run_that_goes_astray():
    with pytest.raises(CourseError, match="the run diverged: "):
        train_classifier(vit(), *bars(8), TrainConfig(steps=5, batch_size=4, lr=1e38, warmup=0, grad_clip=0.0))


def test_pictures_and_labels_that_do_not_belong_together():
    images, labels = bars(8)
    for call in (accuracy, lambda *a: train_classifier(*a, TrainConfig(steps=1))):
        with pytest.raises(CourseError, match=r"8 pictures and labels of shape \(7,\)"):
            call(vit(), images, labels[:7])
        with pytest.raises(CourseError, match=r"0 pictures"):
            call(vit(), images[:0], labels[:0])
        with pytest.raises(CourseError, match=r"shape \(B, C, Y, X\)"):
            call(vit(), images[:, 0], labels)
    with pytest.raises(CourseError, match="label 9 is not among the model's 4 classes"):
        train_classifier(vit(vocab_size=4), images, labels.new_full((8,), 9), TrainConfig(steps=1))
