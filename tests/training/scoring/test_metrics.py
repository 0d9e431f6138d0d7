import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.training.scoring.metrics import (
    ACCURACIES,
    Metrics,
    accuracy_table,
    bootstrap_interval,
    calibration,
    confusion,
    mean_class_accuracy,
    negative_log_likelihood,
    per_class,
    ranks,
    scores_summary,
    summary,
    top_k,
    wilson_interval,
)
from tests.training.scoring.test_scores import random_scores

PROBABILITIES = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])


def random_predictions(videos: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that tend to the label, some with equal probabilities; the last class has no videos."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes - 1, videos)
    probabilities = np.round(generator.dirichlet(np.ones(classes), videos) + 0.3 * np.eye(classes)[labels], 1) + 0.01
    return (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32), labels


def ranked_classes(row: np.ndarray) -> list[int]:
    return sorted(range(len(row)), key=lambda c: (-float(row[c]), c))


def test_top_k_counts_labels_among_the_k_most_probable():
    labels = np.array([0, 2, 2, 2])
    assert top_k(PROBABILITIES, labels, 1) == 0.5
    assert top_k(PROBABILITIES, labels, 2) == 0.75
    assert top_k(PROBABILITIES, labels, 5) == 1


def test_equal_probabilities_are_right_only_for_the_first_classes():
    flat = np.full((10, 10), 0.1)
    assert top_k(flat, np.arange(10), 1) == 0.1
    assert top_k(flat, np.arange(10), 5) == 0.5


def test_mean_class_accuracy_weights_classes_equally_and_skips_classes_without_videos():
    labels = np.array([0, 1, 1, 1])  # predicted 0, 1, 2, 0
    assert mean_class_accuracy(PROBABILITIES, labels) == pytest.approx((1 + 1 / 3) / 2)
    assert summary(PROBABILITIES, labels)["top1"] == 0.5


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(2, 8), st.integers(0, 999))
def test_every_number_equals_a_calculation_video_by_video(videos: int, classes: int, seed: int):
    probabilities, labels = random_predictions(videos, classes, seed)
    places = [ranked_classes(row).index(label) for row, label in zip(probabilities, labels, strict=True)]
    assert ranks(probabilities, labels).tolist() == places
    matrix = [[0] * classes for _ in range(classes)]
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities, labels, strict=True):
        best = ranked_classes(row)[0]
        matrix[label][best] += 1
        number = max(m for m in range(15) if m == 0 or float(row[best]) > m / 15)
        bins.setdefault(number, []).append((float(row[best]), best == label))
    assert confusion(probabilities, labels, classes).tolist() == matrix
    accuracies = [matrix[c][c] / sum(matrix[c]) for c in range(classes) if sum(matrix[c])]
    gaps = [abs(sum(p for p, _ in each) - sum(right for _, right in each)) for each in bins.values()]
    metrics = summary(probabilities, labels)
    assert metrics["top1"] == pytest.approx(sum(place < 1 for place in places) / videos)
    assert metrics["top5"] == pytest.approx(sum(place < 5 for place in places) / videos)
    assert metrics["mean_class"] == pytest.approx(sum(accuracies) / len(accuracies))
    assert metrics["ece"] == pytest.approx(sum(gaps) / videos)
    label_probability = [float(row[label]) for row, label in zip(probabilities, labels, strict=True)]
    assert metrics["nll"] == pytest.approx(-sum(map(math.log, label_probability)) / videos)
    assert metrics["videos"] == videos


def test_per_class_names_the_most_frequent_wrong_prediction():
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


@pytest.mark.parametrize(
    ("right", "videos", "low", "high"),
    [
        (18, 18, 0.8241, 1),
        (9, 10, 0.5958, 0.9821),
        (0, 5, 0, 0.4345),
        (1, 1, 0.2065, 1),
        (500, 1000, 0.4691, 0.5309),
    ],
)
def test_wilson_intervals_equal_published_values(right: int, videos: int, low: float, high: float):
    assert wilson_interval(right, videos) == pytest.approx([low, high], abs=5e-5)
    if right == videos:
        assert wilson_interval(right, videos)[1] == 1
    if right == 0:
        assert wilson_interval(right, videos)[0] == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.floats(0, 1))
