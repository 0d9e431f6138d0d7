"""The options of `lgd predict`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from lgd.training.scoring.protocol import CheckpointChoice


@dataclass(frozen=True)
class PredictOptions:
    """How video files are classified; see `lgd.prediction.predict_files.predict_files`."""

    weights: Annotated[tuple[float, float], arg(metavar="RGB FLOW")] = (1.0, 1.0)
    """Weights of the two runs."""
    clips: int | None = None
    """Uniform clips per video. Default: the number in each run's recipe."""
    crops: int = 1
    """Crops per clip: 1 for full frames (of frames longer than 16:1, their middle), 3 for squares of the short side
    along the long side."""
    checkpoint: CheckpointChoice = "last"
    """The last checkpoint of each run, or its best one by validation top-1."""
    top: int = 5
    """Number of classes per video."""
    render: Annotated[str | None, arg(metavar="OUT")] = None
    """Draw the videos with their predictions, and with the optical flow if --flow is given: NAME.mp4 for one video, or
    a folder for one mp4 per video."""
