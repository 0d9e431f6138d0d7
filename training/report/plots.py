"""Plots as inline SVG: they use the colors of the page, light or dark, and their text is real text.

Plots contain no names that come from a file: the page shows names next to the plots.
"""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lgd.training.scoring.metrics import Calibration

MIN_LOG_RATIO = 5  # of the largest to the smallest value, for ticks at 1, 2, 5, 10, ...
MAX_POINTS = 300  # of a curve; a longer one is averaged, with a band from the minimum to the maximum

# Placeholders, because matplotlib needs numbers: `_use_page_colors` replaces them by the CSS variables of the page.
INK, FAINT, GRID = "#010101", "#020202", "#030303"
COLORS = 7  # of series, in style.css; after Okabe and Ito, distinguishable with color blindness
DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
MARKERS = "os^D"
ICON_DASHES = ("", "5 2", "1.5 2", "6 2 1.5 2")  # DASHES and MARKERS again, as `legend_icon` draws them
ICON_MARKERS = (
    '<circle cx="13" cy="6" r="3.2"/>',
    '<rect x="10" y="3" width="6" height="6"/>',
    '<path d="M13 2l4 7h-8z"/>',
    '<path d="M13 1.5l4 4.5-4 4.5-4-4.5z"/>',
)
WIDTH, HEIGHT = 4.2, 2.5  # inches
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g}%")


class SeriesStyle(NamedTuple):
    """How all plots draw a run or a score file. Styles differ in color, dashes and marker at once."""

    color: str
    dash: Any
    marker: str


def series_style(series: int) -> SeriesStyle:
    """Return the style of a series by its number in the report."""
    return SeriesStyle(f"#0404{series % COLORS:02x}", DASHES[series % len(DASHES)], MARKERS[series % len(MARKERS)])


def legend_icon(series: int) -> Markup:
    """Return a small drawing of a series' line and marker, which the page shows before its name."""
    kind = series % len(DASHES)
    return Markup(
        f'<svg class="icon" viewBox="0 0 26 12" aria-hidden="true" style="color:var(--s{series % COLORS})">'
        f'<path d="M0 6h26" stroke="currentColor" stroke-width="2" stroke-dasharray="{ICON_DASHES[kind]}"/>'
        f'<g fill="currentColor">{ICON_MARKERS[kind]}</g></svg>'
    )


@contextmanager
def _axes(height: float = HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    style: dict[Any, Any] = {
        "font.size": 9,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "lines.linewidth": 1.6,
        "path.simplify": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "lgd",
    }
    with rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure, alt: str) -> Markup:
    """Return a figure as an SVG element. alt: text for people who cannot see it."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box
    body = text[text.index(">") + 1 :]
    prefix = f"p{hashlib.sha256((alt + body).encode()).hexdigest()[:10]}-"  # ids must be unique in the page
    body = body.replace('xlink:href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r" font-family: [^;\"]*;", "", body)
    body = re.sub(r'"[^"]*"', lambda match: re.sub(r"(\d\.\d\d)\d+", r"\1", match.group()), body)
    body = re.sub(r"\n\s*", "\n", body)
    start = f'<svg {box.group()} role="img" aria-label="{Markup.escape(alt)}">'
    return Markup(start + _use_page_colors(body))


def _use_page_colors(svg: str) -> str:
    for color, variable in ((INK, "--ink"), (FAINT, "--faint"), (GRID, "--line")):
        svg = svg.replace(color, f"var({variable})")
    return re.sub(r"#0404(\d\d)", lambda match: f"var(--s{int(match.group(1))})", svg)


def downsample(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return mean x, mean y, minimum y and maximum y of at most MAX_POINTS equal parts of a curve."""
    cuts = np.unique(np.linspace(0, len(x), min(len(x), MAX_POINTS) + 1).astype(np.int64))[:-1]
    counts = np.diff(cuts, append=len(x))
    sums = [np.add.reduceat(values, cuts) / counts for values in (x, y)]
    return sums[0], sums[1], np.minimum.reduceat(y, cuts), np.maximum.reduceat(y, cuts)


