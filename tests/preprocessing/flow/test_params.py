"""The parameters of TV-L1."""

import cv2
import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.preprocessing.flow.params import TVL1Params


def test_defaults_are_those_of_opencv():
    opencv, params = cv2.optflow.DualTVL1OpticalFlow_create(), TVL1Params()  # type: ignore[attr-defined]
    assert (opencv.getTau(), opencv.getLambda(), opencv.getTheta(), opencv.getScaleStep(), opencv.getEpsilon()) == (
        params.tau, params.lambda_, params.theta, params.scale_step, params.epsilon,
    )  # fmt: skip
    assert (opencv.getScalesNumber(), opencv.getWarpingsNumber(), opencv.getMedianFiltering()) == (
        params.scales, params.warps, params.median_filtering,
    )  # fmt: skip
    assert (opencv.getInnerIterations(), opencv.getOuterIterations()) == (
        params.inner_iterations, params.outer_iterations,
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"tau": 0},
        {"lambda_": 0},
        {"theta": -1},
        {"warps": 0},
        {"scale_step": 1},
        {"epsilon": float("nan")},
        {"median_filtering": 7},
    ],
    ids=str,
)
def test_invalid_parameters_are_rejected(change):
    option = next(iter(change)).strip("_").replace("_", "-")
    with pytest.raises(UsageError, match=f"^--flow.tvl1.{option} must"):
        TVL1Params(**change)
