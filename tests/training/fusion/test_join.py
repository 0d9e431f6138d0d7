from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.training.fusion.join import join
from lgd.training.scoring.scores import Scores
from tests.training.scoring.test_scores import scores


def second(first: Scores, seed: int = 1, name: str = "t") -> Scores:
    """Other predictions for the same videos."""
    random = np.random.default_rng(seed)
    size = len(first.keys), len(first.classes)
    return replace(first, name=name, probabilities=random.dirichlet(np.ones(size[1]), size[0]).astype(np.float32))


def rows_of(these: Scores, rows: list[int] | np.ndarray) -> Scores:
    keys = [these.keys[row] for row in rows]
    return replace(these, keys=keys, labels=these.labels[rows], probabilities=these.probabilities[rows])


def shuffled(these: Scores) -> Scores:
    return rows_of(these, np.random.default_rng(2).permutation(len(these.keys)))


def without(these: Scores, row: int) -> Scores:
    return rows_of(these, [i for i in range(len(these.keys)) if i != row])


def relabelled(these: Scores) -> Scores:
    labels = these.labels.copy()
    labels[1] = (labels[1] + 1) % 3
    return replace(these, labels=labels)


def test_tables_are_joined_by_key_whatever_their_rows():
    a, b = scores(videos=20), second(scores(videos=20))
    joined = join([a, shuffled(b)])
    assert joined.first.keys == joined.inputs[1].keys == a.keys
    assert (joined.inputs[1].probabilities == b.probabilities).all()
    assert (joined.inputs[1].labels == a.labels).all()
    assert joined.dropped == {"s": 0, "t": 0}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: without(s, 2), r"s and t are of other videos \(1 only in s: v2\).* --intersect"),
        (lambda s: replace(s, keys=["w0", *s.keys[1:]]), r"1 only in s: v0; 1 only in t: w0"),
        (lambda s: rows_of(s, [5]), r"5 only in s: v0, v1, v2 and 2 more"),
        (lambda s: replace(s, classes=("jack", "bend", "wave")), r"another order .*class 0 is 'bend' and 'jack'"),
        (lambda s: replace(s, classes=("bend", "jack", "jump")), r"other classes \(not in both: jump, wave\)"),
        (lambda s: replace(s, split="test"), r"other splits \(val, test\)"),
        (relabelled, r"label of v1:"),
    ],
)
def test_tables_that_do_not_match_are_refused_by_name(spoil, message: str):
    a = scores()
    with pytest.raises(UserError, match=message):
        join([a, second(a, 2, "u"), spoil(second(a))])


def test_intersect_forgives_only_missing_videos():
    a = scores()
    for spoil in (relabelled, lambda s: replace(s, split="test"), lambda s: replace(s, classes=("x", "y", "z"))):
        with pytest.raises(UserError):
            join([a, spoil(second(a))], intersect=True)
    with pytest.raises(UserError, match="s and t have no video in common"):
        join([rows_of(a, [0, 1]), rows_of(second(a), [2, 3])], intersect=True)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=2, max_size=4), st.randoms())
def test_intersect_keeps_the_common_videos_in_the_order_of_the_first(parts: list[set[int]], random):
    whole = scores(videos=12)
    tables = []
    for number, part in enumerate(parts):
        rows = sorted(part)
        random.shuffle(rows)
        tables.append(rows_of(second(whole, number, f"t{number}"), rows))
    expected = [key for key in tables[0].keys if all(key in table.keys for table in tables)]
    if not expected:
        with pytest.raises(UserError, match="no video in common"):
            join(tables, intersect=True)
        return
    joined = join(tables, intersect=True)
    for table, kept in zip(tables, joined.inputs, strict=True):
        of_key = dict(zip(table.keys, table.probabilities.tolist(), strict=True))
        assert kept.keys == expected
        assert kept.probabilities.tolist() == [of_key[key] for key in expected]
        assert joined.dropped[table.name] == len(table.keys) - len(expected)


def test_a_table_that_is_given_twice_is_refused():
    with pytest.raises(UsageError, match="s is given more than once"):
        join([scores(), scores()])
