"""The messages of an ffmpeg process: a bounded part of them, counts of patterns, and the first error as one line."""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

HEAD_LINES, TAIL_LINES, LINE_CHARACTERS = 400, 100, 400


@dataclass
class FfmpegLog:
    """ffmpeg's messages: the first and the last lines, and how many lines matched each pattern.

    patterns: by name; counts: matching lines by name, over all messages, also those that are not kept; size: bytes of
    all messages.
    """

    patterns: dict[str, re.Pattern[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    size: int = 0
    _partial: str = ""

    def feed(self, data: bytes) -> None:
        """Add the next bytes that ffmpeg wrote."""
        self.size += len(data)
        *lines, partial = (self._partial + data.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
        self._partial = partial[:LINE_CHARACTERS]  # bounds the memory of a line that never ends
        for line in lines:
            self._add(line[:LINE_CHARACTERS])

    def close(self) -> None:
        """Add the last line, if it has no line end."""
        if self._partial:
            self._add(self._partial)
        self._partial = ""

    def _add(self, line: str) -> None:
        for name, pattern in self.patterns.items():
            if pattern.search(line):
                self.counts[name] = self.counts.get(name, 0) + 1
        if len(self.head) < HEAD_LINES:
            self.head.append(line)
        else:
            self.tail.append(line)

    def lines(self) -> Iterator[str]:
        """The lines that were kept, in order."""
        yield from self.head
        yield from self.tail

    def first_error(self) -> str:
        """Return the first error message without its prefixes, on one line.

        ffmpeg must run with `-loglevel level+...`, which puts the level into every line.
        """
        for line in self.lines():
            if "[error]" in line or "[fatal]" in line:
                # Addresses and descriptor numbers differ from run to run; the reason for a rejection must not.
                return re.sub(r"\[[^\]]*\] ?|\b(file:)?/dev/fd/\d+\b", "", line).strip()[:200]
        return "ffmpeg printed no error message"
