"""Parameters of TV-L1 optical flow."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from lgd.pipeline.console.errors import UsageError


@dataclass(frozen=True)
class TVL1Params:
    """Parameters of TV-L1 optical flow, with the names and defaults of OpenCV, for gray values from 0 to 255.

    The energy and its dual solution are from Zach, Pock, Bischof, "A Duality Based Approach for Realtime TV-L1 Optical
    Flow" (DAGM 2007). The scheme of scales, warps and iterations, and the symbols, are from Sanchez, Meinhardt-Llopis,
    Facciolo, "TV-L1 Optical Flow Estimation" (Image Processing On Line 3, 2013). Median filtering between iterations is
    from Wedel, Pock, Zach, Bischof, Cremers, "An Improved Algorithm for TV-L1 Optical Flow" (2009).

    Raises UsageError for a value for which the iteration is not defined.
    """

    tau: float = 0.25  # time step of the dual variable
    lambda_: Annotated[float, arg(name="lambda")] = 0.15  # weight of the data term: smaller is smoother
    theta: float = 0.3  # coupling of the data and the smoothness term: smaller is tighter
    scales: int = 5  # maximum number of scales of the image pyramid; a scale has at least 16 rows and columns
    scale_step: float = 0.8  # size of a scale relative to the next finer one
    warps: int = 5  # linearizations per scale
    epsilon: float = 0.01  # pixels: a warp ends when an iteration changes the flow by less (root mean square)
    inner_iterations: int = 30  # maximum number between two median filterings
    outer_iterations: int = 10  # maximum number of median filterings per warp
    median_filtering: int = 5  # width of the median filter in pixels: 1 (none), 3 or 5

    def __post_init__(self) -> None:
        for name in ("tau", "lambda_", "theta", "scales", "warps", "inner_iterations", "outer_iterations"):
            if not getattr(self, name) > 0:
                raise UsageError(
                    f"--flow.tvl1.{name.strip('_').replace('_', '-')} must be greater than 0, not {getattr(self, name)}"
                )
        if not 0 < self.scale_step < 1:
            raise UsageError(f"--flow.tvl1.scale-step must be between 0 and 1, not {self.scale_step}")
        if not self.epsilon >= 0:
            raise UsageError(f"--flow.tvl1.epsilon must be 0 or more, not {self.epsilon}")
        if self.median_filtering not in (1, 3, 5):
            raise UsageError(f"--flow.tvl1.median-filtering must be 1, 3 or 5, not {self.median_filtering}")
