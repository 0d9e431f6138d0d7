"""The parts of `lgd.benchmarks.gpu`, in the order in which they run. Each runs in a child process."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lgd.benchmarks.gpu.rows import Measured, Row

VARIANTS = ("eager", "compiled", "2d", "compiled 2d", "graph", "compiled graph")
CLIPS = (64, 8)


@dataclass(frozen=True)
class Part:
    """Some figures that one child process measures. function: `module:function`, called with `settings`. limit_s: of
    the child's time."""

    name: str
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    limit_s: float = 60.0

    def measure(self, measured: Measured) -> list[Row]:
        """Call the function in this process."""
        module, _, name = self.function.partition(":")
        rows: list[Row] = getattr(importlib.import_module(module), name)(measured, **self.settings)
        return rows


PARTS = (
    Part("card", "lgd.benchmarks.gpu.card:speeds"),
    *(
        Part(
            f"train, {variant}, {clips} clips",
            "lgd.benchmarks.gpu.train:speed",
            {"variant": variant, "clips": clips},
            limit_s=120.0 if "compiled" in variant else 60.0,
        )
        for clips in CLIPS
        for variant in VARIANTS
    ),
    Part(
        "TV-L1, 160 x 120", "lgd.benchmarks.gpu.flow:speed", {"height": 120, "width": 160, "pairs": 512}, limit_s=90.0
    ),
    Part(
        "TV-L1, 340 x 256", "lgd.benchmarks.gpu.flow:speed", {"height": 256, "width": 340, "pairs": 128}, limit_s=90.0
    ),
    Part("TV-L1 by the size of the batch", "lgd.benchmarks.gpu.flow_batches:speeds", limit_s=90.0),
    Part("decoding", "lgd.benchmarks.gpu.loader:decoding"),
    Part("loader", "lgd.benchmarks.gpu.loader:loading", limit_s=90.0),
    Part("copy of a batch", "lgd.benchmarks.gpu.loader:copy"),
)


def part_named(name: str) -> Part:
    """Return a part."""
    return next(part for part in PARTS if part.name == name)
