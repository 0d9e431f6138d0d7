"""The messages of an ffmpeg process: a bounded part of them, counts of patterns, and the first error as one line."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

HEAD_LINES, TAIL_LINES, LINE_CHARACTERS = 400, 100, 1000
# ffmpeg must run with `-loglevel level+...`, which puts the level before the message. Text that a file contains (its
# title, its chapters) comes after a level and at least four spaces, or without a level if it has several lines. It is
# not matched: a title "[error] x" is not an error.
MESSAGE = re.compile(r"^(?:\[[^\]]*\] )+(?! {3})")
ERROR = re.compile(r"^(?:\[[^\]]*\] )*\[(?:error|fatal)\] ")


@dataclass
class FfmpegLog:
    """ffmpeg's messages: the first and the last lines, and how many lines matched each pattern.

    patterns: by name; on_line: called with every line, also those that are not kept; counts, last: the number of
    messages that matched and the last of them, by name, over all lines; size: bytes of all messages.
    """

    patterns: dict[str, re.Pattern[str]] = field(default_factory=dict)
    on_line: Callable[[str], None] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    last: dict[str, re.Match[str]] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    size: int = 0
    _error: str | None = None
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
        for name, pattern in self.patterns.items() if MESSAGE.match(line) else ():
            if match := pattern.search(line):
                self.counts[name] = self.counts.get(name, 0) + 1
                self.last[name] = match
        if self._error is None and ERROR.match(line):
            self._error = line
        if self.on_line:
            self.on_line(line)
        if len(self.head) < HEAD_LINES:
            self.head.append(line)
        else:
            self.tail.append(line)

    def lines(self) -> Iterator[str]:
        """The lines that were kept, in order."""
        yield from self.head
        yield from self.tail

    def first_error(self) -> str:
        """Return the first error message without its prefixes, on one line."""
        if self._error is None:
            return "ffmpeg printed no error message"
        # Addresses and descriptor numbers differ from run to run; the reason for a rejection must not.
        return re.sub(r"\[[^\]]*\] ?|\b(file:)?/dev/fd/\d+\b", "", self._error).strip(": ")[:200]
