"""The manifest: one row for every annotated video, with its key, label and split. What is listed is accounted for."""

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import pyarrow as pa

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.preprocessing.annotations.validation_split import choose_val

NAME = re.compile(r"[A-Za-z0-9_-]+")
MAX_KEY_CHARACTERS = 120

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("path", pa.string()),
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("split", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("missing", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class Video:
    """One row. key: unique, of letters, digits, _ and -; path: relative to the folder of videos, posix, for a missing
    file what was looked for; label: index into the classes; start_s, end_s: the part to take, None for all of it;
    missing: listed, but there is no such file."""

    key: str
    path: str
    label: int
    class_name: str
    split: str
    start_s: float | None = None
    end_s: float | None = None
    missing: bool = False


@dataclass(frozen=True)
class Manifest:
    """All videos, ordered by split and key, and the names of the classes in the order of their labels."""

    videos: tuple[Video, ...]
    classes: tuple[str, ...]

    def table(self) -> pa.Table:
        """The rows as an Arrow table, the classes in its metadata."""
        columns = {name: [getattr(video, name) for video in self.videos] for name in SCHEMA.names}
        return pa.table(columns, SCHEMA).replace_schema_metadata({"classes": json.dumps(self.classes)})

    @classmethod
    def from_table(cls, table: pa.Table) -> "Manifest":
        """The manifest that `table` was made of."""
        classes = tuple(json.loads(table.schema.metadata[b"classes"]))
        columns = [table.column(name).to_pylist() for name in SCHEMA.names]
        return cls(tuple(Video(*row) for row in zip(*columns, strict=True)), classes)

    def fingerprint(self) -> str:
        """sha256 over the classes and all rows, as hexadecimal: two manifests with the same one are the same."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        row = attrgetter(*SCHEMA.names)
        for video in self.videos:
            digest.update(json.dumps(row(video)).encode())
        return digest.hexdigest()


@dataclass(slots=True)
class Entry:
    """A row as annotated, filled in step by step until keys, labels and splits are settled. file, line: where it stands
    (line 0: the file itself), for messages."""

    path: str
    class_name: str
    file: Path | str
    line: int = 0
    split: str | None = None
    key: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    missing: bool = False

    @property
    def where(self) -> str:
        return f"{self.file} line {self.line}" if self.line else str(self.file)


def make_manifest(
    entries: Sequence[Entry], classes: Sequence[str] | None, group: str | None, *, val_fraction: float
) -> Manifest:
    """Settle keys, labels and splits. classes: their order, or None to sort them by name (by number if all are).

    Raises UserError for classes that are not in the list, keys given twice, and files listed twice.
    """
    _refuse_repeated_files(entries)
    keys = _keys(entries)
    order = tuple(classes) if classes is not None else sort_classes({entry.class_name for entry in entries})
    labels = {name: label for label, name in enumerate(order)}
    unknown = [entry for entry in entries if entry.class_name not in labels]
    if unknown:
        raise UserError(
            f"{unknown[0].where}: class {unknown[0].class_name!r} is not in the list of {len(order)} classes"
            f"{_and_more(len(unknown))}"
        )
    videos = [
        Video(key, e.path, labels[e.class_name], e.class_name, split, e.start_s, e.end_s, e.missing)
        for e, key, split in zip(entries, keys, _splits(entries, keys, group, val_fraction=val_fraction), strict=True)
    ]
    videos.sort(key=lambda video: (video.split, video.key))
    return Manifest(tuple(videos), order)


def sort_classes(names: Iterable[str]) -> tuple[str, ...]:
    """By name; by number where all names are numbers, so that label 10 does not stand before label 2."""
    names = set(names)
    if all(re.fullmatch(r"[0-9]+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def safe_key(text: str) -> str:
    """A name made of letters, digits, _ and - only: accents are dropped, slashes become -, all else _."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    key = re.sub(r"[^A-Za-z0-9_-]+", "_", plain.replace("/", "-"))
    if len(key) > MAX_KEY_CHARACTERS or not key.strip("_-"):
        key = f"{key[: MAX_KEY_CHARACTERS - 20]}-{_short_hash(text)}".lstrip("_-")
    return key


def _keys(entries: Sequence[Entry]) -> list[str]:
    """The given keys, and for the others one from the path without its extension. Where these are the same, the
    annotated times or a hash of the path tell them apart: of all of them, so that their order does not matter."""
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.key and (other := first.setdefault(entry.key, entry)) is not entry:
            raise UserError(f"{entry.where}: key {entry.key} is given already ({other.where}): keys must be unique")
    keys = [entry.key or safe_key(os.path.splitext(entry.path)[0]) for entry in entries]
    for suffix in (_times, _identity):
        shared = {key for key, count in Counter(keys).items() if count > 1}
        keys = [
            f"{key}-{suffix(entry)}".rstrip("-") if key in shared and not entry.key else key
            for entry, key in zip(entries, keys, strict=True)
        ]
    return keys


def _identity(entry: Entry) -> str:
    return _short_hash(f"{entry.path} {entry.start_s} {entry.end_s}")


def _times(entry: Entry) -> str:
    """Milliseconds of the annotated part; nothing if it is all of the video."""
    if entry.start_s is None and entry.end_s is None:
        return ""
    end = "end" if entry.end_s is None else f"{round(entry.end_s * 1000):07d}"
    return f"{round((entry.start_s or 0) * 1000):07d}-{end}"


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _refuse_repeated_files(entries: Sequence[Entry]) -> None:
    first: dict[tuple[str, float | None, float | None], Entry] = {}
    for entry in entries:
        same = first.setdefault((entry.path, entry.start_s, entry.end_s), entry)
        if same is not entry:
            raise UserError(
                f"{entry.where}: {entry.path} is listed already ({same.where}): list each video, or each part of a "
                "video (start_s, end_s), once"
            )


def _splits(entries: Sequence[Entry], keys: Sequence[str], group: str | None, *, val_fraction: float) -> list[str]:
    """Each video's split: as annotated, or val for a fraction of them."""
    given = [entry.split for entry in entries if entry.split is not None]
    if len(given) == len(entries):
        if group is not None:
            raise UsageError("the annotations already say each video's split: leave --group away")
        return given
    if given:
        without = [entry for entry in entries if entry.split is None]
        raise UserError(
            f"{without[0].where}: no split{_and_more(len(without))}, but other rows have one: give it for all or none"
        )
    of_class: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for entry, key in zip(entries, keys, strict=True):
        of_class[entry.class_name].append((key, entry.path.rsplit("/", 1)[-1]))
    val = choose_val(of_class, val_fraction, group)
    return ["val" if key in val else "train" for key in keys]


def _and_more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
