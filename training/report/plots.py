"""Plots as SVG that belongs into the page: its colors follow the page's, light or dark, and its text is text.

No name that comes from a file is drawn here: names stand in the page beside the plots.
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

POINTS = 300  # of a curve: longer ones are averaged, with a band from the least to the largest

# Colors that stand for the page's own. matplotlib wants numbers; `_page_colors` puts variables in their place.
INK, FAINT, GRID = "#010101", "#020202", "#030303"
COLORS = 7  # of series, in style.css; after Okabe and Ito, told apart also without color vision
DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
MARKERS = "os^D"
PAGE_DASHES = ("", "5 2", "1.5 2", "6 2 1.5 2")  # the same two, as `look` draws them
PAGE_MARKERS = (
    '<circle cx="13" cy="6" r="3.2"/>',
    '<rect x="10" y="3" width="6" height="6"/>',
    '<path d="M13 2l4 7h-8z"/>',
    '<path d="M13 1.5l4 4.5-4 4.5-4-4.5z"/>',
)
WIDTH, HEIGHT = 4.2, 2.5  # inches of 72 units
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g}%")


class Series(NamedTuple):
    """How a run or a score file is drawn throughout a report: color, dashes and marker differ together."""

    color: str
    dash: Any
    marker: str


def series(number: int) -> Series:
    return Series(f"#0404{number % COLORS:02x}", DASHES[number % len(DASHES)], MARKERS[number % len(MARKERS)])


def look(number: int) -> Markup:
    """The line and marker of a series, small, to stand before its name."""
    kind = number % len(DASHES)
    return Markup(
        f'<svg class="look" viewBox="0 0 26 12" aria-hidden="true" style="color:var(--s{number % COLORS})">'
        f'<path d="M0 6h26" stroke="currentColor" stroke-width="2" stroke-dasharray="{PAGE_DASHES[kind]}"/>'
        f'<g fill="currentColor">{PAGE_MARKERS[kind]}</g></svg>'
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


def _svg(figure: Figure, about: str) -> Markup:
    """about: what a person who does not see the plot is told."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box
    body = text[text.index(">") + 1 :]
    own = f"p{hashlib.sha256((about + body).encode()).hexdigest()[:10]}-"  # identifiers in a page must differ
    body = body.replace('xlink:href="#', f'href="#{own}').replace("url(#", f"url(#{own}")
    body = re.sub(r'\bid="', f'id="{own}', body)
    body = re.sub(r" font-family: [^;\"]*;", "", body)
    body = re.sub(r'"[^"]*"', lambda value: re.sub(r"(\d\.\d\d)\d+", r"\1", value.group()), body)
    body = re.sub(r"\n\s*", "\n", body)
    start = f'<svg {box.group()} role="img" aria-label="{Markup.escape(about)}">'
    return Markup(start + _page_colors(body))


def _page_colors(svg: str) -> str:
    for color, variable in ((INK, "--ink"), (FAINT, "--faint"), (GRID, "--line")):
        svg = svg.replace(color, f"var({variable})")
    return re.sub(r"#0404(\d\d)", lambda found: f"var(--s{int(found.group(1))})", svg)


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(x, mean of y, least, largest) of at most POINTS equal parts of a curve."""
    cuts = np.unique(np.linspace(0, len(x), min(len(x), POINTS) + 1).astype(np.int64))[:-1]
    counts = np.diff(cuts, append=len(x))
    sums = [np.add.reduceat(values, cuts) / counts for values in (x, y)]
    return sums[0], sums[1], np.minimum.reduceat(y, cuts), np.maximum.reduceat(y, cuts)


def curves(lines: Sequence[tuple[int, np.ndarray, np.ndarray]], about: str, kind: str, *, marked: bool) -> Markup:
    """Values over epochs. lines: (number of the series, epochs, values). kind: percent, log or number."""
    with _axes() as (figure, axes):
        for number, x, y in lines:
            drawn = series(number)
            finite = np.isfinite(y)
            x, y, low, high = thinned(x[finite], y[finite])
            marker = drawn.marker if marked or len(x) == 1 else None
            axes.plot(x, y, color=drawn.color, linestyle=drawn.dash, marker=marker, markersize=4)
            if (high > low).any():
                axes.fill_between(x, low, high, color=drawn.color, alpha=0.15, linewidth=0)
        if kind == "log" and all((y > 0).all() for _, _, y in lines):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
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
        return _svg(figure, about)


def reliability(number: int, found: Calibration, about: str) -> Markup:
    """Accuracy by confidence, with the share of the videos in each bin below; on the diagonal they are equal."""
    drawn = series(number)
    with _axes(2.9) as (figure, axes):
        there = found.count > 0
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=(0, (2, 2)), linewidth=1)
        widths = np.diff(found.edges)
        axes.bar(found.edges[:-1], found.count / found.count.sum(), widths, align="edge", color=drawn.color, alpha=0.28)
        shape = {"color": drawn.color, "linestyle": drawn.dash, "marker": drawn.marker}
        axes.plot(found.confidence[there], found.accuracy[there], markersize=4.5, **shape)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy; bars: share of videos")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PERCENT)
        return _svg(figure, about)


def gains(gain: np.ndarray, about: str) -> Markup:
    """What fusing changed, in points, a class each, from the most lost to the most gained."""
    values = np.sort(gain[np.isfinite(gain)]) * 100
    with _axes() as (figure, axes):
        edges = np.arange(len(values) + 1)
        axes.stairs(np.maximum(values, 0), edges, fill=True, color=series(0).color)
        axes.stairs(np.minimum(values, 0), edges, fill=True, color=series(1).color)
        axes.axhline(0, color=FAINT, linewidth=1)
        axes.set(xlabel="classes, from the most lost to the most gained", ylabel="points of accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0)
        return _svg(figure, about)


def ranked(counts: Sequence[tuple[int, np.ndarray]], about: str) -> Markup:
    """Videos of each class, a line a split: (number of the series, videos by class); the largest class first."""
    order = np.argsort(-np.sum([each for _, each in counts], axis=0), kind="stable")
    with _axes() as (figure, axes):
        for number, each in counts:
            drawn = series(number)
            axes.stairs(each[order], np.arange(len(order) + 1), baseline=None, color=drawn.color, linestyle=drawn.dash)
        axes.set(xlabel="classes, the largest first", ylabel="videos", ylim=(0, None))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.01)
        return _svg(figure, about)


def histogram(values: np.ndarray, unit: str, about: str, *, percent: bool = False) -> Markup:
    """How many videos have which value. unit: of the values, for the axis. percent: they are fractions of 1."""
    with _axes() as (figure, axes):
        different = len(np.unique(values))
        middle = float(values.mean()) if len(values) else 0.0
        span = None if different > 1 else (middle * 0.9, middle * 1.1 or 1.0)  # one value: a bar in the middle
        axes.hist(
            values, bins=min(40, different) if different > 1 else 5, range=span, color=series(0).color, alpha=0.75
        )
        axes.set(xlabel=unit, ylabel="videos")
        if percent:
            axes.xaxis.set_major_formatter(PERCENT)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        return _svg(figure, about)
