import math
from dataclasses import replace

import numpy as np
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.training.fusion import fit as fit_room
from lgd.training.fusion.fit import check_fitting, differences, fitted_rule
from lgd.training.fusion.fuse import Rule, Space, fuse, given_rule
from lgd.training.fusion.join import Joined, join
from lgd.training.scoring.scores import UNLABELLED, Scores

CLASSES = tuple("abcd")
SPACES: tuple[Space, ...] = ("probabilities", "logits")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def table(name: str, logits: np.ndarray, labels: np.ndarray, split: str = "val", **about: object) -> Scores:
    keys = [f"{split}{row}" for row in range(len(labels))]
    return Scores(name, keys, labels, softmax(logits), CLASSES, split, about)


def streams(videos: int, split: str = "val", seed: int = 0) -> Joined:
    """A good stream that is too sure of itself by a factor of 2, and a weak one."""
    random = np.random.default_rng(seed)
    logits = 1.5 * random.normal(size=(videos, 4))
    labels = np.array([random.choice(4, p=row / row.sum()) for row in softmax(logits).astype(np.float64)])
    weak = 0.3 * logits + 1.5 * random.normal(size=(videos, 4))
    return join([
        table(f"rgb-{split}", 2 * logits, labels, split, stream="rgb", run="runs/rgb"),
        table(f"flow-{split}", weak, labels, split, stream="flow", run="runs/flow"),
    ])  # fmt: skip


def cost(joined: Joined, rule: Rule) -> float:
    fused = fuse(joined, rule)
    rows = zip(fused.probabilities, fused.labels, strict=True)
    return -sum(math.log(row[label]) for row, label in rows) / len(fused.keys)


@pytest.mark.parametrize("space", SPACES)
def test_no_weights_and_temperatures_of_a_grid_fit_better(space: Space):
    joined = streams(150)
    best = cost(joined, fitted_rule(joined, space))
    heats = (0.3, 0.6, 1.0, 1.5, 2.0, 3.0)
    grid = [(w, t, u) for w in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0) for t in heats for u in heats]
    costs = [cost(joined, Rule((w, 1 - w), (t, u), space)) for w, t, u in grid]
    assert best <= min(costs) + 1e-7
    assert best < cost(joined, given_rule(2, space=space)) - 0.02


def test_a_stream_that_is_too_sure_is_cooled_by_what_it_is_too_sure():
    joined = streams(4000)
    rule = fitted_rule(joined, "logits")
    assert rule.weights[0] > 0.9
    assert rule.temperatures[0] / rule.weights[0] == pytest.approx(2, rel=0.1)
    assert rule.temperatures[0] == rule.temperatures[1]


@pytest.mark.parametrize("space", SPACES)
def test_a_fit_holds_on_other_videos_and_is_the_same_every_time(space: Space, monkeypatch: pytest.MonkeyPatch):
    fitting, reported = streams(300), streams(600, "test", seed=1)
    rule = fitted_rule(fitting, space)
    assert cost(reported, rule) < cost(reported, given_rule(2, space=space))
    assert fitted_rule(fitting, space) == rule
    monkeypatch.setattr(fit_room, "ROWS_AT_ONCE", 17)
    again = fitted_rule(fitting, space)
    assert again.weights == pytest.approx(rule.weights, abs=1e-4)
    assert again.temperatures == pytest.approx(rule.temperatures, abs=1e-3)


@pytest.mark.parametrize("space", SPACES)
def test_videos_that_are_all_right_do_not_fit_without_bounds(space: Space):
    labels = np.arange(20) % 4
    sure = 2 * np.eye(4)[labels]
    joined = join([table("a", sure, labels), table("b", sure / 2, labels)])
    rule = fitted_rule(joined, space)
    assert all(1 / 20.001 <= each < 1 for each in rule.temperatures)
    assert sum(rule.weights) == pytest.approx(1)
    assert np.isfinite(fuse(joined, rule).probabilities).all()


def test_a_stream_that_knows_nothing_gets_no_weight():
    joined = streams(300)
    labels, random = joined.first.labels, np.random.default_rng(4)
    wrong = table("wrong", 2 * np.eye(4)[(labels + 1) % 4] + random.normal(size=(300, 4)), labels)
    for space in SPACES:
        rule = fitted_rule(join([joined.first, wrong]), space)
        assert rule.weights == (1, 0)
        assert rule.temperatures[0] == pytest.approx(2, rel=0.2)


def test_videos_that_are_fitted_on_and_reported_are_refused_by_name():
    reported, fitting = streams(30, "test"), streams(30)
    check_fitting(reported, fitting)
    keys = [f"test{row}" if row > 25 else key for row, key in enumerate(fitting.first.keys)]
    overlapping = Joined(tuple(replace(each, keys=keys) for each in fitting.inputs), {})
    with pytest.raises(UserError, match=r"rgb-val and rgb-test share 4 videos \(test26, test27, test28 and 1 more\)"):
        check_fitting(reported, overlapping)


def test_scores_of_other_models_are_refused_by_what_differs():
    reported, fitting = streams(30, "test"), streams(30)
    with pytest.raises(UserError, match=r"rgb-test and flow-val are of other models \(stream rgb and flow"):
        check_fitting(reported, Joined(fitting.inputs[::-1], {}))
    other = replace(fitting.inputs[1], classes=("a", "b", "d", "c"))
    with pytest.raises(UserError, match="flow-test and flow-val have the same classes in another order"):
        check_fitting(reported, Joined((fitting.inputs[0], other), {}))


def test_videos_without_a_label_cannot_be_fitted_on():
    fitting = streams(30)
    labels = np.where(np.arange(30) == 7, UNLABELLED, fitting.first.labels)
    unlabelled = join([replace(each, labels=labels) for each in fitting.inputs])
    with pytest.raises(UserError, match="no label for val7"):
        check_fitting(streams(30, "test"), unlabelled)


def test_a_model_is_told_by_what_its_tables_say():
    rgb = {"stream": "rgb", "recipe": "nano-rgb", "run": "/here/rgb", "step": 9}
    flow = {"stream": "flow", "run": "/here/flow"}
    assert differences(rgb, {**rgb, "run": "s3://there/rgb", "protocol": "3 clips"}) == []
    assert differences(rgb, {}) == []
    assert differences(rgb, {**rgb, "run": "/here/rgb-2"}) == ["run /here/rgb and /here/rgb-2"]
    assert differences(rgb, {**rgb, "step": 8}) == ["step 9 and 8"]
    fused = {"stream": "fused", "inputs": [rgb, flow], "weights": [0.25, 0.75], "space": "logits"}
    assert differences(fused, {**fused, "weights": [0.2500000001, 0.7499999999]}) == []
    assert differences(fused, {**fused, "weights": [0.5, 0.5]}) == ["weights [0.25, 0.75] and [0.5, 0.5]"]
    assert differences(fused, {**fused, "inputs": [rgb, {**flow, "run": "x"}]}) == ["run /here/flow and x"]
    assert differences(fused, {**fused, "inputs": [rgb]}) == ["2 and 1 inputs"]
