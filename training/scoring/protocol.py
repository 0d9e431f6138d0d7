"""The options of `lgd evaluate`: how videos are tested, and what its tasks may take of the cluster."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from lgd.pipeline.console.errors import UsageError
from lgd.training.recipes import TrainConfig

CROPS = (1, 3)

Precision = Literal["float32", "bfloat16"]
ExtraColumn = Literal["clips", "features"]
CheckpointChoice = Literal["last", "best"]


@dataclass(frozen=True)
class TestProtocol:
    """How a video is tested: its views are uniform clips, each with one crop or several."""

    __test__: ClassVar[bool] = False  # pytest would take the class for a test

    clips: int | None = None
    """Uniform clips per video. Default: the number in the run's recipe."""
    crops: int = 1
    """Crops per clip. 1: the full frame, as in the paper (the network is fully convolutional); of frames longer than
    16:1 their middle. 3: squares of the short side at both ends and in the middle of the long side."""
    precision: Precision = "float32"
    """Precision of the network. bfloat16 is faster on GPUs; the scores of a clip then depend slightly on its batch."""
    keep: tuple[ExtraColumn, ...] = ()
    """Additional columns: probabilities of each view (clips), last representations of each view (features)."""

    def __post_init__(self) -> None:
        if self.clips is not None and self.clips < 1:
            raise UsageError(f"--clips must be 1 or more, not {self.clips}")
        if self.crops not in CROPS:
            raise UsageError(f"--crops must be 1 (full frames) or 3 (squares along the long side), not {self.crops}")

    def clips_of(self, config: TrainConfig) -> int:
        """Return the clips per video for a run of this configuration."""
        return self.clips or config.test_clips

    def describe(self, config: TrainConfig) -> str:
        """Return the protocol in words for a run of this configuration.

        Score files contain these words, and they are part of the identity of an evaluation: different words would
        score again what is already scored."""
        sampling = config.sampling
        what = "triples" if (sampling.segments, sampling.frames) == (True, 3) else "clips"
        frames = "" if what == "triples" else f" {sampling.frames}"
        stride = f" {sampling.stride} apart" if sampling.stride > 1 else ""
        crops = "whole frames" if self.crops == 1 else f"frames{stride}, {self.crops} square crops each"
        return f"{self.clips_of(config)} uniform {what} of{frames} {crops}" + (stride if self.crops == 1 else "")


@dataclass(frozen=True)
class ScoringResources:
    """Resources of the tasks, each of which scores one chunk of the split."""

    num_workers: Annotated[int | None, arg(aliases=["--workers"])] = None
    """Tasks that run at the same time. Default: as many as fit on the cluster."""
    cpus_per_task: float | None = None
    """CPUs per task. Default: 1; for a task with a GPU its share of the node's CPUs, at most 8."""
    batch_size: int = 16
    """Clips that a task scores at the same time. Does not change the scores."""

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise UsageError(f"--num-workers must be 1 or more, not {self.num_workers}")
        if self.cpus_per_task is not None and not self.cpus_per_task > 0:
            raise UsageError(f"--cpus-per-task must be more than 0, not {self.cpus_per_task:g}")
        if self.batch_size < 1:
            raise UsageError(f"--batch-size must be 1 or more, not {self.batch_size}")
