from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.preprocessing.annotations.folds import assign_groups, fold_splits, hold_out_splits

Groups = dict[str, list[str | None]]


def keys_of(groups: Groups) -> dict[str, list[str]]:
    return {group: [f"{group}-{number}" for number in range(len(classes))] for group, classes in groups.items()}


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=3), st.lists(st.sampled_from(["a", "b", None]), min_size=1), min_size=5
    ),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_every_video_is_tested_in_one_fold_and_trained_on_in_the_others(groups: Groups, folds: int, seed: int):
    keys = keys_of(groups)
    splits = fold_splits(groups, keys, folds, seed=seed)
    everything = sorted(key for members in keys.values() for key in members)
    assert list(splits) == [f"fold{fold}-{side}" for fold in range(1, folds + 1) for side in ("train", "test")]
    assert sorted(key for name, members in splits.items() if name.endswith("test") for key in members) == everything
    for fold in range(1, folds + 1):
        train, test = splits[f"fold{fold}-train"], splits[f"fold{fold}-test"]
        assert train
        assert test
        assert sorted(train + test) == everything
        assert not {key.rpartition("-")[0] for key in train} & {key.rpartition("-")[0] for key in test}
    shuffled = {group: groups[group] for group in reversed(groups)}
    assert fold_splits(shuffled, keys, folds, seed=seed) == splits


def test_the_classes_are_divided_evenly():
    groups: Groups = {f"person{n}": ["bend", "jack", "wave"] * (1 + n % 2) for n in range(10)}
    groups |= {f"other{n}": ["run"] * 2 for n in range(10)}
    part_of = assign_groups(groups, [0.2] * 5, 0)
    by_part = [Counter(c for group in groups if part_of[group] == part for c in groups[group]) for part in range(5)]
    assert by_part == [Counter(bend=3, jack=3, wave=3, run=4)] * 5


def test_another_seed_gives_another_division():
    groups: Groups = {f"g{n}": ["a"] for n in range(30)}
    assert assign_groups(groups, [0.5, 0.5], 0) == assign_groups(groups, [0.5, 0.5], 0)
    assert assign_groups(groups, [0.5, 0.5], 0) != assign_groups(groups, [0.5, 0.5], 1)


def test_a_fraction_of_each_class_is_held_out():
    groups: Groups = {f"{name}{n}": [name] * 4 for n in range(20) for name in "ab"}
    splits = hold_out_splits(groups, keys_of(groups), "train1", fraction=0.2, seed=0)
    assert list(splits) == ["train1-fit", "train1-held"]
    assert Counter(key[0] for key in splits["train1-held"]) == {"a": 16, "b": 16}
    assert Counter(key[0] for key in splits["train1-fit"]) == {"a": 64, "b": 64}
    two = hold_out_splits({"x": ["a"] * 9, "y": ["a"]}, {"x": ["1"], "y": ["2"]}, "s", fraction=0.1, seed=0)
    assert sorted(map(len, two.values())) == [1, 1]


def test_divisions_that_are_impossible_are_an_error():
    with pytest.raises(UserError, match="2 groups cannot be divided into 3 parts"):
        assign_groups({"x": ["a"], "y": ["a"]}, [1 / 3] * 3, 0)
    with pytest.raises(UsageError, match="--folds must be 2 or more, not 1"):
        fold_splits({"x": ["a"]}, {"x": ["1"]}, 1, seed=0)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match="--fraction must be between 0 and 1"):
            hold_out_splits({"x": ["a"]}, {"x": ["1"]}, "s", fraction=fraction, seed=0)
