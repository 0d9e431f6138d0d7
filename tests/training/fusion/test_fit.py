import math
from dataclasses import replace

import numpy as np
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.training.fusion import fit as fit_module
from lgd.training.fusion.fit import check_fitting, fit_rule, minimize_bfgs, model_differences
from lgd.training.fusion.fuse import FusionRule, fuse, make_rule
from lgd.training.fusion.join import JoinedScores, join
from lgd.training.fusion.options import Space
from lgd.training.scoring.scores import Scores

CLASSES = tuple("abcd")
SPACES: tuple[Space, ...] = ("probabilities", "logits")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def table(name: str, logits: np.ndarray, labels: np.ndarray, split: str = "val", **metadata: object) -> Scores:
    keys = [f"{split}{row}" for row in range(len(labels))]
    return Scores(name, keys, labels, softmax(logits), CLASSES, split, metadata)


def streams(videos: int, split: str = "val", seed: int = 0) -> JoinedScores:
    """An accurate stream whose logits are too large by a factor of 2, and an inaccurate stream."""
    random = np.random.default_rng(seed)
    logits = 1.5 * random.normal(size=(videos, 4))
    labels = np.array([random.choice(4, p=row / row.sum()) for row in softmax(logits).astype(np.float64)])
    inaccurate = 0.3 * logits + 1.5 * random.normal(size=(videos, 4))
    return join([
        table(f"rgb-{split}", 2 * logits, labels, split, stream="rgb", run="runs/rgb"),
        table(f"flow-{split}", inaccurate, labels, split, stream="flow", run="runs/flow"),
    ])  # fmt: skip


def cost(joined: JoinedScores, rule: FusionRule) -> float:
    fused = fuse(joined, rule)
    rows = zip(fused.probabilities, fused.labels, strict=True)
    return -sum(math.log(row[label]) for row, label in rows) / len(fused.keys)


@pytest.mark.parametrize("space", SPACES)
def test_no_weights_and_temperatures_of_a_grid_fit_better(space: Space):
    joined = streams(150)
    best = cost(joined, fit_rule(joined, space))
    values = (0.3, 0.6, 1.0, 1.5, 2.0, 3.0)
    grid = [(w, t, u) for w in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0) for t in values for u in values]
    costs = [cost(joined, FusionRule((w, 1 - w), (t, u), space)) for w, t, u in grid]
    assert best <= min(costs) + 1e-7
    assert best < cost(joined, make_rule(2, space=space)) - 0.02


def test_the_temperature_of_a_stream_with_too_large_logits_is_their_factor():
    joined = streams(4000)
    rule = fit_rule(joined, "logits")
    assert rule.weights[0] > 0.9
    assert rule.temperatures[0] / rule.weights[0] == pytest.approx(2, rel=0.1)
    assert rule.temperatures[0] == rule.temperatures[1]


@pytest.mark.parametrize("space", SPACES)
def test_a_fit_is_better_on_other_videos_too_and_deterministic(space: Space, monkeypatch: pytest.MonkeyPatch):
    fitting, reported = streams(300), streams(600, "test", seed=1)
    rule = fit_rule(fitting, space)
    assert cost(reported, rule) < cost(reported, make_rule(2, space=space))
    assert fit_rule(fitting, space) == rule
    monkeypatch.setattr(fit_module, "BLOCK_ROWS", 17)
    again = fit_rule(fitting, space)
    assert again.weights == pytest.approx(rule.weights, abs=1e-4)
    assert again.temperatures == pytest.approx(rule.temperatures, abs=1e-3)


@pytest.mark.parametrize("space", SPACES)
def test_temperatures_stay_in_their_limits_if_all_predictions_are_right(space: Space):
    labels = np.arange(20) % 4
    certain = 2 * np.eye(4)[labels]
    joined = join([table("a", certain, labels), table("b", certain / 2, labels)])
    rule = fit_rule(joined, space)
    assert all(1 / 20.001 <= each < 1 for each in rule.temperatures)
    assert sum(rule.weights) == pytest.approx(1)
    assert np.isfinite(fuse(joined, rule).probabilities).all()


