"""Annotations in csv files: the plain one and the Kinetics lists."""

import csv
import logging
import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import NAME, Entry, safe_key
from lgd.preprocessing.video.files import VideoFiles

PLAIN: tuple[str, ...] = ("path", "label")
KINETICS: tuple[str, ...] = ("label", "youtube_id", "time_start", "time_end")
KINETICS_SPLITS = {"training": "train", "validate": "val", "validation": "val", "testing": "test"}

log = logging.getLogger(__name__)


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


def read_csv(files: VideoFiles, file: Path) -> list[Entry]:
    """The rows of a plain csv (`path,label` and optionally `split,key,start_s,end_s`) or of a Kinetics list
    (`label,youtube_id,time_start,time_end` and mostly `split`), told apart by their columns.

    Raises UserError for what is wrong in it, with line numbers.
    """
    rows = _rows(file)
    columns = list(next(rows)[1])
    kinetics = "youtube_id" in columns
    needed = KINETICS if kinetics else PLAIN
    read = _kinetics if kinetics else _plain
    if not set(needed) <= set(columns):
        raise UserError(
            f"{file} has the columns {','.join(columns) or '(none)'}: it needs {','.join(needed)}"
            + (" (and may have split,key,start_s,end_s)" if not kinetics else "")
        )
    complaints = _Complaints(file)
    entries = []
    for line, row in rows:
        label, split = row["label"].strip(), row.get("split", "").strip()
        if not label:
            complaints.add("no label", line)
        if "split" in columns and not split:
            complaints.add("no split", line)
        if split and not NAME.fullmatch(split):
            complaints.add("a split of other characters than letters, digits, _ and -", line)
        entries.append(read(files.folder, row, Entry("", label, file, line, split or None), complaints=complaints))
    complaints.raise_first()
    if not entries:
        raise UserError(f"{file} lists no videos")
    if kinetics:
        entries = _without_repeated(file, entries)
        _find_kinetics(files, entries)
    else:
        for entry in entries:
            entry.missing = not files.exists(entry.path)
    return entries


def _plain(videos: Storage, row: dict[str, str], entry: Entry, *, complaints: _Complaints) -> Entry:
    key, path = row.get("key", "").strip(), row["path"]
    inside = _inside(videos, path) if path.strip() else None
    if not path.strip():
        complaints.add("no path", entry.line)
    elif inside is None:
        complaints.add(f"a path that leaves {videos.display()}", entry.line)
    if key and not NAME.fullmatch(key):
        complaints.add("a key of other characters than letters, digits, _ and -", entry.line)
    entry.path, entry.key = inside or "", key or None
    entry.start_s, entry.end_s = _interval(row, "start_s", "end_s", line=entry.line, complaints=complaints)
    return entry


def _kinetics(videos: Storage, row: dict[str, str], entry: Entry, *, complaints: _Complaints) -> Entry:
    """The row with its key, which is the name that the trimmed file has, and the YouTube id for a path."""
    entry.path = row["youtube_id"].strip()
    entry.start_s, entry.end_s = _interval(row, "time_start", "time_end", line=entry.line, complaints=complaints)
    if not NAME.fullmatch(entry.path):
        complaints.add("no youtube_id", entry.line)
    if entry.start_s is None or entry.end_s is None:
        complaints.add("no time_start or time_end", entry.line)
    entry.key = safe_key(f"{entry.path}_{int(entry.start_s or 0):06d}_{int(entry.end_s or 0):06d}")
    entry.split = KINETICS_SPLITS.get(entry.split or "", entry.split)
    return entry


def _find_kinetics(files: VideoFiles, entries: list[Entry]) -> None:
    """Give each row its file: `{youtube_id}_{start:06d}_{end:06d}.*`, which is trimmed already, else
    `{youtube_id}.*`, the whole video, of which the annotated seconds are taken."""
    for entry in entries:
        name = entry.key or ""
        if trimmed := files.find(name, entry.class_name, entry.split):
            entry.path, entry.start_s, entry.end_s = trimmed, None, None
        elif whole := files.find(entry.path, entry.class_name, entry.split):
            entry.path = whole
        else:
            entry.path, entry.missing = f"{entry.class_name}/{name}.mp4", True


def _without_repeated(file: Path, entries: list[Entry]) -> list[Entry]:
    """The official lists repeat a few rows; a row that says the same again is left out, not a second video."""
    first: dict[str, Entry] = {}
    for entry in entries:
        same = first.setdefault(entry.key or "", entry)
        if (same.class_name, same.split) != (entry.class_name, entry.split):
            raise UserError(
                f"{entry.where}: {entry.key} is {entry.class_name!r} in {entry.split}, "
                f"but {same.class_name!r} in {same.split} in {same.where}: remove one of the rows"
            )
    if len(first) < len(entries):
        log.warning("%s: %d rows repeat another row and are left out", file, len(entries) - len(first))
    return list(first.values())


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, column -> text): first the header (its values are its names), then the rows that are not empty."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            names = [name.strip().lower() for name in next(reader, [])]
            repeated = sorted({name for name in names if names.count(name) > 1 and name})
            if repeated:
                raise UserError(f"{file} has more than one column {', '.join(repeated)}")
            yield 1, {name: name for name in names}
            for values in reader:
                if len(values) > len(names) and any(value.strip() for value in values[len(names) :]):
                    raise UserError(
                        f"{file} line {reader.line_num}: {len(values)} values for {len(names)} columns "
                        "(a value with a comma in it needs quotes around it)"
                    )
                if any(value.strip() for value in values):
                    yield reader.line_num, {**dict.fromkeys(names, ""), **dict(zip(names, values, strict=False))}
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{file} is not a csv file: {error}") from error


def _inside(videos: Storage, path: str) -> str | None:
    """The path relative to the folder, or None if it leaves it. Decided by the text: a symbolic link inside the folder
    was put there by its owner and may lead anywhere; a list comes from somebody else and may not."""
    if not videos.local:
        path = path.removeprefix(f"{videos.root.partition('://')[0]}://{videos.path()}/")
    elif posixpath.isabs(path):
        path = posixpath.relpath(path, videos.path())
    path = posixpath.normpath(path)
    return None if path in (".", "..") or path.startswith(("../", "/")) or "\0" in path else path


def _interval(
    row: dict[str, str], start: str, end: str, *, line: int, complaints: _Complaints
) -> tuple[float | None, float | None]:
    """The annotated part in seconds, None where nothing is said."""
    seconds: list[float | None] = []
    for name in (start, end):
        text = row.get(name, "").strip()
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not (math.isfinite(value) and value >= 0):
            complaints.add(f"a {name} that is no number of seconds", line)
            value = None
        seconds.append(value)
    if seconds[1] is not None and (seconds[0] or 0.0) >= seconds[1]:
        complaints.add(f"{start} not before {end}", line)
    return seconds[0], seconds[1]
