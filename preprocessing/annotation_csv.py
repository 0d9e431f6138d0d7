"""Annotations in csv files: the plain one and the Kinetics lists."""

import csv
import math
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UserError
from preprocessing.manifest import NAME, Entry

PLAIN = ("path", "label")


@dataclass
class _Complaints:
    """Rows that are wrong in the same way, reported together."""

    file: Path
    lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, what: str, line: int) -> None:
        self.lines.setdefault(what, []).append(line)

    def raise_first(self) -> None:
        for what, lines in self.lines.items():
            shown = ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")
            plural = "s" if len(lines) > 1 else ""
            raise UserError(f"{self.file}: {what} in {len(lines)} row{plural} (line{plural} {shown})")


def read_csv(videos: Path, file: Path) -> list[Entry]:
    """The rows of a csv with `path,label` and optionally `split,key,start_s,end_s`.

    Raises UserError for what is wrong in it, with line numbers.
    """
    rows = _rows(file)
    columns = next(rows)[1]
    if not set(PLAIN) <= columns.keys():
        raise UserError(
            f"{file} has the columns {', '.join(columns)}: it needs path,label (and may have split,key,start_s,end_s)"
        )
    complaints = _Complaints(file)
    entries = []
    for line, row in rows:
        label, split, key = (row.get(name, "").strip() for name in ("label", "split", "key"))
        path = row["path"]
        for name, value in (("path", path), ("label", label)):
            if not value.strip():
                complaints.add(f"no {name}", line)
        inside = _inside(videos, path)
        if inside is None:
            complaints.add(f"a path that leaves {videos}", line)
        if "split" in columns and not split:
            complaints.add("no split", line)
        for name, value in (("split", split), ("key", key)):
            if value and not NAME.fullmatch(value):
                complaints.add(f"a {name} of other characters than letters, digits, _ and -", line)
        start_s = _time(row, "start_s", line, complaints)
        end_s = _time(row, "end_s", line, complaints)
        if end_s is not None and (start_s or 0.0) >= end_s:
            complaints.add("start_s not before end_s", line)
        missing = not os.path.isfile(videos / (inside or ""))
        where = f"{file} line {line}"
        entries.append(Entry(inside or "", label, where, split or None, key or None, start_s, end_s, missing))
    complaints.raise_first()
    if not entries:
        raise UserError(f"{file} lists no videos")
    return entries


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, column -> text): first the header (its values are its names), then the rows that are not empty."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            names = [name.strip().lower() for name in next(reader, [])]
            yield 1, dict(zip(names, names, strict=True))
            for values in reader:
                if any(value.strip() for value in values):
                    if len(values) > len(names):
                        raise UserError(
                            f"{file} line {reader.line_num}: {len(values)} values for {len(names)} columns "
                            "(a comma inside a value needs quotes around it)"
                        )
                    yield reader.line_num, dict(zip(names, values + [""] * (len(names) - len(values)), strict=True))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{file} is not a csv file: {error}") from error


def _inside(videos: Path, path: str) -> str | None:
    """The path relative to the folder, or None if it leaves it. Decided by the text: a symbolic link inside the folder
    was put there by its owner and may lead anywhere; a list comes from somebody else and may not."""
    if posixpath.isabs(path):
        path = posixpath.relpath(path, os.path.abspath(videos))
    path = posixpath.normpath(path)
    return None if path in (".", "..") or path.startswith("../") or "\0" in path else path


def _time(row: dict[str, str], name: str, line: int, complaints: _Complaints) -> float | None:
    """Seconds, None where there is nothing."""
    text = row.get(name, "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        complaints.add(f"a {name} that is no number of seconds", line)
        return None
    return seconds
