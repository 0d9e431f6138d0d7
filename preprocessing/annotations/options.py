"""The options of `lgd preprocess` that say which videos there are and how they are labeled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class AnnotationOptions:
    """Labels, splits and classes of the videos; see `lgd.preprocessing.annotations.read.read_manifest`."""

    annotations: Annotated[Path | None, arg(metavar="PATH")] = None
    """Source of the labels: a CSV file (path, label and optionally split, group, key, start_s, end_s), a list or folder
    of lists of Kinetics, UCF101, HMDB51, mmaction2, SlowFast, Moments in Time or AVA-Kinetics, or a JSON file of
    ActivityNet or Diving48; the format is recognized by the content. Default: the class folders."""
    classes: Annotated[Path | None, arg(metavar="FILE")] = None
    """Text file: one class per line, in the order of the labels; names numbered labels. Default: the file beside the
    annotations (classInd.txt, label_map*.txt, moments_categories.txt, Diving48_vocab.json), or sorted by name."""
    split_number: int | None = None
    """Number of the split of UCF101 or HMDB51: only its videos, in the splits train and test. Default: the videos of
    all lists in the folder, once, in the split all; train1, test1, ... are rows of the table splits.parquet."""
    group: Annotated[str | None, arg(metavar="REGEX")] = None
    """Regular expression: videos whose file names match it with the same text stay in the same split."""
    unlabelled: bool = False
    """Take videos without a label: rows of a CSV file without one, and videos outside of class folders. They are stored
    and scored, but not trained on; without a split, they are in the split test. Kinetics lists may always have them in
    the split test."""
    val_fraction: float = 0.2
    """Fraction of the videos in the split val, if the annotations give no splits."""