def test_a_stream_that_is_always_wrong_gets_no_weight():
    joined = streams(300)
    labels, random = joined.first.labels, np.random.default_rng(4)
    wrong = table("wrong", 2 * np.eye(4)[(labels + 1) % 4] + random.normal(size=(300, 4)), labels)
    for space in SPACES:
        rule = fit_rule(join([joined.first, wrong]), space)
        assert rule.weights == (1, 0)
        assert rule.temperatures[0] == pytest.approx(2, rel=0.2)


def test_videos_that_are_both_fitted_on_and_reported_are_refused_by_name():
    reported, fitting = streams(30, "test"), streams(30)
    check_fitting(reported, fitting)
    keys = [f"test{row}" if row > 25 else key for row, key in enumerate(fitting.first.keys)]
    overlapping = JoinedScores(tuple(replace(each, keys=keys) for each in fitting.inputs), {})
    with pytest.raises(UserError, match=r"rgb-val and rgb-test share 4 videos \(test26, test27, test28 and 1 more\)"):
        check_fitting(reported, overlapping)


def test_scores_of_different_models_are_refused_with_the_difference():
    reported, fitting = streams(30, "test"), streams(30)
    with pytest.raises(UserError, match=r"rgb-test and flow-val are from different models \(stream rgb and flow"):
        check_fitting(reported, JoinedScores(fitting.inputs[::-1], {}))
    other = replace(fitting.inputs[1], classes=("a", "b", "d", "c"))
    with pytest.raises(UserError, match="flow-test and flow-val have the same classes in a different order"):
        check_fitting(reported, JoinedScores((fitting.inputs[0], other), {}))


def test_fitting_videos_without_a_label_are_refused():
    fitting = streams(30)
    labels = np.where(np.arange(30) == 7, UNLABELLED, fitting.first.labels)
    unlabelled = join([replace(each, labels=labels) for each in fitting.inputs])
    with pytest.raises(UserError, match="no label for val7"):
        check_fitting(streams(30, "test"), unlabelled)


def test_models_are_compared_by_the_metadata_of_their_tables():
    rgb = {"stream": "rgb", "recipe": "nano-rgb", "run": "/here/rgb", "step": 9}
    flow = {"stream": "flow", "run": "/here/flow"}
    assert model_differences(rgb, {**rgb, "run": "s3://there/rgb", "protocol": "3 clips"}) == []
    assert model_differences(rgb, {}) == []
    assert model_differences(rgb, {**rgb, "run": "/here/rgb-2"}) == ["run /here/rgb and /here/rgb-2"]
    assert model_differences(rgb, {**rgb, "step": 8}) == ["step 9 and 8"]
    fused = {"stream": "fused", "inputs": [rgb, flow], "weights": [0.25, 0.75], "space": "logits"}
    assert model_differences(fused, {**fused, "weights": [0.2500000001, 0.7499999999]}) == []
    assert model_differences(fused, {**fused, "weights": [0.5, 0.5]}) == ["weights [0.25, 0.75] and [0.5, 0.5]"]
    assert model_differences(fused, {**fused, "inputs": [rgb, {**flow, "run": "x"}]}) == ["run /here/flow and x"]
    assert model_differences(fused, {**fused, "inputs": [rgb]}) == ["2 and 1 inputs"]


def test_minimize_bfgs_finds_the_minimum_of_a_curved_valley():
    def rosenbrock(x: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = x
        value = (1 - a) ** 2 + 100 * (b - a**2) ** 2
        return value, np.array([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)])

    assert minimize_bfgs(rosenbrock, np.array([-1.2, 1.0])) == pytest.approx([1, 1], abs=1e-6)
