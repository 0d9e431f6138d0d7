"""Text files with annotations: opened as UTF-8, with errors that name the file and the line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.video.files import composed


@contextmanager
def open_text(file: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file for reading; a byte order mark is skipped and line ends are kept.

    Raises UserError if the file cannot be opened or read, or if it is not UTF-8."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            yield text
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} line {_first_invalid_line(file)}: not UTF-8 text ({error.reason}): save the file as UTF-8"
        ) from error


def _first_invalid_line(file: Path) -> int:
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines that are not empty as (line number from 1, text with composed letters, see `composed`).

    Raises UserError as `open_text` does."""
    with open_text(file) as text:
        lines = composed(text.read()).splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def and_more(count: int) -> str:
    """Return the end of a message that names one of `count` things: ` (and 2 more)`, or nothing if there is one."""
    return f" (and {count - 1} more)" if count > 1 else ""
