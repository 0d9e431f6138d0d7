import math
from dataclasses import replace

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.training.fusion import fuse as fuse_room
from lgd.training.fusion.fuse import Rule, Space, fuse, given_rule, metrics
from lgd.training.fusion.join import join
from lgd.training.scoring.scores import UNLABELLED
from tests.training.fusion.test_join import second, shuffled
from tests.training.scoring.test_scores import scores

RULES = [
    given_rule(2),
    given_rule(2, (1.0, 3.0)),
    given_rule(2, (0.2, 0.0)),
    given_rule(2, None, (2.0, 0.5)),
    given_rule(2, (1.0, 3.0), (0.3, 1.0)),
]


def by_hand(rows: list[list[float]], rule: Rule) -> list[float]:
    """The fusion of one video's rows, number by number."""
    tempered = []
    for row, temperature in zip(rows, rule.temperatures, strict=True):
        powers = [p ** (1 / temperature) for p in row]
        tempered.append([power / sum(powers) for power in powers])
    columns = list(zip(*tempered, strict=True))
    if rule.space == "probabilities":
        return [sum(w * p for w, p in zip(rule.weights, column, strict=True)) for column in columns]
    products = [math.prod(p**w for w, p in zip(rule.weights, column, strict=True)) for column in columns]
    return [product / sum(products) for product in products]


@pytest.mark.parametrize("space", ["probabilities", "logits"])
@pytest.mark.parametrize("rule", RULES)
def test_fused_numbers_equal_a_calculation_by_hand(rule: Rule, space: Space, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fuse_room, "ROWS_AT_ONCE", 7)
    rule = replace(rule, space=space)
    a, b = scores(videos=30), second(scores(videos=30))
    of_key = dict(zip(b.keys, b.probabilities.tolist(), strict=True))
    fused = fuse(join([a, shuffled(b)]), rule)
    right = 0
    assert fused.keys == a.keys
    for row, key in enumerate(a.keys):
        expected = by_hand([a.probabilities[row].tolist(), of_key[key]], rule)
        assert fused.probabilities[row] == pytest.approx(expected, abs=1e-6)
        right += expected.index(max(expected)) == a.labels[row]
    assert metrics(fused)["top1"] == pytest.approx(right / 30)


def test_any_number_of_inputs_is_fused():
    tables = [second(scores(), seed, f"t{seed}") for seed in range(4)]
    rule = given_rule(4, (4.0, 3.0, 2.0, 1.0))
    fused = fuse(join(tables), rule)
    for row in range(6):
        expected = by_hand([table.probabilities[row].tolist() for table in tables], rule)
        assert fused.probabilities[row] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("space", ["probabilities", "logits"])
def test_probabilities_stay_probabilities_also_of_streams_that_are_sure_of_different_classes(space: Space):
    a, b = scores(), second(scores())
    a.probabilities[0], b.probabilities[0] = (1, 0, 0), (0, 0, 1)
    fused = fuse(join([a, b]), given_rule(2, (1.0, 1.0), (0.1, 1.0), space=space))
    assert fused.probabilities.sum(1) == pytest.approx(1)
    assert fused.probabilities[0] == pytest.approx([0.5, 0, 0.5] if space == "probabilities" else [1, 0, 0], abs=1e-6)


def test_provenance_is_kept_through_fusions_of_fusions():
    a, b = scores("a"), second(scores())
    both = fuse(join([a, b]), given_rule(2), [{"name": "fitting", "split": "train", "videos": 4}])
    again = fuse(join([both, second(scores(), 5)]), given_rule(2, (2.0, 1.0), (1.5, 1.0), space="logits"))
    assert [entry["name"] for entry in again.about["inputs"]] == ["fused", "t"]
    inner = again.about["inputs"][0]
    assert [(entry["name"], entry["stream"]) for entry in inner["inputs"]] == [("a", "rgb"), ("t", "rgb")]
    assert (inner["weights"], inner["space"], inner["fitted_on"][0]["videos"]) == ([0.5, 0.5], "probabilities", 4)
    assert again.about["weights"] == pytest.approx([2 / 3, 1 / 3])
    assert (again.about["temperatures"], again.about["space"]) == ([1.5, 1], "logits")
    assert again.about["fitted_on"] is None


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 0.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_weights_that_cannot_be_are_refused(weights: tuple[float, ...]):
    with pytest.raises(UsageError, match="weights"):
        given_rule(2, weights)


@pytest.mark.parametrize("temperatures", [(1.0, 1.0, 1.0), (0.0, 1.0), (1.0, float("inf"))])
def test_temperatures_that_cannot_be_are_refused(temperatures: tuple[float, ...]):
    with pytest.raises(UsageError, match="temperatures"):
        given_rule(2, None, temperatures)


def test_one_table_is_nothing_to_fuse():
    with pytest.raises(UsageError, match="two or more"):
        fuse(join([scores()]), given_rule(1))
    with pytest.raises(UsageError, match="as many weights"):
        fuse(join([scores(), second(scores())]), given_rule(3))


def test_accuracy_of_unlabelled_videos_is_refused_by_name():
    a = scores()
    a.labels[3] = UNLABELLED
    with pytest.raises(UserError, match="no label for v3"):
        metrics(a)
