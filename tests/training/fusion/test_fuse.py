import math
from dataclasses import replace

import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.training.fusion import fuse as fuse_module
from lgd.training.fusion.fuse import FusionRule, fuse, make_rule
from lgd.training.fusion.join import join
from lgd.training.fusion.options import Space
from lgd.training.scoring.metrics import scores_summary
from tests.training.fusion.test_join import shuffled, with_other_predictions
from tests.training.scoring.test_scores import random_scores

RULES = [
    make_rule(2),
    make_rule(2, (1.0, 3.0)),
    make_rule(2, (0.2, 0.0)),
    make_rule(2, None, (2.0, 0.5)),
    make_rule(2, (1.0, 3.0), (0.3, 1.0)),
]


def fused_by_hand(rows: list[list[float]], rule: FusionRule) -> list[float]:
    """The fusion of one video's rows, number by number."""
    scaled = []
    for row, temperature in zip(rows, rule.temperatures, strict=True):
        powers = [p ** (1 / temperature) for p in row]
        scaled.append([power / sum(powers) for power in powers])
    columns = list(zip(*scaled, strict=True))
    if rule.space == "probabilities":
        return [sum(w * p for w, p in zip(rule.weights, column, strict=True)) for column in columns]
    products = [math.prod(p**w for w, p in zip(rule.weights, column, strict=True)) for column in columns]
    return [product / sum(products) for product in products]


@pytest.mark.parametrize("space", ["probabilities", "logits"])
@pytest.mark.parametrize("rule", RULES)
def test_fused_numbers_equal_a_calculation_by_hand(rule: FusionRule, space: Space, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fuse_module, "BLOCK_ROWS", 7)
    rule = replace(rule, space=space)
    a, b = random_scores(videos=30), with_other_predictions(random_scores(videos=30))
    row_of_key = dict(zip(b.keys, b.probabilities.tolist(), strict=True))
    fused = fuse(join([a, shuffled(b)]), rule)
    right = 0
    assert fused.keys == a.keys
    for row, key in enumerate(a.keys):
        expected = fused_by_hand([a.probabilities[row].tolist(), row_of_key[key]], rule)
        assert fused.probabilities[row] == pytest.approx(expected, abs=1e-6)
        right += expected.index(max(expected)) == a.labels[row]
    assert scores_summary(fused)["top1"] == pytest.approx(right / 30)


def test_any_number_of_inputs_is_fused():
    tables = [with_other_predictions(random_scores(), seed, f"t{seed}") for seed in range(4)]
    rule = make_rule(4, (4.0, 3.0, 2.0, 1.0))
    fused = fuse(join(tables), rule)
    for row in range(6):
        expected = fused_by_hand([table.probabilities[row].tolist() for table in tables], rule)
        assert fused.probabilities[row] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("space", ["probabilities", "logits"])
def test_fused_rows_have_the_sum_1_also_for_streams_that_are_certain_of_different_classes(space: Space):
    a, b = random_scores(), with_other_predictions(random_scores())
    a.probabilities[0], b.probabilities[0] = (1, 0, 0), (0, 0, 1)
    fused = fuse(join([a, b]), make_rule(2, (1.0, 1.0), (0.1, 1.0), space=space))
    assert fused.probabilities.sum(1) == pytest.approx(1)
    assert fused.probabilities[0] == pytest.approx([0.5, 0, 0.5] if space == "probabilities" else [1, 0, 0], abs=1e-6)


def test_metadata_of_the_inputs_is_kept_through_fusions_of_fusions():
    a, b = random_scores("a"), with_other_predictions(random_scores())
    both = fuse(join([a, b]), make_rule(2), [{"name": "fitting", "split": "train", "videos": 4}])
    again = fuse(
        join([both, with_other_predictions(random_scores(), 5)]), make_rule(2, (2.0, 1.0), (1.5, 1.0), space="logits")
    )
    assert [entry["name"] for entry in again.metadata["inputs"]] == ["fused", "t"]
    inner = again.metadata["inputs"][0]
    assert [(entry["name"], entry["stream"]) for entry in inner["inputs"]] == [("a", "rgb"), ("t", "rgb")]
    assert (inner["weights"], inner["space"], inner["fitted_on"][0]["videos"]) == ([0.5, 0.5], "probabilities", 4)
    assert again.metadata["weights"] == pytest.approx([2 / 3, 1 / 3])
    assert (again.metadata["temperatures"], again.metadata["space"]) == ([1.5, 1], "logits")
    assert again.metadata["fitted_on"] is None


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 0.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_invalid_weights_are_refused(weights: tuple[float, ...]):
    with pytest.raises(UsageError, match="weights"):
        make_rule(2, weights)


@pytest.mark.parametrize("temperatures", [(1.0, 1.0, 1.0), (0.0, 1.0), (1.0, float("inf"))])
def test_invalid_temperatures_are_refused(temperatures: tuple[float, ...]):
    with pytest.raises(UsageError, match="temperatures"):
        make_rule(2, None, temperatures)


def test_the_number_of_inputs_must_be_two_or_more_and_that_of_the_weights():
    with pytest.raises(UsageError, match="two or more"):
        fuse(join([random_scores()]), make_rule(1))
    with pytest.raises(UsageError, match="as many weights"):
        fuse(join([random_scores(), with_other_predictions(random_scores())]), make_rule(3))


def test_an_unknown_space_is_refused():
    with pytest.raises(UsageError, match="unknown space 'logit': choose from probabilities, logits"):
        make_rule(2, space="logit")  # type: ignore[arg-type]
