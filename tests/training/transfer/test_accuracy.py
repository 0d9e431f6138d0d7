import pytest

from lgd.training.scoring.metrics import Metrics
from lgd.training.transfer.accuracy import (
    AllAccuracy,
    mean_accuracy,
    split_accuracy,
    std_accuracy,
    top1_rows,
    top1_table,
)


def metrics(top1: float, videos: int) -> Metrics:
    return {
        "top1": top1,
        "top5": 0.9,
        "mean_class": 0.5,
        "ece": 0.1,
        "nll": 1.0,
        "videos": videos,
        "intervals": {},
    }


def test_videos_that_were_not_scored_count_as_wrong_in_top1_all():
    accuracy = split_accuracy(metrics(0.75, 8), not_scored=2)
    assert (accuracy["top1"], accuracy["top1_all"], accuracy["videos"], accuracy["not_scored"]) == (0.75, 0.6, 8, 2)
    assert split_accuracy(metrics(0.7, 30), not_scored=0)["top1_all"] == 0.7


def test_mean_and_standard_deviation_with_n_minus_1():
    values: list[AllAccuracy] = [
        {"top1": top1, "top5": 1.0, "mean_class": top1 - 0.1, "top1_all": top1} for top1 in (0.971, 0.969, 0.97)
    ]
    assert mean_accuracy(values)["top1"] == pytest.approx(0.97, abs=1e-15)
    assert mean_accuracy(values)["mean_class"] == pytest.approx(0.87, abs=1e-15)
    assert std_accuracy(values)["top1"] == pytest.approx(0.001, abs=1e-15)
    assert std_accuracy(values)["top5"] == 0


def test_the_table_has_a_row_per_split_then_mean_and_standard_deviation():
    values: dict[str, dict[str, AllAccuracy]] = {
        str(n): {"rgb": {"top1": top1, "top5": 1.0, "mean_class": 1.0, "top1_all": top1}}
        for n, top1 in ((1, 0.971), (2, 0.969))
    }
    both = [row["rgb"] for row in values.values()]
    rows = top1_rows(values, {"rgb": mean_accuracy(both)}, {"rgb": std_accuracy(both)})
    table = top1_table({**rows, "paper": {"rgb": 0.97, "fused": 0.982}}, "split")
    cells = [list(column.cells) for column in table.columns]
    assert cells == [
        ["1", "2", "mean", "standard deviation", "paper"],
        ["97.1", "96.9", "97.0", "0.1", "97.0"],
        ["", "", "", "", "98.2"],
    ]
    assert list(top1_rows({"1": values["1"]}, values["1"], None)) == ["1"]
