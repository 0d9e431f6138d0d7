"""Groups of score files of the same videos."""

import numpy as np

from lgd.training.report.results import group_scores, most_confused
from lgd.training.scoring.scores import Scores
from tests.training.report.samples import random_scores


def test_scores_are_joined_by_key_not_by_row():
    labels = np.arange(10) % 3
    first = random_scores("a", [f"v{i}" for i in range(10)], labels, ("x", "y", "z"), 1.0, 0)
    order = np.random.default_rng(1).permutation(10)
    shuffled = Scores(
        "b", [first.keys[i] for i in order], labels[order], first.probabilities[order], first.classes, "val", {}
    )
    (group,) = group_scores([first, shuffled], ["a", "b"], [0, 1])
    assert (group.files[0].predicted == group.files[1].predicted).all()
    assert group.files[0].numbers == group.files[1].numbers
    pairs = most_confused(group.files[0])
    wrong = [
        (first.classes[a], first.classes[b]) for a, b in zip(labels, group.files[0].predicted, strict=True) if a != b
    ]
    assert sum(pair.videos for pair in pairs) == len(wrong)
    assert all(wrong.count((pair.true, pair.predicted)) == pair.videos for pair in pairs)
