"""The options of `lgd preprocess` that say which videos there are and how they are labeled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class AnnotationOptions:
    """Labels, splits and classes of the videos; see `lgd.preprocessing.annotations.read.read_manifest`."""

    annotations: Annotated[Path | None, arg(metavar="PATH")] = None
    """Source of the labels: a CSV file (path, label and optionally split, key, start_s, end_s), a Kinetics CSV file, or
    the folder of the lists of UCF101, HMDB51 or Kinetics. Default: the class folders."""
    classes: Annotated[Path | None, arg(metavar="FILE")] = None
    """Text file: one class per line, in the order of the labels. Default: sorted by name."""
    split_number: int | None = None
    """Number of the split of UCF101 or HMDB51. Default: 1."""
    group: Annotated[str | None, arg(metavar="REGEX")] = None
    """Regular expression: videos whose file names match it with the same text stay in the same split."""
    val_fraction: float = 0.2
    """Fraction of the videos in the split val, if the annotations give no splits."""
