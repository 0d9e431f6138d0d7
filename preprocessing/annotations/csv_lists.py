"""Annotations in CSV files: plain lists (path,label) and the lists of Kinetics."""

import csv
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.entries import NAME, Annotations, Entry, safe_key
from lgd.preprocessing.annotations.named_files import relative_path
from lgd.preprocessing.annotations.split_names import SPLITS, split_in_name, standard_split
from lgd.preprocessing.annotations.text_files import open_text
from lgd.preprocessing.video.files import VideoFiles, composed

PLAIN: tuple[str, ...] = ("path", "label")
OPTIONAL = ("split", "group", "key", "start_s", "end_s")
KINETICS: tuple[str, ...] = ("label", "youtube_id", "time_start", "time_end")
NO_LABEL = "no label"
SHOWN_LINES = 5  # line numbers in one message

log = logging.getLogger(__name__)


@dataclass
class _RowErrors:
    """Errors in the rows of a file: the lines in which each error occurs."""

    file: Path
    lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, error: str, line: int) -> None:
        self.lines.setdefault(error, []).append(line)

    def raise_first(self) -> None:
        """Raise UserError for the error that was added first, if there is one."""
        for error, lines in self.lines.items():
            shown = ", ".join(map(str, lines[:SHOWN_LINES])) + (", ..." if len(lines) > SHOWN_LINES else "")
            plural = "s" if len(lines) > 1 else ""
            advice = ": if the videos have no labels, add --unlabelled" if error == NO_LABEL else ""
            raise UserError(f"{self.file}: {error} in {len(lines)} row{plural} (line{plural} {shown}){advice}")


def read_csv(files: VideoFiles, file: Path, unlabelled: bool = False) -> Annotations:
    """Read a plain CSV file (`path,label` and optionally `split,group,key,start_s,end_s`) or a Kinetics list
    (`label,youtube_id,time_start,time_end` and usually `split`); the columns decide which.

    unlabelled: take rows without a label; the column may then be missing. In a Kinetics list such rows are always taken
    in the split test, whose labels are not public.
    Raises UserError, with line numbers, for anything that is wrong in the file."""
    rows = read_csv_rows(file)
    columns = list(next(rows)[1])
    kinetics = "youtube_id" in columns
    without_labels = unlabelled or (kinetics and ("split" in columns or split_in_name(file.stem) == "test"))
    required = [name for name in (KINETICS if kinetics else PLAIN) if not (name == "label" and without_labels)]
    read_row = _read_kinetics_row if kinetics else _read_plain_row
    if not set(required) <= set(columns):
        raise UserError(
            f"{file} has the columns {','.join(columns) or '(none)'} but requires {','.join(required)}"
            + ("" if kinetics else f" ({','.join(OPTIONAL)} are optional)")
            + ("" if "label" in columns or unlabelled else "; if the videos have no labels, add --unlabelled")
        )
    errors = _RowErrors(file)
    entries = []
    for line, row in rows:
        label, split = row.get("label", "").strip(), standard_split(row.get("split", "").strip())
        if "split" in columns and not split:
            errors.add("no split", line)
        if split and not NAME.fullmatch(split):
            errors.add("a split with characters other than letters, digits, _ and -", line)
        of_test = (split or split_in_name(file.stem)) == "test"
        if not (label or unlabelled or (kinetics and of_test)):
            errors.add(NO_LABEL, line)
        entries.append(read_row(files, row, Entry("", label or None, file, line, split or None), errors=errors))
    errors.raise_first()
    if not entries:
        raise UserError(f"{file} lists no videos")
    if kinetics:
        entries = _remove_repeated(file, entries)
        _find_kinetics_videos(files, entries)
    return Annotations(entries)


def read_csv_folder(files: VideoFiles, folder: Path, unlabelled: bool = False) -> Annotations:
    """Read a folder of CSV files with one split each. If a file has no column for the split, its name says it.

    unlabelled: see `read_csv`.
    Raises UserError if there are no CSV files or if two of them contain the same split."""
    lists = sorted(folder.glob("*.csv"))
    if not lists:
        raise UserError(f"{folder} contains no annotations: neither CSV files nor the lists of UCF101 or HMDB51")
    entries: list[Entry] = []
    file_by_split: dict[str | None, Path] = {}
    for file in lists:
        # One file whose name does not end with a split is a complete list.
        split = split_in_name(file.stem) if len(lists) > 1 else SPLITS.get(re.split(r"[_-]", file.stem)[-1].lower())
        rows = read_csv(files, file, unlabelled).entries
        for entry in rows:
            entry.split = entry.split or split
        for each in sorted({entry.split or "" for entry in rows}):
            if file_by_split.setdefault(each, file) is not file:
                content = f"videos of the split {each}" if each else "videos without a split"
                raise UserError(
                    f"{file_by_split[each].name} and {file.name} in {folder} both contain {content}: "
                    "give one of the files with --annotations"
                )
        entries += rows
    return Annotations(entries)