def test_the_ends_of_a_wilson_interval_solve_the_equation_of_the_score_test(videos: int, fraction: float):
    right = round(fraction * videos)
    accuracy = right / videos
    low, high = wilson_interval(right, videos)
    assert 0 <= low <= accuracy <= high <= 1
    assert high - low > 0
    for end in (low, high):  # |accuracy - end| is 1.96 standard errors, computed at the end of the interval
        if 0 < end < 1:
            z = abs(accuracy - end) / math.sqrt(end * (1 - end) / videos)
            assert z == pytest.approx(1.959964, rel=1e-4)


def test_correct_predictions_of_18_videos_leave_a_doubt():
    labels = np.arange(18) % 6
    metrics = summary(np.eye(6)[labels], labels)
    assert metrics["top1"] == metrics["top5"] == metrics["mean_class"] == 1
    assert metrics["intervals"]["top1"] == pytest.approx([0.8241, 1], abs=5e-5)
    assert metrics["intervals"]["top5"] == pytest.approx([0.8241, 1], abs=5e-5)


def test_intervals_of_top_1_and_top_5_are_those_of_their_own_accuracy():
    probabilities, labels = random_predictions(40, 8)
    metrics = summary(probabilities, labels)
    for accuracy, k in (("top1", 1), ("top5", 5)):
        right = round(40 * top_k(probabilities, labels, k))
        assert metrics["intervals"][accuracy] == wilson_interval(right, 40)
    assert metrics["intervals"]["top1"] != metrics["intervals"]["top5"]


def test_the_interval_of_mean_class_accuracy_is_that_of_videos_resampled_one_by_one():
    probabilities, labels = random_predictions(120, 8, seed=5)
    rank = ranks(probabilities, labels)
    places, label_of = rank.tolist(), labels.tolist()
    generator = random.Random(1)
    samples: list[float] = []
    for _ in range(3000):
        by_class: dict[int, list[bool]] = {}
        for row in generator.choices(range(120), k=120):
            by_class.setdefault(label_of[row], []).append(places[row] < 1)
        samples.append(sum(sum(each) / len(each) for each in by_class.values()) / len(by_class))
    samples.sort()
    assert bootstrap_interval(rank, labels, resamples=3000) == pytest.approx([samples[75], samples[-75]], abs=0.012)
    assert bootstrap_interval(rank, labels) == bootstrap_interval(rank, labels)


@pytest.mark.parametrize("accuracy", ["top1", "mean_class"])
def test_intervals_narrow_with_the_root_of_the_number_of_videos(accuracy: str):
    probabilities, labels = random_predictions(100, 6)
    few, many = (summary(np.tile(probabilities, (n, 1)), np.tile(labels, n)) for n in (1, 100))
    assert many["top1"] == pytest.approx(few["top1"])
    width = [high - low for low, high in (metrics["intervals"][accuracy] for metrics in (few, many))]
    assert width[0] / width[1] == pytest.approx(10, rel=0.15)
    low, high = few["intervals"][accuracy]
    assert low < summary(probabilities, labels)[accuracy] < high  # type: ignore[literal-required]


def test_metrics_are_those_of_the_videos_that_have_a_label():
    scores = random_scores()
    assert scores_summary(scores) == summary(scores.probabilities, scores.labels)
    labeled = np.arange(len(scores.keys)) != 3
    expected = summary(scores.probabilities[labeled], scores.labels[labeled])
    scores.labels[3] = UNLABELLED
    assert scores_summary(scores) == expected
    scores.labels[:] = UNLABELLED
    with pytest.raises(UserError, match="no video of s has a label"):
        scores_summary(scores)


def test_the_table_has_every_number_and_fits_into_80_columns():
    intervals = {"top1": [0.7, 0.954], "top5": [0.8241, 1.0], "mean_class": [0.5, 0.6]}
    metrics: Metrics = {**summary(*random_predictions(50, 6)), "top1": 0.9, "intervals": intervals}
    console = Console(width=80)
    with console.capture() as captured:
        console.print(accuracy_table({"rgb-val.parquet": metrics}))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    number, line = next((i, line) for i, line in enumerate(lines) if "rgb-val.parquet" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == [
        "rgb-val.parquet",
        "90.0%",
        f"{metrics['top5']:.1%}",
        f"{metrics['mean_class']:.1%}",
        f"{metrics['ece']:.3f}",
        "50",
    ]
    cells = [cell.strip() for cell in lines[number + 1].split("│")[1:-1]]
    assert cells == ["", "(70.0–95.4)", "(82.4–100.0)", "(50.0–60.0)", "", ""]
    assert set(intervals) == set(ACCURACIES)
    note = " ".join(" ".join(lines[-2:]).split())
    assert "95 % intervals, Wilson score for top-1 and top-5, bootstrap for mean class" in note
