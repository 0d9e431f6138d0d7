"""What a dataset holds, as the report shows it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.inspection.describe import describe


@dataclass(frozen=True)
class DatasetSummary:
    """about: as `describe` gives it. by_class: videos of each class by split, int64. smallest, largest: a class name
    and its videos. lengths: of each video, seconds. saturated: of each video the fraction of flow vectors beyond the
    bound, None without flow."""

    about: dict[str, Any]
    fingerprint: str
    by_class: dict[str, np.ndarray]
    smallest: tuple[str, int]
    largest: tuple[str, int]
    lengths: np.ndarray
    saturated: np.ndarray | None


def dataset_summary(dataset: Dataset) -> DatasetSummary:
    """Raises UserError for a dataset none of whose streams is finished."""
    about = describe(dataset)
    flow = "flow" in about["streams"]
    table = dataset.videos(["label", "split", "frames", *(["flow_saturated"] if flow else [])])
    labels = table["label"].to_numpy()
    counts = {
        split: np.bincount(labels[pc.equal(table["split"], split).to_numpy()], minlength=len(dataset.classes))
        for split in about["splits"]
    }
    together = np.sum(list(counts.values()), axis=0, dtype=np.int64) * np.ones(len(dataset.classes), np.int64)
    fps = float(next(iter(about["streams"].values()))["recipe"]["fps"])
    extremes = [(dataset.classes[number], int(together[number])) for number in (together.argmin(), together.argmax())]
    return DatasetSummary(
        about,
        dataset.fingerprint,
        counts,
        extremes[0],
        extremes[1],
        table["frames"].to_numpy() / fps,
        table["flow_saturated"].to_numpy() if flow else None,
    )
