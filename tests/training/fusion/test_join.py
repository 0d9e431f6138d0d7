from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.training.fusion.fuse import fuse, make_rule
from lgd.training.fusion.join import join
from lgd.training.scoring.scores import Scores
from tests.training.scoring.test_scores import random_scores


def with_other_predictions(first: Scores, seed: int = 1, name: str = "t") -> Scores:
    """The same videos with different predictions."""
    random = np.random.default_rng(seed)
    size = len(first.keys), len(first.classes)
    return replace(first, name=name, probabilities=random.dirichlet(np.ones(size[1]), size[0]).astype(np.float32))


def select_rows(scores: Scores, rows: list[int] | np.ndarray) -> Scores:
    keys = [scores.keys[row] for row in rows]
    return replace(scores, keys=keys, labels=scores.labels[rows], probabilities=scores.probabilities[rows])


def shuffled(scores: Scores) -> Scores:
    return select_rows(scores, np.random.default_rng(2).permutation(len(scores.keys)))


def without_row(scores: Scores, row: int) -> Scores:
    return select_rows(scores, [i for i in range(len(scores.keys)) if i != row])


def with_different_label(scores: Scores) -> Scores:
    labels = scores.labels.copy()
    labels[1] = (labels[1] + 1) % 3
    return replace(scores, labels=labels)


def test_tables_are_joined_by_key_in_any_order_of_rows():
    a, b = random_scores(videos=20), with_other_predictions(random_scores(videos=20))
    joined = join([a, shuffled(b)])
    assert joined.first.keys == joined.inputs[1].keys == a.keys
    assert (joined.inputs[1].probabilities == b.probabilities).all()
    assert (joined.inputs[1].labels == a.labels).all()
    assert joined.dropped == {"s": 0, "t": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without_row(s, 2), r"s and t have different videos \(1 only in s: v2\).* --intersect"),
        (lambda s: replace(s, keys=["w0", *s.keys[1:]]), r"1 only in s: v0; 1 only in t: w0"),
        (lambda s: select_rows(s, [5]), r"5 only in s: v0, v1, v2 and 2 more"),
        (lambda s: replace(s, classes=("jack", "bend", "wave")), r"a different order .*class 0 is 'bend' and 'jack'"),
        (lambda s: replace(s, classes=("bend", "jack", "jump")), r"different classes \(not in both: jump, wave\)"),
        (lambda s: replace(s, split="test"), r"different splits \(val, test\)"),
        (with_different_label, r"different labels for v1:"),
    ],
)
def test_tables_that_do_not_match_are_refused_by_name(change, message: str):
    a = random_scores()
    with pytest.raises(UserError, match=message):
        join([a, with_other_predictions(a, 2, "u"), change(with_other_predictions(a))])


def test_intersect_accepts_only_missing_videos():
    a = random_scores()
    for change in (
        with_different_label,
        lambda s: replace(s, split="test"),
        lambda s: replace(s, classes=("x", "y", "z")),
    ):
        with pytest.raises(UserError):
            join([a, change(with_other_predictions(a))], intersect=True)
    with pytest.raises(UserError, match="s and t have no video in common"):
        join([select_rows(a, [0, 1]), select_rows(with_other_predictions(a), [2, 3])], intersect=True)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=2, max_size=4), st.randoms())
def test_intersect_keeps_the_common_videos_in_the_order_of_the_first(subsets: list[set[int]], random):
    all_videos = random_scores(videos=12)
    tables = []
    for number, subset in enumerate(subsets):
        rows = sorted(subset)
        random.shuffle(rows)
        tables.append(select_rows(with_other_predictions(all_videos, number, f"t{number}"), rows))
    expected = [key for key in tables[0].keys if all(key in table.keys for table in tables)]
    if not expected:
        with pytest.raises(UserError, match="no video in common"):
            join(tables, intersect=True)
        return
    joined = join(tables, intersect=True)
    for table, kept in zip(tables, joined.inputs, strict=True):
        row_of_key = dict(zip(table.keys, table.probabilities.tolist(), strict=True))
        assert kept.keys == expected
        assert kept.probabilities.tolist() == [row_of_key[key] for key in expected]
        assert joined.dropped[table.name] == len(table.keys) - len(expected)


def test_a_table_that_is_given_twice_is_refused():
    with pytest.raises(UsageError, match="s is given more than once"):
        join([random_scores(), random_scores()])


def test_splits_of_one_name_from_two_tables_are_refused():
    a, b = random_scores(), with_other_predictions(random_scores())
    first, same, other = (
        replace(scores, metadata={**scores.metadata, "split_hash": text})
        for scores, text in ((a, "1" * 16), (b, "1" * 16), (b, "2" * 16))
    )
    for intersect in (False, True):
        join([first, same], intersect)
        join([first, b], intersect)  # of a version that did not write it, or of the shards' own split
        with pytest.raises(UserError, match=r"are of two different splits with the name val: .* evaluate both on the"):
            join([first, other], intersect)
    assert fuse(join([first, same]), make_rule(2)).metadata["split_hash"] == "1" * 16
