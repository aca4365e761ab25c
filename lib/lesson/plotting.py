"""Pictures that read alike in every lesson, on a light page or a dark one, for eyes of every kind.

A figure is shown with words beside it: the caption says what the picture shows and is its alternative text too.
Exact numbers belong inside the picture (title, label, legend).
"""

import io
from collections.abc import Mapping, Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette (2008), which colour-blind readers tell apart, without its yellow and with its light colours
# darkened: each stands out from white by 3 to 1 (WCAG 2.2, 1.4.11). tests/lesson/test_plotting.py holds it to both.
PALETTE = ["#005A9C", "#C58800", "#009170", "#B03A00", "#CC79A7", "#2C9AD6", "#000000"]


def style() -> None:
    """Set the look of every figure that follows; whatever somebody's own matplotlibrc says is forgotten."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.figsize": (7.5, 3.6),
            "figure.dpi": 100,
            "figure.facecolor": "white",  # opaque, so that a dark page does not swallow the labels
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "font.size": 10,
            "legend.frameon": False,
            "image.cmap": "Blues",
        }
    )


def show(fig: Figure, caption: str) -> None:
    """Show a figure with its caption below; the caption is also the picture's alternative text."""
    png = io.BytesIO()
    fig.savefig(png, format="png", metadata={"Software": None})
    plt.close(fig)
    display(
        {"image/png": png.getvalue(), "text/plain": caption},
        raw=True,
        metadata={"image/png": {"alt": caption}},
    )
    print(f"Figure: {caption}")


def hover_map(weights, tokens: Sequence[str], caption: str, columns: Sequence[str] | None = None) -> None:
    """Show attention weights (T, S) in [0, 1] as a table to point at: a cell says who looks at whom, and how much.

    tokens: those that look, T of them; columns: those looked at, the same unless given. Shares are rounded to whole
    per cents, and what is below one stays empty. Raises ValueError where names and weights do not fit together.
    """
    weights, columns = _plain(weights), tokens if columns is None else columns
    if weights.shape != (len(tokens), len(columns)):
        raise ValueError(f"weights of shape {weights.shape} for {len(tokens)} tokens that look at {len(columns)}")
    pale, full = np.array([255, 255, 255]), np.array([44, 154, 214])  # black ink stands out from all between, 6 to 1
    cell = "padding:0 .4em;min-width:2em;text-align:center;color:#111;background:rgb({},{},{})"
    head = "".join(f'<th scope="col" style="text-align:center">{escape(name)}</th>' for name in columns)
    lines = [f"<tr><td></td>{head}</tr>"]
    for name, row in zip(tokens, weights, strict=True):
        cells = [f'<th scope="row" style="text-align:right">{escape(name)}</th>']
        for other, weight in zip(columns, row, strict=True):
            share = round(100 * float(weight))
            look = cell.format(*np.rint(pale + (full - pale) * share / 100).astype(int)) if share else ""
            told = f"{escape(name)} looks at {escape(other)}: {share} %"
            cells.append(f'<td title="{told}" style="{look}">{share or ""}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    table = (f'<div style="overflow-x:auto"><table style="border-collapse:collapse"><caption style="text-align:left">'
             f"{escape(caption)}</caption>{''.join(lines)}</table></div>")  # fmt: skip
    display({"text/html": table, "text/plain": caption}, raw=True)


def _plain(values) -> np.ndarray:
    """A tensor on any device, or anything array-like, as a NumPy array."""
    return np.asarray(values.detach().float().cpu() if hasattr(values, "detach") else values)


def heatmap(
    ax: Axes,
    matrix,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    title: str = "",
    digits: int | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str | None = None,
):
    """Draw a (rows, columns) matrix as coloured cells; `digits` writes the numbers in. Returns the image."""
    matrix = _plain(matrix)
    low, high = limits or (matrix[np.isfinite(matrix)].min(), matrix[np.isfinite(matrix)].max())
    image = ax.imshow(matrix, vmin=low, vmax=high, cmap=cmap, aspect="auto" if max(matrix.shape) > 40 else "equal")
    if rows is not None:
        ax.set_yticks(range(len(rows)), rows)
    if columns is not None:
        turn = len(columns) * max(map(len, columns), default=0) > 40
        ax.set_xticks(range(len(columns)), columns, rotation=60 if turn else 0, ha="right" if turn else "center")
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(title)
    if digits is not None:
        for (i, j), value in np.ndenumerate(matrix):
            red, green, blue, _ = image.cmap(image.norm(value))
            ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.55 else "white"
            ax.text(j, i, f"{value:z.{digits}f}", ha="center", va="center", color=ink, fontsize=9)
    return image


def curves(ax: Axes, series: Mapping[str, Sequence], x=None, xlabel="", ylabel="", title="", **options) -> None:
    """Draw one line per named series, with a legend when there are several. `x`: shared, or one per name."""
    for name, ys in series.items():
        ys = _plain(ys)
        xs = x[name] if isinstance(x, Mapping) else range(len(ys)) if x is None else x
        ax.plot(_plain(xs), ys, label=name, **options)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if len(series) > 1:
        ax.legend()


def bars(ax: Axes, values: Mapping[str, float], ylabel="", title="", digits: int = 2, errors=None, among=None) -> None:
    """Draw one bar per name with its value on top. errors: per name, how far it may be below and above.

    among: all names that share the colours, where this figure is one of several that show some of them.
    """
    spread = None if errors is None else list(zip(*(errors[name] for name in values), strict=True))
    order = list(values if among is None else among)
    colours = [PALETTE[order.index(name) % len(PALETTE)] for name in values]
    drawn = ax.bar(list(values), [float(v) for v in values.values()], yerr=spread, color=colours, capsize=4)
    ax.bar_label(drawn, fmt=f"%.{digits}f", padding=2)
    ax.margins(y=0.15)
    ax.set(ylabel=ylabel, title=title)
