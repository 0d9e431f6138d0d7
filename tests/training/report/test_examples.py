"""The choice of example videos."""

import dataclasses

import numpy as np
import pytest

from lgd.training.report.examples import choose_examples
from lgd.training.report.results import group_scores
from lgd.training.scoring.scores import Scores


def test_examples_are_confident_mistakes_median_correct_ones_and_those_that_the_fusion_changed():
    classes = ("a", "b", "c")
    labels = np.zeros(40, np.int64)
    keys = [f"v{i:02}" for i in range(40)]
    confidence = np.linspace(0.9, 0.51, 40)
    correct = np.arange(40) % 2 == 0
    first = np.where(correct, confidence, 1 - confidence)
    fused = Scores("f", keys, labels, np.stack([first, 1 - first, 0 * first], 1), classes, "val", {"stream": "fused"})
    single = dataclasses.replace(fused, name="s", probabilities=fused.probabilities.copy(), metadata={"stream": "rgb"})
    for row in (4, 6, 7):
        single.probabilities[row] = single.probabilities[row, [1, 0, 2]]
    for order in ([fused, single], [single, fused]):
        (group,) = group_scores(order, ["1", "2"], [0, 1])
        assert choose_examples(group) == {
            "fixed": [4, 6],
            "broken": [7],
            "wrong": [1, 3, 5, 9, 11, 13],
            "right": [18, 20, 22, 24],  # the middle of 0, 2, 8, 10, ... 38
        }
        assert group.gain is not None
        assert group.gain[0] == pytest.approx(1 / 40)
        assert np.isnan(group.gain[1:]).all()
