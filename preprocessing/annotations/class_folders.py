"""Annotations by folder: one folder per class, optionally inside one folder per split."""

import logging

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.entries import UNLABELLED_SPLIT, Annotations, Entry
from lgd.preprocessing.annotations.folder_layout import find_layout
from lgd.preprocessing.annotations.text_files import and_more
from lgd.preprocessing.video.files import VideoFiles

log = logging.getLogger(__name__)


def read_class_folders(files: VideoFiles, unlabelled: bool = False) -> Annotations:
    """Read one folder per class, with videos at any depth, or one folder per split of such folders.

    Splits are recognized by the usual names, such as `train`, `Validation` or `videos_test` (`find_layout`). Videos
    directly in the folder of the split test have no label if the other splits have class folders. unlabelled: take all
    videos that are not in a class folder as videos without a label.

    Raises UserError if there are no videos, if a video is outside the class folders, and for folders that look like
    splits but are not understood."""
    videos = files.folder.display()
    if not files.paths:
        raise UserError(
            f"{videos} contains no videos in class folders (videos have extensions such as .mp4, .avi or .webm)"
        )
    outside = [] if unlabelled else [path for path in files.paths if "/" not in path]
    if outside:
        raise UserError(
            f"{videos}: {outside[0]}{and_more(len(outside))} is not in a class folder: move each video into a folder "
            "named after its class, or give a CSV file with --annotations"
        )
    layout = find_layout(videos, files.paths, unlabelled)
    if files.other_files:
        ignored = f"{files.other_files[0]}{and_more(len(files.other_files))}"
        log.warning("%s: ignored, because the name is not that of a video: %s", videos, ignored)
    entries = []
    for path in files.paths:
        split, class_name = layout.place(path) if "/" in path else (UNLABELLED_SPLIT, None)
        entries.append(Entry(path, class_name, files.folder.display(path), 0, split))
    return Annotations(entries)
