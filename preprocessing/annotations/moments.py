"""Annotations of Moments in Time: trainingSet.csv and validationSet.csv, with moments_categories.txt."""

import re
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.class_list import read_classes
from lgd.preprocessing.annotations.entries import Annotations, Entry
from lgd.preprocessing.annotations.named_files import locate, relative_path
from lgd.preprocessing.annotations.split_names import split_in_name
from lgd.preprocessing.annotations.video_lists import read_rows
from lgd.preprocessing.video.files import VideoFiles

CATEGORIES = "moments_categories.txt"


def read_moments(files: VideoFiles, file: Path, classes: Path | None) -> Annotations:
    """Read rows `path,label,count,count`: the counts of people who agreed and disagreed with the label are not used.

    Videos are found as `training/PATH`, `validation/PATH` or `PATH`. The classes are those of `classes` (the file of
    --classes), or of moments_categories.txt in the folder of the list.
    Raises UserError for a row of a different form."""
    split = split_in_name(file.stem)
    entries = []
    for line, (path, label, *counts) in read_rows(file, 4):
        if not all(re.fullmatch(r"\d+", count) for count in counts):
            raise UserError(f"{file} line {line}: expected two counts after the label, not {','.join(counts)!r}")
        inside = relative_path(files.folder, path)
        if inside is None:
            raise UserError(f"{file} line {line}: {path} is outside {files.folder.display()}")
        found = locate(files, inside, split)
        entries.append(Entry(found or inside, label, file, line, split, missing=found is None, listed=inside))
    source = classes or file.parent / CATEGORIES
    return Annotations(entries, read_classes(source), source) if source.exists() else Annotations(entries)
