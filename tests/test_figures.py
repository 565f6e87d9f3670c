"""The shared drawings: what they draw, and what they refuse."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")
import matplotlib.pyplot as plt

from minigpt import figures


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_visible_shows_white_space():
    assert figures.visible("a b\n\t") == "a␣b↵⇥"


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, minigpt.figures; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_token_strip_draws_every_token_and_id():
    ax = figures.token_strip(["to", " be", "to"], [7, 8, 7], highlight=[1])
    assert texts(ax) == ["to", "7", "␣be", "8", "to", "7"]
    first, second, third = ax.patches
    assert first.get_facecolor() == third.get_facecolor()
    assert first.get_facecolor() != second.get_facecolor()
    assert second.get_linewidth() > first.get_linewidth()


def test_token_strip_wraps_and_stays_in_its_axes():
    ax = figures.token_strip(list("a long strip of characters"), width=8)
    rows = {patch.get_y() for patch in ax.patches}
    assert len(rows) == 4
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    for patch in ax.patches:
        assert left <= patch.get_x()
        assert patch.get_x() + patch.get_width() <= right <= 8
        assert bottom <= patch.get_y()
        assert patch.get_y() + patch.get_height() <= top


def test_token_strip_draws_a_dollar_sign_as_text():
    figures.token_strip(["$x", "y$", "$z$"], [1, 2, 3]).figure.canvas.draw()


def test_token_strip_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="2 tokens but 1 ids"):
        figures.token_strip(["a", "b"], [1])


@pytest.mark.parametrize(
    "make",
    [
        torch.tensor,
        np.array,
        list,
        lambda rows: torch.tensor(
            rows, dtype=torch.bfloat16, requires_grad=True
        ),
    ],
    ids=["tensor", "array", "list", "bfloat16 with grad"],
)
def test_heatmap_takes_tensors_arrays_and_lists(make):
    ax = figures.heatmap(
        make([[0.0, 0.5], [1.0, 0.25]]), "a ", "x\n", annotate=True
    )
    assert texts(ax) == ["0", ".50", "1.00", ".25"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "␣"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["x", "↵"]


def test_heatmap_labels_of_several_words_keep_their_spaces():
    labels = [" be", "after th", " ", "a\n b "]
    ax = figures.heatmap(np.eye(4), labels)
    shown = [t.get_text() for t in ax.get_yticklabels()]
    assert shown == ["␣be", "after th", "␣", "a↵ b␣"]


def test_heatmap_marks_masked_entries():
    mask = torch.tensor([[0.0, float("-inf")], [0.0, float("nan")]])
    ax = figures.heatmap(mask, annotate=True)
    assert texts(ax) == ["0", "−∞", "0", ""]
    assert ax.images[0].get_array().mask.tolist() == [[False, True]] * 2


def test_heatmap_puts_white_at_zero():
    for matrix in ([[0.0, 3.0]], [[0.0, 3.0], [-1.0, 2.0]]):
        image = figures.heatmap(matrix).images[0]
        red, green, blue, _ = image.cmap(image.norm(0.0))
        assert min(red, green, blue) > 0.98


def test_heatmap_annotation_drops_only_a_leading_zero():
    ax = figures.heatmap([[10.05, -0.25, 0.0, 20.0]], annotate=True)
    assert texts(ax) == ["10.05", "-.25", "0", "20.00"]


def test_heatmap_annotation_format():
    ax = figures.heatmap([[1, 12]], annotate="d")
    assert texts(ax) == ["1", "12"]


def test_heatmap_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 3\)"):
        figures.heatmap(torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match="3 column labels"):
        figures.heatmap(torch.zeros(2, 2), "ab", "abc")


def test_smooth_keeps_length_level_and_start():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    means = figures.smooth(values, 41)
    assert len(means) == 400
    assert means[0] == pytest.approx(values[0])
    assert np.std(means[20:]) < 0.3 * np.std(values)
    assert figures.smooth([5.0] * 9, 4) == pytest.approx([5.0] * 9)
    line = [float(i) for i in range(50)]
    assert figures.smooth(line, 9)[:40] == pytest.approx(line[:40])
    assert figures.smooth(values, 1) == pytest.approx(values.tolist())
    assert figures.smooth([], 3) == []
    with pytest.raises(ValueError, match="window is 0"):
        figures.smooth([1.0], 0)


def test_loss_curves_raw_mean_and_floors():
    ax = figures.loss_curves(
        {
            "train": [4.0, 3.0, 2.0] * 40,
            "val": ([0, 60, 119], [4.0, 3.0, 2.5]),
        },
        floor={"entropy": 1.9},
        log_x=True,
    )
    assert ax.get_xscale() == "log"
    mean, raw, val, floor = ax.lines
    assert len(mean.get_xdata()) == len(raw.get_xdata()) == 120
    assert list(val.get_xdata()) == [0, 60, 119]
    assert list(floor.get_ydata()) == [1.9, 1.9]
    assert texts(ax) == ["entropy 1.90"]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["train", "val"]


def test_loss_curves_without_a_mean():
    ax = figures.loss_curves({"train": [2.0, 1.0]}, floor=0.5, window=1)
    assert len(ax.lines) == 2
    assert texts(ax) == ["floor 0.50"]
