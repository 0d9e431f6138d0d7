"""Lists of class names in the order of their labels."""

import re
from collections.abc import Sequence
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.text_files import read_lines


def read_classes(file: Path) -> tuple[str, ...]:
    """Read class names, one per line, in the order of their labels; lines may be numbered (`1 ApplyEyeMakeup`, or
    `applauding,0` as in Moments in Time, in any order).

    Raises UserError for a file that cannot be read, is empty, or lists a class twice."""
    lines = read_lines(file)
    names = [text for _, text in lines]
    numbered = [re.fullmatch(r"(\d{1,9})\s+(.+)", name) for name in names]
    numbers = [int(match[1]) for match in numbered if match]
    if numbers in (list(range(len(names))), list(range(1, len(names) + 1))):
        names = [match[2] for match in numbered if match]
    elif counted := _in_order_of_numbers(names):
        lines, names = (
            [lines[index] for index in counted],
            [names[index].rpartition(",")[0].strip() for index in counted],
        )
    first_line: dict[str, int] = {}
    for (line, _), name in zip(lines, names, strict=True):
        if first_line.setdefault(name, line) != line:
            raise UserError(f"{file} line {line}: class {name} is already listed in line {first_line[name]}")
    if not names:
        raise UserError(f"{file} lists no classes")
    return tuple(names)


def _in_order_of_numbers(texts: Sequence[str]) -> list[int] | None:
    """Return the order of lines `name,number` by their numbers, which are consecutive from 0 or 1; None for others."""
    numbers = [int(match[1]) for match in (re.fullmatch(r".+,\s*(\d{1,9})", text) for text in texts) if match]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    consecutive = [numbers[index] - numbers[order[0]] for index in order] == list(range(len(texts)))
    return order if order and consecutive and numbers[order[0]] in (0, 1) else None
