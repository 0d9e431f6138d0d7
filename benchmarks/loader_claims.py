"""The claims of `lgd bench loader`."""

from collections.abc import Mapping

from lgd.benchmarks.video_readers import READERS

MIN_OVER_PYAV = 8.0
MIN_OVER_VIDEO = 4.0  # over the fastest reader of videos
MIN_FLOW_OVER_OPENCV = 1.3
MIN_OVER_DALI = 0.85
MAX_ERROR = 1.0  # mean, of 255


def claims_not_met(ratios: Mapping[str, float], flow: Mapping[str, float], mean_error: float) -> list[str]:
    """Return the claims that the measurements do not support. ratios, mean_error: of 16-frame rgb clips."""
    broken = []
    if ratios["ours_over_pyav"] < MIN_OVER_PYAV:
        broken.append(f"{ratios['ours_over_pyav']:.1f} times as fast as PyAV (required: {MIN_OVER_PYAV:g})")
    readers = {name: ratios[f"ours_over_{name}"] for name in READERS if f"ours_over_{name}" in ratios}
    fastest = min(readers, key=readers.__getitem__)
    if readers[fastest] < MIN_OVER_VIDEO:
        broken.append(f"{readers[fastest]:.1f} times as fast as {fastest} (required: {MIN_OVER_VIDEO:g})")
    if flow["ours_over_opencv"] < MIN_FLOW_OVER_OPENCV:
        broken.append(
            f"{flow['ours_over_opencv']:.2f} times as fast as OpenCV for flow (required: {MIN_FLOW_OVER_OPENCV:g})"
        )
    if ratios["ours_over_dali"] < MIN_OVER_DALI:
        broken.append(f"{ratios['ours_over_dali']:.0%} of the speed of bare DALI (required: {MIN_OVER_DALI:.0%})")
    if mean_error >= MAX_ERROR:
        broken.append(
            f"mean error of {mean_error:.2f} of 255 compared with OpenCV's decoder (required: below {MAX_ERROR:g})"
        )
    return broken
