"""Which part of a frame a clip takes, and how decoded frames are changed before the network sees them."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import Clip

# Longer side over the shorter one up to which testing uses full frames; of longer frames it uses the middle. Cameras
# record no such frames, and without a maximum, a single clip may take tens of gigabytes.
MAX_ASPECT = 16
ASPECTS = (3 / 4, 4 / 3)  # width over height of random resized crops (Szegedy et al., "Going Deeper with Convolutions")


@dataclass(frozen=True)
class Transform:
    """Cropping, augmentation and normalization of decoded frames."""

    crop: int = 112
    """Side of the square crop in training, pixels. Testing uses full frames, or squares of their short side."""
    flip: bool = True
    """Mirror half of the training clips, negating the x component of flow."""
    resized_crop: float | None = None
    """Take random parts of the frame, of at least this fraction of its area, and resize them to the crop (not in the
    paper). Default: crops of the frame without resizing."""
    color_jitter: float = 0.0
    """Change brightness, contrast and saturation of RGB clips at random by up to this fraction (not in the paper)."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Mean of red, green and blue, on a scale of 0 to 255 (ImageNet). Flow uses its own zero, 128."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Standard deviation of red, green and blue, on a scale of 0 to 255 (ImageNet)."""
    flow_std: float = 32.0
    """Divisor of the 8-bit flow code: with 32, motion of +-bound becomes about +-4."""

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise UsageError(f"--transform.crop must be at least 1 pixel, not {self.crop}")
        if self.resized_crop is not None and not 0 < self.resized_crop <= 1:
            raise UsageError(
                f"--transform.resized-crop must be a fraction of the frame's area (0 to 1), not {self.resized_crop}"
            )
        if not 0 <= self.color_jitter < 1:
            raise UsageError(f"--transform.color-jitter must be at least 0 and less than 1, not {self.color_jitter}")


class CropWindow(NamedTuple):
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


CropMode = Literal["random", "full_frame", "square"]


def crop_window(transform: Transform, clip: Clip, height: int, *, width: int, crop_mode: CropMode) -> CropWindow:
    """Return the part of a frame of height x width pixels that a clip takes.

    crop_mode: `random` as in training (a square of `transform.crop` pixels, or a random resized crop); `full_frame` (at
    most MAX_ASPECT times as long as its short side) or `square` (of the short side) as in testing. The clip holds the
    place of the window."""
    if crop_mode == "full_frame":
        longest = MAX_ASPECT * min(height, width)
        window_height, window_width = min(height, longest), min(width, longest)
    elif crop_mode == "square":
        window_height = window_width = min(height, width)
    elif transform.resized_crop is None:
        window_height = window_width = transform.crop
    else:
        area = height * width * (transform.resized_crop + (1 - transform.resized_crop) * clip.area)
        log_min, log_max = map(math.log, ASPECTS)
        aspect = math.exp(log_min + (log_max - log_min) * clip.aspect)
        window_height = min(max(round(math.sqrt(area / aspect)), 1), height)
        window_width = min(max(round(math.sqrt(area * aspect)), 1), width)
    # There are width - window_width + 1 places along the width, each equally likely.
    top = min(int(clip.crop_y * (height - window_height + 1)), height - window_height)
    left = min(int(clip.crop_x * (width - window_width + 1)), width - window_width)
    return CropWindow(top, left, window_height, window_width)


def color_factors(transform: Transform, clip: Clip) -> tuple[float, float, float]:
    """Return the factors by which a clip's brightness, contrast and saturation are multiplied."""
    brightness, contrast, saturation = (1 + transform.color_jitter * (2 * draw - 1) for draw in clip.color)
    return brightness, contrast, saturation
