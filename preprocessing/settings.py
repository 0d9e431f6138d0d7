"""What is done to every video, and the recipe that it makes."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import cv2

from pipeline.dataset import Recipe, Setting
from pipeline.errors import UsageError
from pipeline.flow_code import default_bound
from preprocessing.decode import ffmpeg_version
from preprocessing.tvl1 import SOLVER_VERSION
from preprocessing.tvl1_params import TVL1Params


@dataclass(frozen=True)
class Settings:
    """What is done to every video."""

    fps: float = 25.0
    """Constant rate of the frames, a second."""
    short_side: int = 120
    """Shorter side of the frames, pixels."""
    jpeg_quality: int = 90
    """JPEG quality of the colour frames, 1 to 100."""
    flow_jpeg_quality: int = 95
    """JPEG quality of the flow planes, 1 to 100."""
    bound: float | None = None
    """Largest motion that the flow code holds, pixels; by default it grows with the short side (9.4 at 120)."""
    backend: Literal["numba", "opencv", "torch"] = "numba"
    """Which TV-L1 solver computes the flow: numba, opencv or torch."""
    tvl1: TVL1Params = field(default_factory=TVL1Params)
    """Parameters of TV-L1."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("fps", 0.01, 1000),
            ("short_side", 2, 4096),
            ("jpeg_quality", 1, 100),
            ("flow_jpeg_quality", 1, 100),
        ):
            if not least <= getattr(self, name) <= most:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} must lie between {least} and {most}, not {getattr(self, name)}")
        if self.bound is not None and not self.bound > 0:
            raise UsageError(f"--bound must be more than 0 pixels, not {self.bound}")

    @property
    def flow_bound(self) -> float:
        return default_bound(self.short_side) if self.bound is None else self.bound

    def recipe(self, stream: str) -> Recipe:
        """Everything that decides the bytes of a stream, versions of the programs included."""
        shared: dict[str, Setting] = {
            "fps": float(self.fps),
            "short_side": self.short_side,
            "ffmpeg": ffmpeg_version(),
            "opencv": cv2.__version__,
        }
        if stream == "rgb":
            return Recipe("rgb", {**shared, "jpeg_quality": self.jpeg_quality})
        tvl1 = {f"tvl1.{name}": value for name, value in dataclasses.asdict(self.tvl1).items()}
        return Recipe(
            "flow",
            {
                **shared,
                **tvl1,
                "order": "resize, grey, flow",
                "backend": self.backend,
                "solver": SOLVER_VERSION[self.backend],
                "bound": float(self.flow_bound),
                "jpeg_quality": self.flow_jpeg_quality,
            },
        )
