"""Counters of preprocessing tasks: videos, frames, and the time that each stage took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = ("compile", "decode", "flow", "jpeg", "write")


@dataclass
class ShardCounters:
    """Work that a task has done since its last report. seconds: per stage."""

    videos: int = 0
    rejected: int = 0
    frames: int = 0
    flow_pairs: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to `stage`."""
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start

    @property
    def done(self) -> int:
        """Number of videos processed."""
        return self.videos + self.rejected

    def note(self, seconds: float) -> str:
        """Return the rates as text, given the seconds since the start."""
        rate, pairs = self.done / seconds, self.flow_pairs / seconds
        note = f"{self.rejected} rejected, {rate:.1f} videos/s"
        return note + (f", {pairs:.0f} flow pairs/s" if pairs else "")

    def add(self, other: "ShardCounters") -> None:
        """Add the counts and times of another task."""
        for count in ("videos", "rejected", "frames", "flow_pairs"):
            setattr(self, count, getattr(self, count) + getattr(other, count))
        for stage, spent in other.seconds.items():
            self.seconds[stage] += spent
