"""Lists of class names in the order of their labels."""

import re
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.text_files import read_lines


def read_classes(file: Path) -> tuple[str, ...]:
    """Read class names, one per line, in the order of their labels; lines may be numbered (`1 ApplyEyeMakeup`).

    Raises UserError for a file that cannot be read, is empty, or lists a class twice."""
    lines = read_lines(file)
    names = [text for _, text in lines]
    numbered = [re.fullmatch(r"(\d+)\s+(.+)", name) for name in names]
    numbers = [int(match[1]) for match in numbered if match]
    if numbers in (list(range(len(names))), list(range(1, len(names) + 1))):
        names = [match[2] for match in numbered if match]
    first_line: dict[str, int] = {}
    for (line, _), name in zip(lines, names, strict=True):
        if first_line.setdefault(name, line) != line:
            raise UserError(f"{file} line {line}: class {name} is already listed in line {first_line[name]}")
    if not names:
        raise UserError(f"{file} lists no classes")
    return tuple(names)
