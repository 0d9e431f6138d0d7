"""Frames whose motion is known exactly, and the difference between two flows."""

import numpy as np


def texture(height: int, width: int, dx: float = 0, dy: float = 0) -> np.ndarray:
    """Return waves of many directions and lengths, moved by (dx, dy) pixels: their motion is known exactly."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width].astype(float)
    image = np.zeros((height, width))
    for _ in range(25):
        length, angle, phase = rng.uniform(7, 50), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        image += np.sin(2 * np.pi / length * ((x - dx) * np.cos(angle) + (y - dy) * np.sin(angle)) + phase)
    return np.clip(128 + 20 * image, 0, 255).round().astype(np.uint8)


def moving_texture(count: int = 4, height: int = 60, width: int = 83) -> np.ndarray:
    """Return frames of an accelerating texture, uint8 count x height x width."""
    return np.stack([texture(height, width, 1.3 * i, -0.4 * i * i) for i in range(count)])


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean length of the difference vectors, pixels."""
    return float(np.hypot(*np.moveaxis(a - b, -1, 0)).mean())


def median_of_windows(field: np.ndarray, size: int) -> np.ndarray:
    """Return the median of the size x size pixels around each pixel; borders are repeated."""
    reach = size // 2
    padded = np.pad(field, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2)), axis=(-2, -1))
