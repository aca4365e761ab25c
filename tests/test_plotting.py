"""Every figure has words: alternative text in the output, a caption below."""

import matplotlib
import torch

matplotlib.use("agg")
import matplotlib.pyplot as plt

from lib import plotting


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


def test_heatmap_writes_numbers_in_readable_ink():
    fig, ax = plt.subplots()
    plotting.heatmap(ax, [[0.0, 1.0]], digits=1, cmap="Blues")
    assert [(t.get_text(), t.get_color()) for t in ax.texts] == [("0.0", "black"), ("1.0", "white")]
    plt.close(fig)
