import numpy as np
import pytest

from training.metrics import mean_class_accuracy, summary, top_k

PROBABILITIES = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])


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
