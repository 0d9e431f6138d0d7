"""Convert optical flow to 8-bit gray planes for JPEG, and to color pictures for people."""

import numpy as np

ZERO = 128  # the code of no motion
STEPS = 127  # codes on each side of it


def default_bound(short_side: int) -> float:
    """Return the largest motion (pixels) that the code represents by default, for frames with this short side (pixels).

    Two-stream networks usually bound the flow at 20 pixels for frames of 240 to 256 pixels on the short side
    (Wang et al., "Temporal Segment Networks", 2016). A motion in pixels grows with the size of the frame, so the
    bound does too: 20 * short_side / 256. One step of the code is then 0.16 pixels at 256 and 0.07 pixels at 120.
    Raises ValueError if the short side is less than 1.
    """
    if short_side < 1:
        raise ValueError(f"the short side must be at least 1 pixel, not {short_side}")
    return 20 * short_side / 256


def encode(flow: np.ndarray, bound: float) -> tuple[np.ndarray, float]:
    """Convert flow in pixels to its code q = 128 + round(v * 127 / bound), clipped to 1..255.

    flow: ... x H x W x 2 (x, y) in pixels. Returns uint8 ... x H x 2W, with the x plane to the left of the y plane, and
    the fraction of vectors with a clipped component (0 to 1). No motion is exactly 128, and a negated component is
    exactly 256 - q. Raises ValueError if the flow is not finite.
    """
    steps = np.rint(flow * np.float32(STEPS / bound))
    if not np.isfinite(steps).all():
        raise ValueError("the flow contains values that are not finite")
    saturated = float((np.abs(steps) > STEPS).any(axis=-1).mean()) if steps.size else 0.0
    codes = (ZERO + np.clip(steps, -STEPS, STEPS)).astype(np.uint8)
    return np.concatenate([codes[..., 0], codes[..., 1]], axis=-1), saturated


def decode(planes: np.ndarray, bound: float) -> np.ndarray:
    """Convert the code back to flow in pixels: v = (q - 128) * bound / 127.

    planes: uint8 ... x H x 2W. Returns float32 ... x H x W x 2 (x, y). Raises ValueError if the width is odd, because
    two planes are side by side.
    """
    if planes.shape[-1] % 2:
        raise ValueError(f"x and y planes side by side have an even width, not {planes.shape[-1]}")
    return np.stack(np.split(planes.astype(np.float32) - ZERO, 2, axis=-1), axis=-1) * np.float32(bound / STEPS)


def color(flow: np.ndarray, full: float | None = None) -> np.ndarray:
    """Convert flow to colors: the hue is the direction, the saturation is the speed, white is no motion.

    flow: ... x H x W x 2 (x, y) in pixels. full: the speed in pixels from which on the color is fully saturated; by
    default that of the fastest vector, so that frames given together share one scale. Returns uint8 ... x H x W x 3,
    RGB. The color code is that of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (2011), known
    from Middlebury: motion to the right is red, down yellow, left cyan-blue, up violet.
    """
    speed = np.hypot(flow[..., 0], flow[..., 1])
    if full is None:
        full = max(float(speed.max(initial=0)), float(np.finfo(np.float32).tiny))
    speed = np.minimum(speed / full, 1)
    wheel = _color_wheel()
    turn = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1 * len(wheel)
    color_before = turn.astype(int) % len(wheel)
    weight_after = (turn - np.floor(turn))[..., None]
    hue = (1 - weight_after) * wheel[color_before] + weight_after * wheel[(color_before + 1) % len(wheel)]
    pixels: np.ndarray = np.rint(255 * (1 - speed[..., None] * (1 - hue))).astype(np.uint8)
    return pixels


def _color_wheel() -> np.ndarray:
    """Return the colors of a full turn of hues (55 x 3, 0 to 1), more of them where the eye distinguishes more.

    Baker et al. 2011."""
    red, yellow, green, cyan, blue, magenta = np.array(
        [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1)], dtype=float
    )
    arcs = [
        (red, yellow, 15),
        (yellow, green, 6),
        (green, cyan, 4),
        (cyan, blue, 11),
        (blue, magenta, 13),
        (magenta, red, 6),
    ]
    return np.concatenate([start + (end - start) * np.arange(n)[:, None] / n for start, end, n in arcs])
