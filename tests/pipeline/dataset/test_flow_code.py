"""The 8-bit code of flow, and its colors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lgd.pipeline.dataset.flow_code import color, decode, default_bound, encode

FIELDS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=3, max_side=5).map(lambda shape: (*shape, 2)),
    elements=st.floats(-1e4, 1e4, width=32),
)
BOUNDS = st.floats(0.5, 100)


def vectors(nested: list) -> np.ndarray:
    return np.array(nested, np.float32)


@given(FIELDS, BOUNDS)
def test_decoded_flow_is_within_half_a_step_of_the_flow_inside_the_bound(flow, bound):
    inside = np.clip(flow, -bound, bound)
    codes, _ = encode(flow, bound)
    assert np.abs(decode(codes, bound) - inside).max() <= 0.5001 * bound / 127


@given(FIELDS, BOUNDS)
def test_encoding_decoded_codes_gives_the_same_codes(flow, bound):
    codes, _ = encode(flow, bound)
    recoded, saturated = encode(decode(codes, bound), bound)
    np.testing.assert_array_equal(recoded, codes)
    assert saturated == 0


@given(FIELDS, BOUNDS)
def test_mirrored_and_negated_x_is_exactly_256_minus_the_mirrored_code(flow, bound):
    width = flow.shape[-2]
    mirrored = flow[..., ::-1, :] * np.array([-1, 1], np.float32)
    codes, mirrored_codes = encode(flow, bound)[0], encode(mirrored, bound)[0]
    np.testing.assert_array_equal(mirrored_codes[..., :width], 256 - codes[..., :width][..., ::-1].astype(int))
    np.testing.assert_array_equal(mirrored_codes[..., width:], codes[..., width:][..., ::-1])


def test_code_of_known_motions_with_x_left_of_y():
    flow = vectors([[[0, 20], [-20, 1e-4], [10, -10]]])
    codes, saturated = encode(flow, 20)
    assert codes.dtype == np.uint8
    assert codes.tolist() == [[128, 1, 192, 255, 128, 64]]  # 10 px are 63.5 steps, and half rounds to even
    assert saturated == 0


def test_saturated_fraction_counts_vectors_not_components():
    flow = vectors([[[21, 0], [30, -30], [19, 19], [0, -500]]])
    codes, saturated = encode(flow, 20)
    assert saturated == 0.75
    assert codes.tolist() == [[255, 255, 249, 128, 128, 1, 249, 1]]


def test_no_frames_have_an_empty_code():
    codes, saturated = encode(np.empty((0, 6, 4, 2), np.float32), 20)
    assert codes.shape == (0, 6, 8)
    assert saturated == 0
    assert decode(codes, 20).shape == (0, 6, 4, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_flow_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="not finite"):
        encode(np.full((2, 2, 2), value, np.float32), 20)


def test_planes_of_odd_width_are_refused():
    with pytest.raises(ValueError, match="even width"):
        decode(np.zeros((4, 5), np.uint8), 20)


def test_bound_grows_with_the_short_side():
    assert default_bound(256) == 20
    assert default_bound(128) == 10
    with pytest.raises(ValueError, match="short side"):
        default_bound(0)


def test_colors_are_those_of_middlebury():
    right, down, left, up, none = color(vectors([[[3, 0], [0, 3], [-3, 0], [0, -3], [0, 0]]]))[0].tolist()
    assert right == [255, 0, 0]
    assert down == [255, 234, 0]
    assert left == [0, 197, 255]
    assert up == [103, 0, 255]
    assert none == [255, 255, 255]


def test_color_saturation_is_the_speed_on_one_scale_for_all_frames():
    slow, fast = color(vectors([[[[1, 0]]], [[[4, 0]]]]))
    assert slow.tolist() == [[[255, 191, 191]]]
    assert fast.tolist() == [[[255, 0, 0]]]


def test_vectors_faster_than_the_full_color_have_it_as_well():
    flow = vectors([[[1, 0], [4, 0], [9, 0]]])
    assert color(flow, full=4.0)[0].tolist() == [[255, 191, 191], [255, 0, 0], [255, 0, 0]]


def test_no_motion_at_all_is_white():
    assert (color(np.zeros((3, 4, 2), np.float32)) == 255).all()