def _read_plain_row(files: VideoFiles, row: dict[str, str], entry: Entry, *, errors: _RowErrors) -> Entry:
    """Return the entry with its key, group and path: that of the file, or the one in the list if it is missing."""
    key, path = row.get("key", "").strip(), row["path"].strip()
    inside = relative_path(files.folder, path) if path else None
    if not path:
        errors.add("no path", entry.line)
    elif inside is None:
        errors.add(f"a path outside {files.folder.display()}", entry.line)
    entry.group = composed(row.get("group", "").strip()) or None
    if "group" in row and not entry.group and entry.class_name:
        errors.add("no group", entry.line)
    if key and not NAME.fullmatch(key):
        errors.add("a key with characters other than letters, digits, _ and -", entry.line)
    # The value as it is comes first: a name may begin or end with spaces.
    exact = relative_path(files.folder, row["path"]) if inside else None
    found = exact if exact and files.exists(exact) else files.spelled(inside or "")
    entry.path, entry.listed, entry.missing, entry.key = found or inside or "", inside, found is None, key or None
    entry.start_s, entry.end_s = _read_interval(row, "start_s", "end_s", line=entry.line, errors=errors)
    return entry


def _read_kinetics_row(files: VideoFiles, row: dict[str, str], entry: Entry, *, errors: _RowErrors) -> Entry:
    """Return the entry with its key, which is the name of the trimmed file, and the YouTube id as the path."""
    entry.path = row["youtube_id"].strip()
    entry.start_s, entry.end_s = _read_interval(row, "time_start", "time_end", line=entry.line, errors=errors)
    if not NAME.fullmatch(entry.path):
        errors.add("no valid youtube_id", entry.line)
    if entry.start_s is None or entry.end_s is None:
        errors.add("no time_start or time_end", entry.line)
    entry.key = safe_key(f"{entry.path}_{int(entry.start_s or 0):06d}_{int(entry.end_s or 0):06d}")
    return entry


def _find_kinetics_videos(files: VideoFiles, entries: list[Entry]) -> None:
    """Set the path of each entry to its file: `{youtube_id}_{start:06d}_{end:06d}.*`, which is trimmed, or else
    `{youtube_id}.*`, the complete video, of which the annotated interval is used."""
    for entry in entries:
        name = entry.key or ""
        if trimmed := files.find(name, entry.class_name, entry.split):
            entry.path, entry.start_s, entry.end_s = trimmed, None, None
        elif complete := files.find(entry.path, entry.class_name, entry.split):
            entry.path = complete
        else:
            folder = f"{entry.class_name}/" if entry.class_name else ""
            entry.path, entry.missing = f"{folder}{name}.mp4", True


def _remove_repeated(file: Path, entries: list[Entry]) -> list[Entry]:
    """Remove rows that repeat another row, as a few rows of the official lists do: they are not a second video."""
    first: dict[str, Entry] = {}
    for entry in entries:
        earlier = first.setdefault(entry.key or "", entry)
        if (earlier.class_name, earlier.split) != (entry.class_name, entry.split):
            raise UserError(
                f"{entry.where}: {entry.key} is {entry.class_name!r} in {entry.split}, "
                f"but {earlier.class_name!r} in {earlier.split} in {earlier.where}: remove one of the rows"
            )
    if len(first) < len(entries):
        log.warning("%s: rows that repeat another row are ignored: %d", file, len(entries) - len(first))
    return list(first.values())


def read_csv_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, text by column): first the header (its values are its names), then the rows that are not
    empty."""
    with open_text(file) as text:
        reader = csv.reader(text, strict=True, skipinitialspace=True)
        try:
            names = [name.strip().lower() for name in next(reader, [])]
            repeated = sorted({name for name in names if names.count(name) > 1 and name})
            if repeated:
                raise UserError(f"{file} has more than one column named {repeated[0]}")
            yield 1, {name: name for name in names}
            for values in reader:
                if len(values) > len(names) and any(value.strip() for value in values[len(names) :]):
                    raise UserError(
                        f"{file} line {reader.line_num}: {len(values)} values for {len(names)} columns "
                        "(a value that contains a comma must be in quotes)"
                    )
                if any(value.strip() for value in values):
                    yield reader.line_num, {**dict.fromkeys(names, ""), **dict(zip(names, values, strict=False))}
        except csv.Error as error:
            raise UserError(f"{file} line {reader.line_num}: not a valid CSV file ({error})") from error


def _read_interval(
    row: dict[str, str], start: str, end: str, *, line: int, errors: _RowErrors
) -> tuple[float | None, float | None]:
    """Return the annotated start and end in seconds, None where the row gives none."""
    seconds: list[float | None] = []
    for name in (start, end):
        text = row.get(name, "").strip()
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not (math.isfinite(value) and value >= 0):
            errors.add(f"an invalid {name} (not a number of seconds)", line)
            value = None
        seconds.append(value)
    if seconds[1] is not None and (seconds[0] or 0.0) >= seconds[1]:
        errors.add(f"a {start} that is not before {end}", line)
    return seconds[0], seconds[1]
