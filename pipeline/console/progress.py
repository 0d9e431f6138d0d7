"""What a person sees while something runs: a bar on a terminal, a line now and then in a log. Always on stderr."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_EVERY_S = 15.0  # without a terminal

console = Console(stderr=True, highlight=False)


class Progress:
    """Counts up to a total. `update` takes the count so far and a short note (rate, loss) that is shown beside it."""

    def __init__(self, what: str, total: float, unit: str):
        self._what, self._total, self._unit = what, total, unit
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
        self._task = self._bar.add_task(what, total=total, note="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def update(self, count: float, note: str = "") -> None:
        self._bar.update(self._task, completed=count, note=note)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > LINE_EVERY_S:
            self._last_line = now
            pace = (now - self._started) / count if count else None
            left = "" if pace is None else f"{(self._total - count) * pace:.0f} s left, "
            console.print(f"{self._what}: {count:.0f} of {self._total:.0f} {self._unit}, {left}{note}", soft_wrap=True)


def say(line: str) -> None:
    """A line for the person who watches."""
    console.print(line, soft_wrap=True, markup=False)
