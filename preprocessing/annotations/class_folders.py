"""Annotations by folder: one folder per class, optionally inside one folder per split."""

import logging

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.entries import Annotations, Entry
from lgd.preprocessing.annotations.text_files import and_more
from lgd.preprocessing.video.files import VideoFiles

# Top-level folders with these names, and no others, contain the class folders of one split each.
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

log = logging.getLogger(__name__)


def read_class_folders(files: VideoFiles) -> Annotations:
    """Read one folder per class, with videos at any depth, or `train` and `val` (and `test`) folders of such folders.

    Raises UserError if there are no videos or if a video is outside the class folders."""
    videos = files.folder.display()
    top_folders = {path.split("/")[0] for path in files.paths if "/" in path}
    by_split = (
        "train" in top_folders
        and top_folders <= SPLIT_FOLDERS.keys()
        and all(path.count("/") > 1 for path in files.paths)
    )
    depth = 1 if by_split else 0
    outside = [path for path in files.paths if path.count("/") <= depth]
    if outside:
        raise UserError(
            f"{videos}: {outside[0]}{and_more(len(outside))} is not in a class folder: move each video into a folder "
            "named after its class, or give a CSV file with --annotations"
        )
    if not files.paths:
        raise UserError(
            f"{videos} contains no videos in class folders (videos have extensions such as .mp4, .avi or .webm)"
        )
    if files.other_files:
        ignored = f"{files.other_files[0]}{and_more(len(files.other_files))}"
        log.warning("%s: ignored, because the name is not that of a video: %s", videos, ignored)
    entries = []
    for path in files.paths:
        parts = path.split("/")
        split = SPLIT_FOLDERS[parts[0]] if by_split else None
        entries.append(Entry(path, parts[depth], files.folder.display(path), 0, split))
    return Annotations(entries)
