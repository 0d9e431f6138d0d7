"""Files by their names: the video of a listed path, the class names in the folder of a list."""

import posixpath
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.class_list import read_classes
from lgd.preprocessing.annotations.split_names import split_in_name
from lgd.preprocessing.video.files import VideoFiles, composed, stem_of


def relative_path(videos: Storage, path: str) -> str | None:
    """Return the path relative to the folder of videos, or None if it is outside that folder.

    Only the text of the path decides: a symbolic link inside the folder was created by its owner and may point
    anywhere, but a list comes from someone else and may not."""
    if not videos.local:
        path = path.removeprefix(f"{videos.root.partition('://')[0]}://{videos.path()}/")
    elif posixpath.isabs(path):
        path = posixpath.relpath(path, videos.path())
    path = posixpath.normpath(path)
    return None if path in (".", "..") or path.startswith(("../", "/")) or "\0" in path else path


def locate(files: VideoFiles, path: str, split: str | None) -> str | None:
    """Return the path of a listed video in the folder of videos, or None if it is missing.

    The file may have another video extension, and may be inside other folders, such as `videos_train`; of several, the
    one in a folder of the split counts. The folders of the listed path have to match.
    Raises UserError if several files match and the split does not decide."""
    if spelled := files.spelled(path):
        return spelled
    ending = f"/{composed(_without_extension(path))}"
    same_name = files.by_stem.get(composed(stem_of(path)), [])
    found = [each for each in same_name if f"/{composed(_without_extension(each))}".endswith(ending)]
    if len(found) > 1 and split is not None:
        found = [each for each in found if split in map(split_in_name, each.split("/")[:-1])] or found
    if len(found) > 1:
        raise UserError(f"{files.folder.display()} has several files for {path}, such as {found[0]} and {found[1]}")
    return found[0] if found else None


def _without_extension(path: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{stem_of(path)}"


def find_label_map(folder: Path) -> Path | None:
    """Return the file with the class names of numbered labels (`label_map*.txt`) in a folder, or None.

    Raises UserError if there are several."""
    found = sorted(file for file in folder.glob("*.txt") if "label_map" in file.name.lower())
    if len(found) > 1:
        names = " and ".join(file.name for file in found[:2])
        raise UserError(f"{folder} contains several label maps, such as {names}: give the right one with --classes")
    return found[0] if found else None


class LabelNames:
    """Names of numbered labels, from 0: of --classes, of the label map in the folder of the list, or the numbers."""

    def __init__(self, source: Path | None, names: tuple[str, ...] | None) -> None:
        self.source, self.names = source, names

    @classmethod
    def beside(cls, file: Path, classes: Path | None) -> "LabelNames":
        """Read the names for the list `file`. classes: the file of --classes, which has precedence.

        Raises UserError if a file with names cannot be read."""
        source = classes or find_label_map(file.parent)
        return cls(source, read_classes(source) if source else None)

    def name(self, label: int, where: str) -> str:
        """Return the name of a label. where: its place, for the message.

        Raises UserError if there are fewer names."""
        if self.names is None and label >= 0:
            return str(label)
        if self.names is None:
            raise UserError(f"{where}: the label {label} is negative: labels are numbers from 0")
        if not 0 <= label < len(self.names):
            raise UserError(
                f"{where}: the label {label} has no name: {self.source} lists {len(self.names)} classes, which are the "
                f"labels 0 to {len(self.names) - 1}"
            )
        return self.names[label]
