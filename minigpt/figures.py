"""How every figure of the course looks, and the drawings that chapters share.

Figures are drawn on white with ink-on-paper colors, so that the book's dark
mode can invert them: keep to `COLORS` and to color maps that start at white.
matplotlib is imported when a figure is drawn, not with the package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

__all__ = [
    "COLORS",
    "heatmap",
    "loss_curves",
    "smooth",
    "token_strip",
    "use_style",
    "visible",
]

#: Distinguishable for color-blind readers, on white and inverted.
COLORS = {
    "blue": "#0f6f8c",
    "orange": "#c8561b",
    "green": "#3f8f4f",
    "purple": "#7a4fa3",
    "gold": "#b8860b",
    "red": "#b3364a",
    "grey": "#7b8794",
    "ink": "#1f2933",
}
#: Tints for the boxes of `token_strip`; dark text is readable on each.
TINTS = [
    "#d7ecf2",
    "#fbe3d2",
    "#dcefdd",
    "#e9dff3",
    "#f7ecc6",
    "#f6d9de",
    "#e3e8ec",
]
GLYPHS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def visible(text: str) -> str:
    """`text` with a glyph for each space, newline and tab: "a\\n" -> "a↵"."""
    return "".join(GLYPHS.get(char, char) for char in text)


def use_style() -> None:
    """Set the course's style for all figures drawn from now on.

    In a notebook figures also become twice as sharp ("retina").
    """
    import matplotlib as mpl
    from cycler import cycler

    cycle = [COLORS[name] for name in list(COLORS)[:7]]
    mpl.rcParams.update(
        {
            # 600 px wide, shown at 360 on a phone: 12 pt is 10 px there.
            "figure.figsize": (6.0, 3.4),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",  # comes with matplotlib
            "font.size": 12,
            "axes.titlesize": 13,
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.labelsize": 12,
            "legend.fontsize": 11,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            "text.color": COLORS["ink"],
            "axes.edgecolor": COLORS["grey"],
            "axes.labelcolor": COLORS["ink"],
            "xtick.color": COLORS["ink"],
            "ytick.color": COLORS["ink"],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e4e7eb",
            "grid.linewidth": 0.8,
            "lines.linewidth": 2.0,
            "lines.solid_capstyle": "round",
            "legend.frameon": False,
            "axes.prop_cycle": cycler(color=cycle),
        }
    )
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def token_strip(
    tokens: Sequence[str],
    ids: Sequence[int] | None = None,
    *,
    title: str | None = None,
    width: float = 16,
    highlight: Sequence[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw each token in a box with its id below; long strips are wrapped.

    Boxes of the same id (of the same token, without ids) share a color.
    `width` is the length of a row: a one-character box is 1 wide.
    `highlight` names positions whose boxes get a bold outline.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    if ids is not None and len(ids) != len(tokens):
        raise ValueError(
            f"{len(tokens)} tokens but {len(ids)} ids: give one id per token"
        )
    keys = [int(i) for i in ids] if ids is not None else list(tokens)
    tint = {
        key: TINTS[n % len(TINTS)] for n, key in enumerate(dict.fromkeys(keys))
    }
    pitch = 1.9 if ids is not None else 1.3  # from one row to the next

    boxes, x, row = [], 0.0, 0
    for token, key in zip(tokens, keys, strict=True):
        text = visible(token)
        chars = max(len(text), 0.8 * len(str(key)) if ids is not None else 0)
        size = max(1.0, 0.36 * chars + 0.5)
        if x and x + size > width:
            x, row = 0.0, row + 1
        boxes.append((x, row, size, text, key))
        x += size
    length = max((x + size for x, _, size, _, _ in boxes), default=1.0)

    if ax is None:
        inches = 6.4 / 16  # one unit
        _, ax = plt.subplots(
            figsize=(
                max(length * inches, 2.0),
                (pitch * (row + 1) + (0.9 if title else 0)) * inches,
            )
        )
    for n, (x, row, size, text, key) in enumerate(boxes):
        y = -row * pitch
        bold = n in highlight
        ax.add_patch(
            FancyBboxPatch(
                (x + 0.09, y),
                size - 0.18,
                1.0,
                boxstyle="round,pad=0,rounding_size=0.14",
                facecolor=tint[key],
                edgecolor=COLORS["orange" if bold else "grey"],
                linewidth=2.2 if bold else 0.6,
            )
        )
        ax.text(
            x + size / 2,
            y + 0.5,
            text,
            family="DejaVu Sans Mono",
            size=13,
            ha="center",
            va="center_baseline",
            parse_math=False,
        )
        if ids is not None:
            ax.text(
                x + size / 2,
                y - 0.13,
                str(key),
                size=10,
                color=COLORS["grey"],
                ha="center",
                va="top",
            )
    ax.set(
        xlim=(0, length),
        ylim=(-row * pitch - (pitch - 1.25), 1.05),
        aspect="equal",
    )
    ax.axis("off")
    if title:
        ax.set_title(title)
    return ax


def heatmap(
    matrix: Any,
    row_labels: Sequence[str] | None = None,
    col_labels: Sequence[str] | None = None,
    *,
    annotate: bool | str = False,
    title: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    cmap: str | Colormap | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    colorbar: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw `matrix` (rows, columns), the first row on top, as colored cells.

    `matrix` is a tensor, an array or nested lists. Labels are strings (a
    string counts as its characters); newlines and spaces show as glyphs,
    but for spaces between words.
    `annotate` writes the values into the cells, with two digits or in a
    format such as ".1f" or "d". Masked entries (-inf or nan) are grey.
    Without `cmap` the colors run from white (0) to blue, or from orange
    through white (0) to blue if there are negative values.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    values = _as_array(matrix, row_labels, col_labels)
    shown = np.ma.masked_invalid(values)
    low = float(shown.min()) if shown.count() else 0.0
    high = float(shown.max()) if shown.count() else 1.0
    reach = max(abs(low), abs(high)) or 1.0
    vmin = (-reach if low < 0 else 0.0) if vmin is None else vmin
    vmax = reach if vmax is None else vmax
    colors = plt.get_cmap(cmap) if cmap is not None else _white_map(low < 0)
    colors = colors.with_extremes(bad="#e4e7eb")

    rows, cols = values.shape
    if ax is None:
        cell = min(0.42, 5.2 / max(cols, 1))  # inches; 0.42 holds ".25"
        _, ax = plt.subplots(
            figsize=(
                max(cols * cell + 0.8 + colorbar, 2.4),
                max(rows * cell + 0.8, 1.6),
            )
        )
    image = ax.imshow(
        shown, cmap=colors, vmin=vmin, vmax=vmax, interpolation="nearest"
    )
    _frame_cells(ax, rows, cols, row_labels, col_labels)
    if annotate:
        _annotate(ax, values, annotate, image)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if title:
        ax.set_title(title)
    if colorbar:
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.8)
        bar.outline.set_visible(False)
    return ax


def _as_array(
    matrix: Any,
    row_labels: Sequence[str] | None,
    col_labels: Sequence[str] | None,
) -> Any:
    """The matrix as a NumPy array whose labels fit; else ValueError."""
    import numpy as np

    if hasattr(matrix, "detach"):
        matrix = matrix.detach().cpu().float().numpy()
    values = np.asarray(matrix, dtype=float)
    if values.ndim != 2:
        raise ValueError(
            f"heatmap draws a matrix, not shape {values.shape}: "
            "choose one head or one example first"
        )
    for axis, labels in enumerate((row_labels, col_labels)):
        if labels is not None and len(labels) != values.shape[axis]:
            raise ValueError(
                f"{len(labels)} {('row', 'column')[axis]} labels for a "
                f"matrix of shape {values.shape}"
            )
    return values


def _frame_cells(
    ax: Axes,
    rows: int,
    cols: int,
    row_labels: Sequence[str] | None,
    col_labels: Sequence[str] | None,
) -> None:
    """Labels on the left and on top, and lines between the cells."""
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, color="#cbd2d9", linewidth=0.8)
    ax.tick_params(length=0)
    for axis, labels in ((ax.yaxis, row_labels), (ax.xaxis, col_labels)):
        if labels is None:
            axis.set_ticks([])
        else:
            axis.set_ticks(
                range(len(labels)),
                [_label(text) for text in labels],
                family="DejaVu Sans Mono",
                parse_math=False,
            )
    if col_labels is not None:
        ax.xaxis.tick_top()
        ax.xaxis.set_label_position("top")
        if max(map(len, col_labels)) > 3:
            ax.tick_params(axis="x", rotation=90)
    if rows <= 32 and cols <= 32:  # thin white lines between the cells
        ax.set_xticks([col - 0.5 for col in range(cols)], minor=True)
        ax.set_yticks([row - 0.5 for row in range(rows)], minor=True)
        ax.grid(True, which="minor", color="white", linewidth=1.2)
        ax.tick_params(which="minor", length=0)


def _label(text: str) -> str:
    """`visible`, but spaces between words stay spaces: "after th"."""
    words = text.strip(" ")
    start = text[: len(text) - len(text.lstrip(" "))]
    end = text[len(start) + len(words) :]
    inner = " ".join(visible(word) for word in words.split(" "))
    return visible(start) + inner + visible(end)


def _white_map(diverging: bool) -> Colormap:
    """White to blue, or orange through white to blue."""
    from matplotlib.colors import LinearSegmentedColormap

    blues = ["#ffffff", "#9fd0de", "#2f8ba8", "#0a4a5e"]
    if not diverging:
        return LinearSegmentedColormap.from_list("course", blues)
    oranges = ["#7c2d08", "#c8561b", "#f3bb98"]
    return LinearSegmentedColormap.from_list("course2", oranges + blues)


def _annotate(ax: Axes, values: Any, spec: bool | str, image: Any) -> None:
    """Write each value into its cell, white on dark cells."""
    import numpy as np

    for (row, col), value in np.ndenumerate(values):
        if np.isneginf(value):
            text, dark = "−∞", False
        elif np.isnan(value):
            text, dark = "", False
        elif value == 0 and spec is True:
            text, dark = "0", False
        else:
            if spec is True:
                text = re.sub(r"^(-?)0\.", r"\1.", f"{value:.2f}")
            else:
                number = int(value) if spec.endswith("d") else value
                text = format(number, spec)
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.55
        ax.text(
            col,
            row,
            text,
            ha="center",
            va="center",
            size=9,
            color="white" if dark else COLORS["ink"],
        )


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Mean over up to `window` values around each; fewer at the ends."""
    import numpy as np

    if window < 1:
        raise ValueError(f"window is {window}: give 1 or more")
    sums = np.concatenate([[0.0], np.cumsum([float(v) for v in values])])
    last = len(sums) - 2
    means = []
    for i in range(last + 1):
        side = min(window // 2, i)  # no lag at the steep start
        start, stop = i - side, min(i + side, last) + 1
        means.append(float(sums[stop] - sums[start]) / (stop - start))
    return means


def loss_curves(
    curves: Mapping[str, Any],
    *,
    floor: float | Mapping[str, float] | None = None,
    window: int | None = None,
    log_x: bool = False,
    title: str | None = None,
    xlabel: str = "step",
    ylabel: str = "loss (nats)",
    ax: Axes | None = None,
) -> Axes:
    """Draw loss curves: the raw values faint, a running mean on top.

    A curve is a list of losses, one per step, or a pair (steps, losses).
    `floor` draws reference lines: a number, or numbers by label. `window` is
    the number of values in the mean (1: none), a thirtieth if not given.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots()
    lowest = float("inf")
    for name, curve in curves.items():
        if len(curve) == 2 and hasattr(curve[0], "__len__"):
            steps, losses = curve
        else:
            steps, losses = range(1, len(curve) + 1), curve
        losses = [float(loss) for loss in losses]
        lowest = min([lowest, *losses])
        span = max(1, len(losses) // 30) if window is None else window
        (line,) = ax.plot(steps, smooth(losses, span), label=name)
        if span > 1:
            ax.plot(
                steps,
                losses,
                color=line.get_color(),
                alpha=0.22,
                linewidth=0.9,
                zorder=1,
            )
    if floor is not None and not isinstance(floor, Mapping):
        floor = {"floor": floor}
    for label, value in (floor or {}).items():
        ax.axhline(
            value,
            color=COLORS["grey"],
            linestyle=(0, (4, 3)),
            linewidth=1.2,
            zorder=1,
        )
        below = value < lowest  # the label keeps clear of the curves
        ax.annotate(
            f"{label} {value:.2f}",
            (1, value),
            (-2, -4 if below else 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="top" if below else "bottom",
            size=10,
            color=COLORS["grey"],
            bbox={
                "facecolor": "white",
                "alpha": 0.75,
                "pad": 1,
                "linewidth": 0,
            },
        )
    ax.margins(y=0.1)
    if log_x:
        ax.set_xscale("log")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if len(curves) > 1:
        ax.legend()
    if title:
        ax.set_title(title)
    return ax
