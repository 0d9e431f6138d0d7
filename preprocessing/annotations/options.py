"""The options of `lgd preprocess` that say which videos there are and how they are labeled, and of `lgd splits`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from lgd.pipeline.console.errors import UsageError


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


@dataclass(frozen=True)
class SplitOptions:
    """What is added to the table of a dataset, or removed from it: at most one of the first five."""

    annotations: Annotated[Path | None, arg(metavar="PATH")] = None
    """Add the splits of lists in a format of `lgd preprocess`, such as the folder of UCF101's or HMDB51's: train1,
    test1, train2, ... Videos are found by their paths or keys."""
    csv: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    """Add the splits of a CSV file with the columns key (or path) and split: a row for each video of each split."""
    folds: int | None = None
    """Add the splits of a cross-validation with this many folds: fold1-train, fold1-test, ... Each class is divided
    evenly, as far as complete groups (--group, --group-csv) allow."""
    hold_out: Annotated[str | None, arg(metavar="SPLIT")] = None
    """Divide this split by groups into SPLIT-fit and SPLIT-held, which has a --fraction of its videos."""
    remove: Annotated[tuple[str, ...], arg(metavar="SPLIT ...")] = ()
    """Remove these splits from the table. Runs that use them cannot be resumed."""
    group: Annotated[str | None, arg(metavar="REGEX")] = None
    """For --folds and --hold-out: videos whose file names match it with the same text (of its group 1, if it has one)
    are one group, such as one person or one source. '.+' makes each file a group."""
    group_csv: Annotated[Path | None, arg(metavar="FILE.csv")] = None
    """Instead of --group: a CSV file with the columns key (or path) and group."""
    within: Annotated[str | None, arg(metavar="SPLIT")] = None
    """For --folds: only the videos of this split. Default: all videos with a label."""
    fold_name: Annotated[str, arg(metavar="NAME")] = "fold"
    """For --folds: what the names of the splits begin with."""
    fraction: float = 0.2
    """For --hold-out: fraction of the videos in SPLIT-held."""
    seed: int = 0
    """For --folds and --hold-out: another number gives another division."""
    split_number: int | None = None
    """For --annotations: only the split of UCF101 or HMDB51 with this number."""
    allow_missing: bool = False
    """For --annotations and --csv: leave out listed videos that the dataset lacks. Default: they are an error."""

    @property
    def changes(self) -> bool:
        """Whether something is added or removed. Raises UsageError for options that do not belong together."""
        modes = ("annotations", "csv", "folds", "hold_out", "remove")
        given = [name for name in modes if getattr(self, name) not in (None, ())]
        if len(given) > 1:
            raise UsageError(f"give one of {' and '.join(map(_option, given))} at a time")
        mode = given[0] if given else ""
        grouping = mode in ("folds", "hold_out")
        for name, used in (
            ("group", grouping),
            ("group_csv", grouping),
            ("within", mode == "folds"),
            ("split_number", mode == "annotations"),
        ):
            if getattr(self, name) is not None and not used:
                place = _option(mode) if mode else "the list of the splits"
                raise UsageError(f"{_option(name)} does not apply to {place}: see `lgd splits --help`")
        if self.allow_missing and mode not in ("annotations", "csv"):
            raise UsageError("--allow-missing applies to --annotations and --csv")
        if grouping and (self.group is None) == (self.group_csv is None):
            raise UsageError(
                f"{_option(mode)} needs --group REGEX or --group-csv FILE, one of them: videos of one source stay "
                "together (--group '.+' makes each file a group)"
            )
        return bool(given)


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")
