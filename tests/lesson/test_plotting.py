"""Every figure has words: alternative text in the output, a caption below."""

import itertools

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")
import matplotlib.pyplot as plt

from lib.lesson import plotting


def test_show_puts_the_caption_in_three_places(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(plotting, "display", lambda data, **more: shown.append((data, more)))
    fig, axes = plt.subplots(1, 3)
    plotting.heatmap(axes[0], torch.rand(3, 3), list("abc"), list("xyz"), digits=2)
    plotting.curves(axes[1], {"one": [1, 2], "two": torch.tensor([2.0, 3.0])}, xlabel="step")
    plotting.bars(axes[2], {"a": 1.0, "b": 2.0})
    plotting.show(fig, "three panels")
    [(data, more)] = shown
    assert data["image/png"].startswith(b"\x89PNG") and data["text/plain"] == "three panels"
    assert more["metadata"]["image/png"]["alt"] == "three panels"
    assert capsys.readouterr().out == "Figure: three panels\n"
    assert not plt.get_fignums()


def test_a_name_keeps_its_colour_in_every_figure():
    fig, axes = plt.subplots(1, 2)
    plotting.bars(axes[0], {"a": 1.0, "b": 2.0, "c": 3.0})
    plotting.bars(axes[1], {"a": 1.0, "c": 3.0}, among=("a", "b", "c"))
    all_three, two = ([bar.get_facecolor() for bar in ax.patches] for ax in axes)
    assert two == [all_three[0], all_three[2]]
    plt.close(fig)


def test_a_bar_carries_its_interval_and_its_number_above_that():
    fig, ax = plt.subplots()
    plotting.bars(ax, {"a": 10.0, "b": 20.0}, digits=0, errors={"a": (4, 1), "b": (0, 8)})
    [lines] = ax.containers[0].lines[2]  # the whiskers
    assert [segment[:, 1].tolist() for segment in lines.get_segments()] == [[6, 11], [20, 28]]
    assert [(text.get_text(), text.xy[1]) for text in ax.texts] == [("10", 11), ("20", 28)]
    plt.close(fig)


def test_heatmap_writes_numbers_in_readable_ink():
    fig, ax = plt.subplots()
    plotting.heatmap(ax, [[0.0, 1.0]], digits=1, cmap="Blues")
    assert [(t.get_text(), t.get_color()) for t in ax.texts] == [("0.0", "black"), ("1.0", "white")]
    plt.close(fig)


def test_a_map_to_point_at(monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "display", lambda data, **more: shown.append(data))
    plotting.hover_map(torch.tensor([[1.0, 0.0], [0.254, 0.746]]), ["<a>", "b"], "who looks at whom")
    [data] = shown
    html = data["text/html"]
    assert data["text/plain"] == "who looks at whom" and "<caption" in html and html.count('scope="row"') == 2
    assert "<a>" not in html and "&lt;a&gt; looks at &lt;a&gt;: 100 %" in html  # a token is never markup
    assert '"b looks at &lt;a&gt;: 25 %"' in html and '"&lt;a&gt; looks at b: 0 %" style=""></td>' in html
    with pytest.raises(ValueError, match="shape"):
        plotting.hover_map(torch.eye(3), ["a", "b"], "")


def linear(colour: str) -> np.ndarray:
    """sRGB as written, "#RRGGBB", to light: (3,) in [0, 1]."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """Light to CIE Lab under D65, where a distance of 2 to 3 is just seen."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(xyz @ light.clip(1e-4, 1) / [0.9505, 1, 1.0888])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# How eyes without one kind of cone see: Machado, Oliveira and Fernandes 2009, table 1, severity 1.
EYES = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("colour", plotting.PALETTE)
def test_each_colour_stands_out_from_white(colour):
    luminance = linear(colour) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) >= 3  # WCAG 2.2, success criterion 1.4.11


@pytest.mark.parametrize("eyes", EYES)
def test_all_eyes_tell_the_colours_apart(eyes):
    seen = {colour: lab(np.array(EYES[eyes]) @ linear(colour)) for colour in plotting.PALETTE}
    near = min((np.linalg.norm(seen[a] - seen[b]), a, b) for a, b in itertools.combinations(seen, 2))
    assert near[0] > 10, near
