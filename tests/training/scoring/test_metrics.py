import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lgd.training.scoring.metrics import (
    accuracy_table,
    calibration,
    confusion,
    intervals,
    mean_class_accuracy,
    negative_log_likelihood,
    per_class,
    ranks,
    summary,
    top_k,
)

INTERVALS = ("top1", "top5", "mean_class")
PROBABILITIES = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])


def drawn(videos: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that lean to the label, some of their probabilities equal; the last class does not occur."""
    source = np.random.default_rng(seed)
    labels = source.integers(0, classes - 1, videos)
    probabilities = np.round(source.dirichlet(np.ones(classes), videos) + 0.3 * np.eye(classes)[labels], 1) + 0.01
    return (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32), labels


def order(row: np.ndarray) -> list[int]:
    return sorted(range(len(row)), key=lambda c: (-float(row[c]), c))


def test_top_k_counts_labels_among_the_k_most_probable():
    labels = np.array([0, 2, 2, 2])
    assert top_k(PROBABILITIES, labels, 1) == 0.5
    assert top_k(PROBABILITIES, labels, 2) == 0.75
    assert top_k(PROBABILITIES, labels, 5) == 1


def test_a_network_that_says_nothing_is_right_only_for_the_first_classes():
    flat = np.full((10, 10), 0.1)
    assert top_k(flat, np.arange(10), 1) == 0.1
    assert top_k(flat, np.arange(10), 5) == 0.5


def test_mean_class_accuracy_weighs_classes_equally_and_skips_absent_ones():
    labels = np.array([0, 1, 1, 1])  # predicted 0, 1, 2, 0
    assert mean_class_accuracy(PROBABILITIES, labels) == pytest.approx((1 + 1 / 3) / 2)
    assert summary(PROBABILITIES, labels)["top1"] == 0.5


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(2, 8), st.integers(0, 999))
def test_every_number_equals_a_calculation_video_by_video(videos: int, classes: int, seed: int):
    probabilities, labels = drawn(videos, classes, seed)
    places = [order(row).index(label) for row, label in zip(probabilities, labels, strict=True)]
    assert ranks(probabilities, labels).tolist() == places
    matrix = [[0] * classes for _ in range(classes)]
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities, labels, strict=True):
        best = order(row)[0]
        matrix[label][best] += 1
        number = max(m for m in range(15) if m == 0 or float(row[best]) > m / 15)
        bins.setdefault(number, []).append((float(row[best]), best == label))
    assert confusion(probabilities, labels, classes).tolist() == matrix
    accuracies = [matrix[c][c] / sum(matrix[c]) for c in range(classes) if sum(matrix[c])]
    apart = [abs(sum(p for p, _ in each) - sum(right for _, right in each)) for each in bins.values()]
    numbers = summary(probabilities, labels)
    assert numbers["top1"] == pytest.approx(sum(place < 1 for place in places) / videos)
    assert numbers["top5"] == pytest.approx(sum(place < 5 for place in places) / videos)
    assert numbers["mean_class"] == pytest.approx(sum(accuracies) / len(accuracies))
    assert numbers["ece"] == pytest.approx(sum(apart) / videos)
    of_label = [float(row[label]) for row, label in zip(probabilities, labels, strict=True)]
    assert numbers["nll"] == pytest.approx(-sum(map(math.log, of_label)) / videos)
    assert numbers["videos"] == videos


def test_per_class_names_the_class_that_each_is_most_often_taken_for():
    predicted = [0, 1, 1, 2, 1, 1, 2]
    labels = np.array([0, 0, 0, 0, 1, 1, 3])
    table = per_class(np.eye(4)[predicted], labels, 4)
    assert table.videos.tolist() == [4, 2, 0, 1]
    assert table.right.tolist() == [1, 2, 0, 0]
    assert table.accuracy[[0, 1, 3]].tolist() == [0.25, 1, 0]
    assert np.isnan(table.accuracy[2])
    assert table.confused_with.tolist() == [1, -1, -1, 2]
    assert table.confused_videos.tolist() == [2, 0, 0, 1]


def test_calibration_bins_are_closed_at_their_upper_edges():
    confidence = np.array([0.5, 0.75, 0.75, 0.76, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    found = calibration(probabilities, np.array([0, 0, 1, 1, 0]), bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.count.tolist() == [0, 1, 2, 2]
    assert np.isnan(found.accuracy[0])
    assert found.accuracy[1:].tolist() == [1, 0.5, 0.5]
    assert found.confidence[1:].tolist() == pytest.approx([0.5, 0.75, 0.88])
    assert found.error == pytest.approx((0.5 * 1 + 0.25 * 2 + 0.38 * 2) / 5)


def test_a_probability_of_zero_costs_a_finite_likelihood():
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(87.34, abs=0.01)


def test_intervals_are_those_of_videos_drawn_one_by_one():
    probabilities, labels = drawn(120, 8, seed=5)
    rank = ranks(probabilities, labels)
    places, of = rank.tolist(), labels.tolist()
    source = random.Random(1)
    samples: dict[str, list[float]] = {name: [] for name in INTERVALS}
    for _ in range(3000):
        rows = source.choices(range(120), k=120)
        samples["top1"].append(sum(places[row] < 1 for row in rows) / 120)
        samples["top5"].append(sum(places[row] < 5 for row in rows) / 120)
        of_class: dict[int, list[bool]] = {}
        for row in rows:
            of_class.setdefault(of[row], []).append(places[row] < 1)
        samples["mean_class"].append(sum(sum(each) / len(each) for each in of_class.values()) / len(of_class))
    found = intervals(rank, labels, resamples=3000)
    for name, values in samples.items():
        values.sort()
        assert found[name] == pytest.approx([values[75], values[-75]], abs=0.012), name
    assert intervals(rank, labels) == intervals(rank, labels)


def test_intervals_narrow_with_the_root_of_the_number_of_videos():
    probabilities, labels = drawn(100, 6)
    few, many = (summary(np.tile(probabilities, (n, 1)), np.tile(labels, n)) for n in (1, 100))
    assert many["top1"] == pytest.approx(few["top1"])
    width = [high - low for low, high in (each["intervals"]["top1"] for each in (few, many))]
    assert width[0] / width[1] == pytest.approx(10, rel=0.15)
    assert few["intervals"]["top1"][0] < few["top1"] < few["intervals"]["top1"][1]


def test_the_table_says_every_number_and_fits_80_columns():
    numbers = {**summary(*drawn(50, 6)), "top1": 0.9, "intervals": {name: [0.7, 0.95] for name in INTERVALS}}
    console = Console(width=80)
    with console.capture() as captured:
        console.print(accuracy_table({"rgb-val.parquet": numbers}))
    line = next(line for line in captured.get().splitlines() if "rgb-val.parquet" in line)
    assert "90.0% ±20.0" in line
    assert f"{numbers['top5']:.1%}" in line
    assert f"{numbers['mean_class']:.1%}" in line
    assert f"{numbers['ece']:.3f}" in line
    assert " 50 " in line
