from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import UsageError, UserError
from tests.test_scores import scores
from training.fuse import comparison, fuse
from training.scores import UNLABELLED, Scores


def second(first: Scores, seed: int = 1) -> Scores:
    random = np.random.default_rng(seed)
    size = len(first.keys), len(first.classes)
    return replace(first, name="t", probabilities=random.dirichlet(np.ones(size[1]), size[0]).astype(np.float32))


def shuffled(these: Scores) -> Scores:
    rows = np.random.default_rng(2).permutation(len(these.keys))
    keys = [these.keys[row] for row in rows]
    return replace(these, keys=keys, labels=these.labels[rows], probabilities=these.probabilities[rows])


def test_streams_are_joined_by_key_whatever_their_rows():
    a, b = scores(videos=20), second(scores(videos=20))
    straight, crossed = fuse([a, b]), fuse([a, shuffled(b)])
    assert straight.keys == crossed.keys == a.keys
    assert (straight.probabilities == crossed.probabilities).all()


@pytest.mark.parametrize("weights", [None, (1.0, 3.0), (0.2, 0.0)])
def test_fused_numbers_equal_a_calculation_by_hand(weights: tuple[float, float] | None):
    a, b = scores(videos=30), second(scores(videos=30))
    of_key = dict(zip(b.keys, b.probabilities.tolist(), strict=True))
    w = weights or (1.0, 1.0)
    fused = fuse([a, shuffled(b)], weights)
    right = 0
    for row, key in enumerate(a.keys):
        by_hand = [
            (w[0] * float(x) + w[1] * y) / sum(w) for x, y in zip(a.probabilities[row], of_key[key], strict=True)
        ]
        assert fused.probabilities[row] == pytest.approx(by_hand, abs=1e-6)
        right += by_hand.index(max(by_hand)) == a.labels[row]
    assert comparison([a, b], fused)["fused"]["top1"] == pytest.approx(right / 30)


def test_probabilities_stay_probabilities():
    assert fuse([scores(), second(scores())], (2, 5)).probabilities.sum(1) == pytest.approx(1)


def test_provenance_is_kept_through_fusions_of_fusions():
    a, b = scores("a"), second(scores())
    both = fuse([a, b])
    again = fuse([both, second(scores(), 5)], (2, 1))
    assert [entry["name"] for entry in again.about["inputs"]] == ["fused", "t"]
    assert [entry["name"] for entry in again.about["inputs"][0]["inputs"]] == ["a", "t"]
    assert again.about["weights"] == pytest.approx([2 / 3, 1 / 3])


def without(these: Scores, row: int) -> Scores:
    keep = [i for i in range(len(these.keys)) if i != row]
    keys = [these.keys[i] for i in keep]
    return replace(these, keys=keys, labels=these.labels[keep], probabilities=these.probabilities[keep])


def relabelled(these: Scores) -> Scores:
    labels = these.labels.copy()
    labels[1] = (labels[1] + 1) % 3
    return replace(these, labels=labels)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: without(s, 2), r"other videos \(v2 only in s\)"),
        (lambda s: replace(s, keys=["w0", *s.keys[1:]]), r"v0 only in s; w0 only in t"),
        (lambda s: replace(s, classes=("jack", "bend", "wave")), r"another order .*class 0 is 'bend' and 'jack'"),
        (lambda s: replace(s, classes=("bend", "jack", "jump")), r"other classes \(not in both: jump, wave\)"),
        (lambda s: replace(s, split="test"), r"other splits \(val, test\)"),
        (relabelled, r"label of v1:"),
    ],
)
def test_inputs_that_do_not_match_are_refused_by_name(spoil, message: str):
    a = scores()
    with pytest.raises(UserError, match=message):
        fuse([a, spoil(second(a))])


@pytest.mark.parametrize("weights", [(1,), (0, 0), (1, -1), (float("nan"), 1)])
def test_weights_that_cannot_be_are_refused(weights: tuple[float, ...]):
    with pytest.raises(UsageError):
        fuse([scores(), second(scores())], weights)


def test_one_file_is_nothing_to_fuse():
    with pytest.raises(UsageError, match="two or more"):
        fuse([scores()])


def test_accuracy_of_unlabelled_videos_is_refused_by_name():
    a = scores()
    a.labels[3] = UNLABELLED
    with pytest.raises(UserError, match="no label for v3"):
        comparison([a], a)
