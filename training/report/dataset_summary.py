"""Numbers that describe a dataset in the report."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.inspection.describe import DatasetDescription, describe


@dataclass(frozen=True)
class DatasetSummary:
    """Contents of a dataset.

    description: the result of `describe`. by_class: split of the shards -> labeled videos of each class, int64.
    smallest, largest: a class name and its number of videos. lengths: seconds of each video. saturated:
    for each video the fraction of flow vectors beyond the bound; None without flow."""

    description: DatasetDescription
    fingerprint: str
    by_class: dict[str, np.ndarray]
    smallest: tuple[str, int]
    largest: tuple[str, int]
    lengths: np.ndarray
    saturated: np.ndarray | None


def dataset_summary(dataset: Dataset) -> DatasetSummary:
    """Return the numbers of a dataset. Raises UserError if none of its streams is complete."""
    description = describe(dataset)
    has_flow = "flow" in description.streams
    table = dataset.videos(["label", "split", "frames", *(["flow_saturated"] if has_flow else [])])
    labeled = table.filter(pc.is_valid(table["label"]))
    labels = labeled["label"].to_numpy()
    by_class = {
        split: np.bincount(labels[pc.equal(labeled["split"], split).to_numpy()], minlength=len(dataset.classes))
        for split in dataset.own_splits
    }
    videos = np.sum(list(by_class.values()), axis=0, dtype=np.int64) * np.ones(len(dataset.classes), np.int64)
    fps = float(next(iter(description.streams.values())).spec["fps"])
    smallest, largest = ((dataset.classes[label], int(videos[label])) for label in (videos.argmin(), videos.argmax()))
    return DatasetSummary(
        description,
        dataset.fingerprint,
        by_class,
        smallest,
        largest,
        table["frames"].to_numpy() / fps,
        table["flow_saturated"].to_numpy() if has_flow else None,
    )
