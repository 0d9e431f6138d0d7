"""A figure of a GPU beside its bound and its goal, and what the parts of `lgd.benchmarks.gpu` learn from each other.

A part is a function that takes a `Measured` and returns rows. Modules of parts import what they need inside functions,
so that a package that is missing, such as DALI or Ray, costs only the figures that need it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from lgd.clusters.doctor.compute import card_named

Verdict = Literal["met", "missed", "no goal", "not measured"]


@dataclass(frozen=True)
class Row:
    """A figure."""

    name: str
    """What was measured."""
    figure: float | None
    """The figure; None if it could not be measured."""
    unit: str
    """Unit of the figure, the bound and the goal."""
    bound: float | None = None
    """What the GPU could reach at best; None if no bound is known."""
    goal: float | None = None
    """What is required: at least that, or at most if `lower_is_better`; None without a requirement."""
    lower_is_better: bool = False
    """Whether the goal is a maximum."""
    note: str = ""
    """Why there is no figure, or what else was seen."""

    @property
    def verdict(self) -> Verdict:
        """Whether the figure reaches its goal."""
        if self.figure is None:
            return "not measured"
        if self.goal is None:
            return "no goal"
        return "met" if (self.figure <= self.goal if self.lower_is_better else self.figure >= self.goal) else "missed"

    def document(self) -> dict[str, Any]:
        """Return the fields and the verdict, for JSON, which has neither NaN nor infinity."""
        if self.figure is not None and not math.isfinite(self.figure):
            return replace(self, figure=None, note=self.note or f"the figure is {self.figure}").document()
        return {**asdict(self), "verdict": self.verdict}


def row_of(document: dict[str, Any]) -> Row:
    """Return the row of a `document`."""
    return Row(**{name: value for name, value in document.items() if name != "verdict"})


class Goals(NamedTuple):
    """What is required of a GPU, by a part of its name.

    clips_per_s: of the training step, LGD-3D R50, 64 clips of 16 x 112 x 112. pairs_per_s: of TV-L1, by the size of the
    frames, width and height."""

    name: str
    clips_per_s: float
    pairs_per_s: dict[tuple[int, int], float]


GOALS = (
    Goals("H100 80GB", 820.0, {(160, 120): 12_000.0, (340, 256): 3_000.0}),
    Goals("H200", 1090.0, {(160, 120): 12_000.0, (340, 256): 4_000.0}),
)


def goals_of(name: str) -> Goals | None:
    """Return the goals of the GPU with this name; None if it has none."""
    return next((goals for goals in GOALS if goals.name in name), None)


COPY, PRODUCT = "memory copy", "bf16 matrix products"  # names of rows
TRAIN = "train"  # first word of the names of the rows of the training step


@dataclass(frozen=True)
class Measured:
    """What earlier parts measured: the name of the GPU and their rows."""

    card: str
    rows: Sequence[Row]

    def figure(self, name: str) -> float | None:
        """Return the figure of a row; None if it was not measured."""
        return next((row.figure for row in self.rows if row.name == name), None)

    @property
    def bytes_per_s(self) -> float | None:
        """Bytes read and written per second by a copy, or as the data sheet says."""
        copied, card = self.figure(COPY), card_named(self.card)
        tbs = copied if copied is not None else card and card.copy_tbs
        return tbs * 1e12 if tbs else None

    @property
    def flops(self) -> float | None:
        """Floating-point operations per second of bfloat16 matrix products, or as the data sheet says."""
        reached, card = self.figure(PRODUCT), card_named(self.card)
        tflops = reached if reached is not None else card and card.tflops
        return tflops * 1e12 if tflops else None

    @property
    def clips_per_s(self) -> float | None:
        """Clips per second of the fastest training step."""
        speeds = [row.figure for row in self.rows if row.name.startswith(TRAIN) and row.unit == "clips/s"]
        return max((speed for speed in speeds if speed is not None), default=None)

    def document(self) -> dict[str, Any]:
        return {"card": self.card, "rows": [row.document() for row in self.rows]}


def measured_of(document: dict[str, Any]) -> Measured:
    """Return the `Measured` of a document."""
    return Measured(document["card"], [row_of(row) for row in document["rows"]])
