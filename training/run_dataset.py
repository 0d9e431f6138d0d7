"""The dataset of a run: with the classes that the run selects, and with the splits that it began with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.class_selection import select_classes
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.splits import check_has_split, common_keys
from lgd.pipeline.storage.storage import Storage
from lgd.training.recipes import TrainConfig
from lgd.training.run import CONFIG, Run, check_splits, open_run


def dataset_for(
    folder: str, config: TrainConfig, dataset: Dataset, *, read: Callable[[Path], tuple[str, ...]]
) -> Dataset:
    """Return the dataset with the classes of --classes, before the run in `folder` is created or opened.

    read: reads a file of class names. The run keeps its classes: if the file does not exist any more, those are used.
    Raises UserError if there is neither, and for a class that the dataset does not have."""
    if config.classes is None:
        return dataset
    file = Path(config.classes)
    if not file.exists() and Storage(folder).exists(CONFIG) and (run := open_run(folder)).config.classes is not None:
        say(f"--classes {file} does not exist any more: using the {len(run.classes)} classes that {folder} keeps")
        return select_classes(dataset, run.classes)
    if not file.exists():
        raise UserError(f"--classes {file} does not exist: give a text file with one class name per line")
    return select_classes(dataset, read(file))


def dataset_of(run: Run, dataset: Dataset) -> Dataset:
    """Return the dataset with the classes that a run selects; the dataset itself if it selects none."""
    return dataset if run.config.classes is None else select_classes(dataset, run.classes)


def training_dataset(run: Run, dataset: Dataset) -> Dataset:
    """Return the dataset that a run is trained on, with its classes.

    Raises UserError if a split that the run uses has other videos than when the run began."""
    check_splits(run, replace(run, splits=run.used_splits(dataset)))
    return dataset_of(run, dataset)


def warn_if_trained_on(run: Run, dataset: Dataset, split: str) -> None:
    """Print a line if videos of a split that is scored are those that the run was trained on.

    dataset: with the classes of the run. A different dataset is not compared."""
    trained = run.config.split
    if run.fingerprint != dataset.fingerprint or run.splits.get(trained) != dataset.split_hash(trained):
        return
    if trained == split:
        say(
            f"the split {split} is the one that {run.storage.display()} was trained on: its accuracy does not describe "
            "other videos"
        )
        return
    if not {trained, split} & dataset.table_splits.keys() or not dataset.splits.get(trained):
        return  # the shards' own splits have no video in common
    check_has_split(dataset, trained)
    if both := common_keys(dataset, trained, split):
        say(
            f"{len(both)} of the {dataset.splits[split].videos} videos of the split {split} are in {trained}, which "
            f"{run.storage.display()} was trained on: the accuracy does not describe other videos"
        )
