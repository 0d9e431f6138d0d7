"""The video files in a folder, listed once: asking a network file system about each of 240,000 names takes hours."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from pipeline.errors import UserError
from pipeline.storage import Storage

EXTENSIONS = re.compile(
    r"\.(3g2|3gp|asf|avi|divx|dv|f4v|flv|gif|m2ts|m2v|m4v|mjpe?g|mkv|mov|mp4|mpe?g|mts|mxf|og[mv]|qt|rm|rmvb|ts|vob"
    r"|webm|wmv|y4m)$",
    re.IGNORECASE,
)


class VideoFiles:
    """Files below a folder, symbolic links followed, hidden ones left out.

    paths: those named as videos, relative and posix, sorted; others: the rest, sorted.
    """

    def __init__(self, folder: Path) -> None:
        """Raises UserError for an unreadable folder and for names that are not UTF-8."""
        self.folder = folder
        files = sorted(_walk(folder))
        self.paths = tuple(path for path in files if EXTENSIONS.search(path))
        self.others = tuple(path for path in files if not EXTENSIONS.search(path))

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """name without its extension (or extensions: downloaders write x.mp4.webm) -> paths, sorted."""
        stems: dict[str, list[str]] = {}
        for path in self.paths:
            stems.setdefault(stem_of(path), []).append(path)
        return stems

    def find(self, stem: str, class_name: str, split: str | None) -> str | None:
        """The file of that name, of several the one in the folder of the class, then of the split, then the first.

        Folders may spell a class with spaces or underscores, and may be named `val_256` for a split val.
        """
        candidates = self.by_stem.get(stem, [])
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        wanted = _words(class_name)

        def rank(path: str) -> tuple[bool, bool]:
            folders = [_words(part) for part in path.split("/")[:-1]]
            return wanted not in folders, split not in [words.split(" ")[0] for words in folders]

        return min(candidates, key=rank)


def _words(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def stem_of(path: str) -> str:
    """The file name without the extensions that name a video."""
    name = path.rsplit("/", 1)[-1]
    while EXTENSIONS.search(name):
        name = os.path.splitext(name)[0]
    return name


def _walk(folder: Path) -> list[str]:
    found = []
    pending = [("", frozenset[tuple[int, int]]())]
    while pending:
        inside, above = pending.pop()
        try:
            status = os.stat(folder / inside)
            here = (status.st_dev, status.st_ino)
            if here in above:
                continue  # a symbolic link to a folder that it lies in
            with os.scandir(folder / inside) as items:
                for item in items:
                    if item.name.startswith("."):
                        continue
                    path = f"{inside}/{item.name}" if inside else item.name
                    if item.is_dir():
                        pending.append((path, above | {here}))
                    else:
                        found.append(path)
        except OSError as error:
            raise UserError(f"{folder / inside} cannot be read: {error.strerror}") from error
    for path in found:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise UserError(f"{folder}: the file name {os.fsencode(path)!r} is not UTF-8: rename it") from None
    return found


@contextmanager
def local_file(videos: Storage, path: str) -> Iterator[Path]:
    yield Path(videos.path(path))
