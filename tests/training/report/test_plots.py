"""Plots: their text, their colors, and the shortening of long curves."""

import numpy as np
import pytest

from lgd.training.report import plots
from tests.training.report.html_page import Page


def test_long_curves_are_shortened_but_keep_their_mean_and_extremes():
    x = np.arange(100_000.0)
    y = np.random.default_rng(0).normal(size=len(x))
    short_x, mean, low, high = plots.downsample(x, y)
    assert len(short_x) == plots.MAX_POINTS
    assert mean.mean() == pytest.approx(y.mean(), abs=1e-3)
    assert (low.min(), high.max()) == (y.min(), y.max())
    assert (np.diff(short_x) > 0).all()
    few = plots.downsample(x[:3], y[:3])
    assert (few[0].tolist(), few[1].tolist()) == (x[:3].tolist(), y[:3].tolist())


def test_plots_contain_real_text_and_use_the_colors_of_the_page():
    x = np.arange(5.0)
    svg = str(plots.curves([(0, x, 0.002 * 2**x), (1, x, 0.004 + 0 * x)], 'a "plot"', "log", markers=False))
    page = Page(svg)
    assert "0.002" in page.texts
    assert {"var(--ink)", "var(--s0)", "var(--s1)"} <= {
        part.strip() for part in svg.replace('"', ";").split(":") for part in part.split(";")
    }
    assert "#0" not in svg.replace("#p", "")
    assert page.all("svg")[0]["aria-label"] == 'a "plot"'
    assert len({(style.color, style.dash, style.marker) for style in map(plots.series_style, range(28))}) == 28
    assert len({(style.dash, style.marker) for style in map(plots.series_style, range(4))}) == 4


def test_a_logarithmic_scale_of_a_short_range_has_several_labels():
    x = np.arange(5.0)
    svg = str(plots.curves([(0, x, 1.05 + 0.2 * x)], "loss", "log", markers=False))
    labels = {text.strip() for text in Page(svg).texts}
    assert {"1.2", "1.4", "1.6", "1.8"} <= labels
