"""Progress on stderr: a bar on a terminal, otherwise a line every 15 seconds."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from lgd.pipeline.console.signals import check_interrupted

LINE_EVERY_S = 15.0  # where stderr is not a terminal

console = Console(stderr=True, highlight=False)


class Progress:
    """Progress of a count up to a total, shown while the `with` block runs."""

    def __init__(self, name: str, total: float, unit: str):
        """name: what runs. unit: what is counted, such as videos."""
        self._name, self._total, self._unit = name, total, unit
        self._last_line, self._started = time.monotonic(), time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(name, total=total, note="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def update(self, count: float, note: str = "") -> None:
        """Show the count so far. note: a few words after it, such as the rate or the loss.

        Raises KeyboardInterrupt in the main thread if a signal has arrived."""
        check_interrupted()
        self._bar.update(self._task, completed=count, note=note)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > LINE_EVERY_S:
            self._last_line = now
            seconds_per_unit = (now - self._started) / count if count else None
            left = "" if seconds_per_unit is None else f"{(self._total - count) * seconds_per_unit:.0f} s left"
            parts = [f"{self._name}: {count:.0f} of {self._total:.0f} {self._unit}", left, note]
            console.print(", ".join(filter(None, parts)), soft_wrap=True)


def say(line: str) -> None:
    """Print one line on stderr."""
    console.print(line, soft_wrap=True, markup=False)
