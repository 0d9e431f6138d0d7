"""What happens to decoded frames on their way to the network."""

from dataclasses import dataclass

from pipeline.errors import UsageError


@dataclass(frozen=True)
class Transform:
    """What happens to decoded frames on their way to the network."""

    crop: int = 112
    """Side of the square crop in training, pixels. Testing takes whole frames."""
    flip: bool = True
    """Mirror half of the training clips, negating the x component of flow."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Mean of red, green and blue, of 255 (ImageNet's). Flow has its own zero, 128."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Standard deviation of red, green and blue, of 255 (ImageNet's)."""
    flow_std: float = 32.0
    """What a step of the 8-bit flow code is divided by: 32 lets +-bound become about +-4."""

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise UsageError(f"a crop needs at least 1 pixel, not {self.crop}")
