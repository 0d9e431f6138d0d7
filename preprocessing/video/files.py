"""The video files in a folder or an object store.

They are listed once: asking a network file system about each of 240,000 names takes hours.
"""

import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import TEMPORARY, Storage, disk_errors
from lgd.preprocessing.video.rejections import Rejected

EXTENSIONS = re.compile(
    r"\.(3g2|3gp|asf|avi|divx|dv|f4v|flv|gif|m2ts|m2v|m4v|mjpe?g|mkv|mov|mp4|mpe?g|mts|mxf|og[mv]|qt|rm|rmvb|ts|vob"
    r"|webm|wmv|y4m)$",
    re.IGNORECASE,
)


class VideoFiles:
    """The files below a folder, listed on first use. Symbolic links are followed, hidden files are skipped.

    On first use, raises UserError for an unreadable folder and for names that are not UTF-8.
    """

    def __init__(self, folder: Storage) -> None:
        self.folder = folder

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Files with the extension of a video: relative paths with forward slashes, sorted."""
        return tuple(path for path in self._visible if EXTENSIONS.search(path))

    @cached_property
    def other_files(self) -> tuple[str, ...]:
        """All other files, sorted."""
        return tuple(path for path in self._visible if not EXTENSIONS.search(path))

    def exists(self, path: str) -> bool:
        """Return whether a file of that path exists, hidden or not."""
        return path in self._listed or (self.folder.local and os.path.isfile(self.folder.path(path)))

    def spelled(self, path: str) -> str | None:
        """Return the path of the file as the file system spells it, or None if it does not exist.

        A listed path may differ in spaces around it and in the form of its letters (`composed`)."""
        return path if self.exists(path) else self._spellings.get(composed(path.strip()))

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {composed(path.strip()): path for path in sorted(self._listed, reverse=True)}

    @cached_property
    def _visible(self) -> list[str]:
        return sorted(path for path in self._listed if not path.startswith(".") and "/." not in path)

    @cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(_list_local(self.folder) if self.folder.local else self.folder.list_all())

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """The paths, sorted, by composed file name without extensions: downloaders write x.mp4.webm."""
        stems: dict[str, list[str]] = {}
        for path in self.paths:
            stems.setdefault(composed(stem_of(path)), []).append(path)
        return stems

    def find(self, stem: str, class_name: str | None, split: str | None) -> str | None:
        """Return the path of the file with that name, or None.

        Of several files, one in a folder of the class is preferred, then one in a folder of the split, then the first.
        Folders may spell a class with spaces or underscores, and may be named `val_256` for the split val.
        """
        candidates = self.by_stem.get(composed(stem), [])
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        class_words = _words(class_name or "")

        def rank(path: str) -> tuple[bool, bool]:
            folders = [_words(part) for part in path.split("/")[:-1]]
            return class_words not in folders, split not in [words.split(" ")[0] for words in folders]

        return min(candidates, key=rank)


def _words(text: str) -> str:
    """Return the text in lower case with single spaces in place of all separators."""
    return re.sub(r"[\W_]+", " ", composed(text).casefold()).strip()


def composed(text: str) -> str:
    """Return a name with composed letters (Unicode NFC): file systems and lists spell the same name in two ways."""
    return unicodedata.normalize("NFC", text)


def stem_of(path: str) -> str:
    """Return the file name without its video extensions."""
    name = path.rsplit("/", 1)[-1]
    while EXTENSIONS.search(name):
        name = os.path.splitext(name)[0]
    return name


def _list_local(videos: Storage) -> list[str]:
    """Return the relative paths of all files that are not hidden, in any order."""
    folder = Path(videos.path())
    found = []
    pending = [("", frozenset[tuple[int, int]]())]
    while pending:
        inside, parents = pending.pop()
        try:
            status = os.stat(folder / inside)
            current = (status.st_dev, status.st_ino)
            if current in parents:
                continue  # a symbolic link to a folder that contains it
            with os.scandir(folder / inside) as items:
                for item in items:
                    if item.name.startswith("."):
                        continue
                    path = f"{inside}/{item.name}" if inside else item.name
                    if item.is_dir():
                        pending.append((path, parents | {current}))
                    else:
                        found.append(path)
        except OSError as error:
            raise UserError(f"{videos.display(inside)} cannot be read: {error.strerror}") from error
    for path in found:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{videos.display()}: the file name {os.fsencode(path)!r} is not UTF-8; rename the file"
            ) from None
    return found


@contextmanager
def local_file(videos: Storage, path: str) -> Iterator[Path]:
    """Yield a video as a local file: itself if the storage is local, else a copy that is deleted when the block ends.

    Raises Rejected ("missing") if a remote video does not exist, and UserError if the temporary folder is full.
    """
    if videos.local:
        yield Path(videos.path(path))
        return
    copying = disk_errors(
        f"in {tempfile.gettempdir()} (set TMPDIR for another folder), where a copy of {videos.display(path)} is kept"
    )
    with tempfile.NamedTemporaryFile(prefix=TEMPORARY) as file:
        with copying:
            try:
                for block in videos.blocks(path):
                    file.write(block)
            except FileNotFoundError as error:
                raise Rejected("missing", f"the file {path} does not exist") from error
            file.flush()
        yield Path(file.name)
