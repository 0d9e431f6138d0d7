"""Use of some classes of a dataset, such as those of mini-Kinetics: videos of other classes are left out, and the label
of a video is the number of its class in the list of selected classes."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import ClassSelection, Dataset
from lgd.pipeline.dataset.split_table import SplitCounts, read_split_table, shown

NOT_SELECTED = -2  # label of a video that is left out; UNLABELLED is -1


def select_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Return the dataset with only these classes, whose order decides the labels.

    Without change of the classes, the dataset itself. Otherwise videos without a label are left out as well: nobody
    knows whether they are of these classes.
    The letters of a name may be composed or not. Raises UserError for a class that the dataset does not have."""
    spelled = {unicodedata.normalize("NFC", name): name for name in dataset.stored_classes}
    names = tuple(spelled.get(unicodedata.normalize("NFC", name), name) for name in classes)
    if names == dataset.stored_classes:
        return replace(dataset, classes=names, selection=None)
    if unknown := [name for name in names if name not in set(dataset.stored_classes)]:
        raise UserError(
            f"{dataset.storage.display()} does not have {len(unknown)} of the {len(names)} selected classes: "
            f"{shown(unknown)}: give the names as `lgd splits` prints them"
        )
    selected = dataset.videos(["key", "split", "class"])
    selected = selected.filter(pc.is_in(selected.column("class"), pa.array(names, pa.string())))
    own = {row["values"]: row["counts"] for row in pc.value_counts(selected.column("split")).to_pylist()}
    splits = {name: SplitCounts(own.get(name, 0)) for name in dataset.own_splits}
    members = read_split_table(dataset.storage).members if dataset.table_splits else {}
    for name, counts in dataset.table_splits.items():
        inside = pc.sum(pc.is_in(selected.column("key"), members[name])).as_py() if name in members else 0
        splits[name] = SplitCounts(inside or 0, 0, counts.hash)
    return replace(dataset, classes=names, selection=ClassSelection(dataset.stored_classes, splits))


def selected_labels(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Return the labels of videos by the selected classes (int32), NOT_SELECTED for those that are left out; without a
    selection, the stored labels as they are. stored: int32, labels by `dataset.stored_classes`, -1 without a label."""
    if dataset.selection is None:
        return stored
    numbers = {name: number for number, name in enumerate(dataset.classes)}
    labels = [numbers.get(name, NOT_SELECTED) for name in dataset.stored_classes]
    selected: np.ndarray = np.array([*labels, NOT_SELECTED], np.int32)[stored]  # -1, no label, is the last one
    return selected
