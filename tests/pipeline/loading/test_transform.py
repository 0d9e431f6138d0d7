"""Crop windows and color factors of clips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import Clip, Sampling, UniformOrder
from lgd.pipeline.loading.transform import ASPECTS, CropMode, Transform, color_factors, crop_window

FRACTIONS = st.floats(0, 1)


def clip(crop_x: float = 0.5, crop_y: float = 0.5, **values: float) -> Clip:
    return Clip(0, 0, np.arange(16), crop_x, crop_y, False, **values)  # type: ignore[arg-type]  # values are floats


@pytest.mark.parametrize(("height", "width"), [(120, 160), (160, 120), (120, 161), (120, 120), (100, 101)])
def test_squares_are_at_both_ends_of_the_longer_side_and_in_the_middle(height: int, width: int):
    short, free = min(height, width), abs(height - width)
    order = UniformOrder(np.array([0]), np.array([16]), Sampling(16), clips=1, crops=3)
    transform = Transform(crop=200)
    windows = [crop_window(transform, order.clip(view), height, width=width, crop_mode="square") for view in range(3)]
    assert {(window.height, window.width) for window in windows} == {(short, short)}
    along = [window.left if width > height else window.top for window in windows]
    across = [window.top if width > height else window.left for window in windows]
    assert along == [0, -(-free // 2), free]
    assert across == [0, 0, 0]
    full = crop_window(transform, order.clip(0), height, width=width, crop_mode="full_frame")
    assert full == (0, 0, height, width)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1920, 120, (0, 0, 120, 1920)),  # 16:1
        (1921, 120, (0, 1, 120, 1920)),
        (32_400, 120, (0, 15_240, 120, 1920)),
        (120, 65_500, (31_790, 0, 1920, 120)),
        (65_500, 1, (0, 32_742, 1, 16)),
    ],
)
def test_a_full_frame_has_a_maximum_aspect_ratio_beyond_which_it_is_the_middle(
    width: int, height: int, expected: tuple[int, ...]
):
    order = UniformOrder(np.array([0]), np.array([16]), Sampling(16), clips=1)
    assert crop_window(Transform(), order.clip(0), height, width=width, crop_mode="full_frame") == expected


@given(
    height=st.integers(48, 300),
    width=st.integers(48, 300),
    x=FRACTIONS,
    y=FRACTIONS,
    area=FRACTIONS,
    aspect=FRACTIONS,
    resized=st.sampled_from([None, 0.08, 1.0]),
)
def test_windows_are_inside_the_frame(
    height: int, width: int, x: float, y: float, area: float, aspect: float, resized: float | None
):
    transform = Transform(crop=48, resized_crop=resized)
    modes: tuple[CropMode, ...] = ("random", "full_frame", "square")
    for mode in modes:
        drawn = clip(x, y, area=area, aspect=aspect)
        top, left, high, wide = crop_window(transform, drawn, height, width=width, crop_mode=mode)
        assert 0 <= top <= top + high <= height
        assert 0 <= left <= left + wide <= width
        assert min(high, wide) >= 1
        if mode == "random" and resized is None:
            assert high == wide == 48


def test_every_place_of_a_random_crop_is_equally_likely():
    places = [
        crop_window(Transform(crop=96), clip(crop_x=(n + 0.5) / 500), 96, width=100, crop_mode="random").left
        for n in range(500)
    ]
    assert np.bincount(places).tolist() == [100] * 5


def test_resized_crops_have_the_drawn_area_and_aspect_ratio():
    transform = Transform(crop=32, resized_crop=0.25)
    for area, aspect in [(0.0, 0.0), (0.3, 0.5), (0.3, 1.0)]:
        window = crop_window(transform, clip(area=area, aspect=aspect), 1000, width=1000, crop_mode="random")
        expected = ASPECTS[0] * (ASPECTS[1] / ASPECTS[0]) ** aspect
        assert window.height * window.width == pytest.approx(1e6 * (0.25 + 0.75 * area), rel=0.01)
        assert window.width / window.height == pytest.approx(expected, rel=0.01)
    full = crop_window(transform, clip(area=1.0, aspect=0.5), 1000, width=1000, crop_mode="random")
    assert full == (0, 0, 1000, 1000)


def test_color_factors_are_within_the_jitter():
    assert color_factors(Transform(), clip()) == (1, 1, 1)
    drawn = clip()._replace(color=(0.0, 0.5, 1.0))
    assert color_factors(Transform(), drawn) == (1, 1, 1)
    assert color_factors(Transform(color_jitter=0.4), drawn) == pytest.approx((0.6, 1.0, 1.4))


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ({"crop": 0}, "--transform.crop must be at least 1 pixel, not 0"),
        ({"resized_crop": 0.0}, "--transform.resized-crop must be a fraction"),
        ({"resized_crop": 1.5}, "--transform.resized-crop must be a fraction"),
        ({"color_jitter": 1.0}, "--transform.color-jitter must be at least 0 and less than 1, not 1.0"),
    ],
)
def test_invalid_transforms_are_refused(invalid: dict, message: str):
    with pytest.raises(UsageError, match=message):
        Transform(**invalid)
