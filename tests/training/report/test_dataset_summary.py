"""The numbers of a dataset in the report."""

from lgd.pipeline.dataset.dataset import Dataset
from lgd.training.report.dataset_summary import dataset_summary


def test_videos_are_counted_by_class_and_split(dataset: Dataset):
    summary = dataset_summary(dataset)
    assert {split: counts.tolist() for split, counts in summary.by_class.items()} == {"train": [2] * 6, "val": [1] * 6}
    assert (summary.smallest, summary.largest) == (("down", 3), ("down", 3))
    assert summary.lengths.tolist() == [1.6] * 18


def test_videos_without_a_label_are_in_no_class_but_have_a_length(unlabelled_dataset: Dataset):
    summary = dataset_summary(unlabelled_dataset)
    by_class = {split: counts.tolist() for split, counts in summary.by_class.items()}
    assert by_class == {"test": [0, 0], "train": [1, 1], "val": [0, 1]}
    assert (summary.smallest, summary.largest) == (("down", 1), ("up", 2))
    assert len(summary.lengths) == 6
