"""What happens to decoded frames on their way to the network, and which part of a frame a clip takes."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import Clip

ASPECTS = (3 / 4, 4 / 3)  # width over height of random resized crops (Szegedy et al., "Going Deeper with Convolutions")


@dataclass(frozen=True)
class Transform:
    """What happens to decoded frames on their way to the network."""

    crop: int = 112
    """Side of the square crop in training, pixels. Testing takes whole frames, or squares of their short side."""
    flip: bool = True
    """Mirror half of the training clips, negating the x component of flow."""
    resized_crop: float | None = None
    """Take random parts of the frame, of at least this fraction of its area, and resize them to the crop (beyond the
    paper). Default: crops of the frame as it is."""
    color_jitter: float = 0.0
    """Change brightness, contrast and saturation of RGB clips at random by up to this fraction (beyond the paper)."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Mean of red, green and blue, of 255 (ImageNet's). Flow has its own zero, 128."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Standard deviation of red, green and blue, of 255 (ImageNet's)."""
    flow_std: float = 32.0
    """What a step of the 8-bit flow code is divided by: 32 lets +-bound become about +-4."""

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise UsageError(f"a crop needs at least 1 pixel, not {self.crop}")
        if self.resized_crop is not None and not 0 < self.resized_crop <= 1:
            raise UsageError(f"--transform.resized-crop is a fraction of the frame's area, not {self.resized_crop}")
        if not 0 <= self.color_jitter < 1:
            raise UsageError(f"--transform.color-jitter must lie between 0 and 1, not {self.color_jitter}")


class CropWindow(NamedTuple):
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


Part = Literal["drawn", "whole", "square"]


def window(transform: Transform, clip: Clip, height: int, *, width: int, part: Part) -> CropWindow:
    """The part of a frame of height x width pixels that a clip takes.

    part: drawn, as in training; or, as in testing, whole: all of it; square: of its short side."""
    if part == "whole":
        return CropWindow(0, 0, height, width)
    if part == "square":
        high = wide = min(height, width)
    elif transform.resized_crop is None:
        high = wide = transform.crop
    else:
        area = height * width * (transform.resized_crop + (1 - transform.resized_crop) * clip.area)
        narrow, broad = map(math.log, ASPECTS)
        aspect = math.exp(narrow + (broad - narrow) * clip.aspect)
        high = min(max(round(math.sqrt(area / aspect)), 1), height)
        wide = min(max(round(math.sqrt(area * aspect)), 1), width)
    # The free play has width - wide + 1 places, each equally likely.
    top = min(int(clip.crop_y * (height - high + 1)), height - high)
    left = min(int(clip.crop_x * (width - wide + 1)), width - wide)
    return CropWindow(top, left, high, wide)


def jitter(transform: Transform, clip: Clip) -> tuple[float, float, float]:
    """Factors of a clip's brightness, contrast and saturation."""
    brightness, contrast, saturation = (1 + transform.color_jitter * (2 * draw - 1) for draw in clip.color)
    return brightness, contrast, saturation
