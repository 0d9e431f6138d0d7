"""How videos are seen in testing, and what tasks that do so may take of a cluster: the options of `lgd evaluate`."""

from dataclasses import dataclass
from typing import Literal

from lgd.pipeline.console.errors import UsageError
from lgd.training.recipes import TrainConfig

CROPS = (1, 3)

Precision = Literal["float32", "bfloat16"]
ExtraColumn = Literal["clips", "features"]
CheckpointChoice = Literal["last", "best"]


@dataclass(frozen=True)
class TestProtocol:
    """How a video is seen in testing: its views are uniform clips, each through one window or several."""

    clips: int | None = None
    """Uniform clips a video. Default: as the run's recipe says."""
    crops: int = 1
    """1: whole frames, fully convolutional, as in the paper. 3: squares of the short side at both ends and in the
    middle of the longer one."""
    precision: Precision = "float32"
    """Arithmetic of the network. bfloat16 is quicker on GPUs; clips then depend a little on their batch."""
    keep: tuple[ExtraColumn, ...] = ()
    """Columns besides the mean: each view's probabilities (clips) and last representations (features)."""

    def __post_init__(self) -> None:
        if self.clips is not None and self.clips < 1:
            raise UsageError(f"--clips must be 1 or more, not {self.clips}")
        if self.crops not in CROPS:
            raise UsageError(f"--crops is 1 (whole frames) or 3 (squares along the longer side), not {self.crops}")

    def clips_of(self, config: TrainConfig) -> int:
        """Clips a video, for a run of this configuration."""
        return self.clips or config.test_clips

    def describe(self, config: TrainConfig) -> str:
        """The protocol in words, for a run of this configuration."""
        sampling = config.sampling
        what = "triples" if (sampling.segments, sampling.frames) == (True, 3) else "clips"
        frames = "" if what == "triples" else f" {sampling.frames}"
        apart = f" {sampling.stride} apart" if sampling.stride > 1 else ""
        seen = "whole frames" if self.crops == 1 else f"frames{apart}, {self.crops} square crops each"
        return f"{self.clips_of(config)} uniform {what} of{frames} {seen}" + (apart if self.crops == 1 else "")


@dataclass(frozen=True)
class ScoringResources:
    """What the tasks, each of which scores a part of the split, may take of the cluster."""

    workers: int | None = None
    """Parts of the split scored at once. Default: as many as the cluster has room for."""
    cpus_per_task: float | None = None
    """CPUs that a task takes. Default: 1; beside a GPU up to 8, its share of the node's."""
    batch: int = 16
    """Clips that a task computes at once. Changes no score."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers must be 1 or more, not {self.workers}")
        if self.cpus_per_task is not None and not self.cpus_per_task > 0:
            raise UsageError(f"--cpus-per-task must be more than 0, not {self.cpus_per_task:g}")
        if self.batch < 1:
            raise UsageError(f"--batch must be 1 or more, not {self.batch}")