def curves(lines: Sequence[tuple[int, np.ndarray, np.ndarray]], alt: str, kind: str, *, markers: bool) -> Markup:
    """Plot values over epochs.

    lines: (series, epochs, values). kind: scale of the values: percent, log, number or count (whole numbers). markers:
    draw a marker at each point."""
    with _axes() as (figure, axes):
        for series, x, y in lines:
            style = series_style(series)
            finite = np.isfinite(y)
            x, y, low, high = downsample(x[finite], y[finite])
            marker = style.marker if markers or len(x) == 1 else None
            axes.plot(x, y, color=style.color, linestyle=style.dash, marker=marker, markersize=4)
            if (high > low).any():
                axes.fill_between(x, low, high, color=style.color, alpha=0.15, linewidth=0)
        if kind == "log" and all((y > 0).all() for _, _, y in lines):
            axes.set_yscale("log")
            values = np.concatenate([y for _, _, y in lines])
            few_ticks = values.max() < MIN_LOG_RATIO * values.min()
            linear, logarithmic = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]), LogLocator(subs=(1, 2, 5), numticks=8)
            axes.yaxis.set_major_locator(linear if few_ticks else logarithmic)
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(6, integer=kind == "count"))
            if kind == "percent":
                axes.yaxis.set_major_formatter(PERCENT)
        axes.set_xlabel("epoch")
        axes.margins(x=0.02)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        return _svg(figure, alt)


def reliability(series: int, calibration: Calibration, alt: str) -> Markup:
    """Plot accuracy by confidence; bars show the share of the videos in each bin. On the diagonal both are equal."""
    style = series_style(series)
    with _axes(2.9) as (figure, axes):
        filled = calibration.count > 0
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=(0, (2, 2)), linewidth=1)
        shares, widths = calibration.count / calibration.count.sum(), np.diff(calibration.edges)
        axes.bar(calibration.edges[:-1], shares, widths, align="edge", color=style.color, alpha=0.28)
        confidence, accuracy = calibration.confidence[filled], calibration.accuracy[filled]
        line = {"color": style.color, "linestyle": style.dash, "marker": style.marker}
        axes.plot(confidence, accuracy, markersize=4.5, **line)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy; bars: share of videos")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PERCENT)
        return _svg(figure, alt)


def gains(gain: np.ndarray, alt: str) -> Markup:
    """Plot the gain of the fusion for each class in percentage points, from the largest loss to the largest gain."""
    values = np.sort(gain[np.isfinite(gain)]) * 100
    with _axes() as (figure, axes):
        edges = np.arange(len(values) + 1)
        axes.stairs(np.maximum(values, 0), edges, fill=True, color=series_style(0).color)
        axes.stairs(np.minimum(values, 0), edges, fill=True, color=series_style(1).color)
        axes.axhline(0, color=FAINT, linewidth=1)
        axes.set(xlabel="classes, from largest loss to largest gain", ylabel="percentage points")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0)
        return _svg(figure, alt)


def class_sizes(counts: Sequence[tuple[int, np.ndarray]], alt: str) -> Markup:
    """Plot the number of videos per class, largest class first, with one line per split.

    counts: (series, videos by class) of each split."""
    order = np.argsort(-np.sum([each for _, each in counts], axis=0), kind="stable")
    with _axes() as (figure, axes):
        for series, each in counts:
            style = series_style(series)
            axes.stairs(each[order], np.arange(len(order) + 1), baseline=None, color=style.color, linestyle=style.dash)
        axes.set(xlabel="classes, largest first", ylabel="videos", ylim=(0, None))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.01)
        return _svg(figure, alt)


def histogram(values: np.ndarray, unit: str, alt: str, *, percent: bool = False) -> Markup:
    """Plot how many videos have which value. unit: label of the axis. percent: values are fractions of 1."""
    with _axes() as (figure, axes):
        distinct = len(np.unique(values))
        middle = float(values.mean()) if len(values) else 0.0
        span = None if distinct > 1 else (middle * 0.9, middle * 1.1 or 1.0)  # a single value: one bar in the middle
        axes.hist(
            values, bins=min(40, distinct) if distinct > 1 else 5, range=span, color=series_style(0).color, alpha=0.75
        )
        axes.set(xlabel=unit, ylabel="videos")
        if percent:
            axes.xaxis.set_major_formatter(PERCENT)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        return _svg(figure, alt)
