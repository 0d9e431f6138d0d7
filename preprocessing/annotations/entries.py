"""Annotations as a reader of one format returns them: before keys, labels and splits are complete."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lgd.preprocessing.video.files import composed

NAME = re.compile(r"[A-Za-z0-9_-]+")  # valid keys and splits
MAX_KEY_CHARACTERS = 120
UNLABELLED_SPLIT = "test"  # of videos without a label, if the annotations do not give their split


@dataclass(slots=True)
class Entry:
    """One annotated video.

    path: relative to the folder of videos, with forward slashes; of a missing file, the path that was looked for.
    class_name: None for a video without a label. file, line: where the annotation is, for messages (line 0: the file
    itself). split, key, group: None if the annotations do not give them; videos of one group stay in one split.
    start_s, end_s: the annotated interval, None if it starts or ends with the video. missing: the file does not exist.
    listed: the path in the annotations, if the file spells it differently. splits: the splits of the table that the
    video is in, if the annotations are of several splits (`all_splits`); None for annotations of one."""

    path: str
    class_name: str | None
    file: Path | str
    line: int = 0
    split: str | None = None
    key: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    missing: bool = False
    group: str | None = None
    listed: str | None = None
    splits: tuple[str, ...] | None = None

    @property
    def where(self) -> str:
        """The place of the annotation, for messages."""
        return f"{self.file} line {self.line}" if self.line else str(self.file)


class Annotations(NamedTuple):
    """What a reader returns. classes: in the order of their labels; None if the format does not list them.
    classes_file: the file that lists them beside the annotations, if there is one."""

    entries: list[Entry]
    classes: tuple[str, ...] | None = None
    classes_file: Path | None = None


def safe_key(text: str) -> str:
    """Return a key with letters, digits, _ and - only: accents are dropped, slashes become -, the rest becomes _."""
    text = composed(text)  # for the hash
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    key = re.sub(r"[^A-Za-z0-9_-]+", "_", plain.replace("/", "-"))
    if len(key) > MAX_KEY_CHARACTERS or not key.strip("_-"):
        key = f"{key[: MAX_KEY_CHARACTERS - 20]}-{short_hash(text)}".lstrip("_-")
    return key


def short_hash(text: str) -> str:
    """Return 10 hexadecimal digits that depend on the text."""
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()
