"""What is done to every video, the recipe that it makes, and what it may take of a cluster."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Setting, StreamSpec
from lgd.pipeline.dataset.flow_code import default_bound
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.tvl1 import solver_version
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_version

GPUS_PER_TASK = 0.25  # with --device cuda: decoding and JPEG keep a task's core busy most of the time


@dataclass(frozen=True)
class Settings:
    """What is done to every video."""

    fps: float = 25.0
    """Constant rate of the frames, a second."""
    short_side: int = 120
    """Shorter side of the frames, pixels."""
    jpeg_quality: int = 90
    """JPEG quality of the color frames, 1 to 100."""
    flow_jpeg_quality: int = 95
    """JPEG quality of the flow planes, 1 to 100."""
    bound: float | None = None
    """Largest motion that the flow code holds, pixels; by default it grows with the short side (9.4 at 120)."""
    backend: Literal["numba", "opencv", "torch"] = "numba"
    """Which TV-L1 solver computes the flow: numba, opencv or torch."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the torch backend computes: cpu, or cuda for GPUs, of which each task takes --gpus-per-task."""
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
        if self.device == "cuda" and self.backend != "torch":
            raise UsageError(f"--device cuda goes with --backend torch: {self.backend} computes on the CPU")

    @property
    def flow_device(self) -> str | None:
        """As `compute_flow` takes it."""
        return self.device if self.backend == "torch" else None

    @property
    def flow_bound(self) -> float:
        return default_bound(self.short_side) if self.bound is None else self.bound

    def spec(self, stream: str) -> StreamSpec:
        """Everything that decides the bytes of a stream, versions of the programs included."""
        shared: dict[str, Setting] = {
            "fps": float(self.fps),
            "short_side": self.short_side,
            "ffmpeg": ffmpeg_version(),
            "opencv": cv2.__version__,
        }
        if stream == "rgb":
            return StreamSpec("rgb", {**shared, "jpeg_quality": self.jpeg_quality})
        tvl1 = {f"tvl1.{name}": value for name, value in dataclasses.asdict(self.tvl1).items()}
        return StreamSpec(
            "flow",
            {
                **shared,
                **tvl1,
                "order": "resize, grey, flow",
                "backend": self.backend,
                "solver": solver_version(self.backend, self.flow_device),
                "bound": float(self.flow_bound),
                "jpeg_quality": self.flow_jpeg_quality,
            },
        )


VERSIONS = {"ffmpeg", "opencv", "solver"}  # settings of a recipe that are not chosen, but found on the machine


def settings_of(specs: Mapping[str, StreamSpec]) -> Settings:
    """The settings that make streams by these recipes, of one rate and size, up to the versions of this machine's
    programs: the inverse of `Settings.recipe`. Where there is no GPU, one that computed the flow is done without.

    Raises UserError, naming what differs, for a recipe that these programs cannot follow."""
    settings = Settings()
    try:
        for stream, spec in specs.items():
            given: dict[str, Any] = dict(spec.settings)
            settings = dataclasses.replace(settings, fps=given["fps"], short_side=given["short_side"])
            if stream == "rgb":
                settings = dataclasses.replace(settings, jpeg_quality=given["jpeg_quality"])
            else:
                tvl1 = {name.removeprefix("tvl1."): v for name, v in given.items() if name.startswith("tvl1.")}
                settings = dataclasses.replace(
                    settings,
                    bound=given["bound"],
                    flow_jpeg_quality=given["jpeg_quality"],
                    backend=given["backend"],
                    device="cuda" if given["solver"].endswith(", cuda)") and _has_gpu() else "cpu",
                    tvl1=TVL1Params(**tvl1),
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"these programs do not know the recipe of the {stream} stream ({error})") from error
    for stream, spec in specs.items():
        own = settings.spec(stream)
        if [name for name in {*spec.settings, *own.settings} - VERSIONS if _differs(name, spec, own)]:
            raise UserError(
                f"these programs cannot follow the recipe of the {stream} stream: {'; '.join(spec.differences(own))}"
            )
    return settings


def _differs(name: str, spec: StreamSpec, other: StreamSpec) -> bool:
    return spec.settings.get(name) != other.settings.get(name)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True)
class PreprocessResources:
    """What the tasks, each of which makes one shard, may take of the cluster."""

    workers: int | None = None
    """Shards made at once. Default: as many as the cluster has room for."""
    cpus_per_task: float = 1.0
    """CPUs that a task takes."""
    gpus_per_task: float | None = None
    """GPUs, or the fraction of one, that a task takes. Default: 0.25 with --device cuda, else 0."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers must be 1 or more, not {self.workers}")
        if not self.cpus_per_task > 0:
            raise UsageError(f"--cpus-per-task must be more than 0, not {self.cpus_per_task:g}")
        gpus = self.gpus_per_task or 0
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise UsageError(f"--gpus-per-task must be a fraction of 1 or a whole number, not {gpus:g}")

    def of_task(self, device: str) -> dict[str, float]:
        """What one task takes, by Ray's names. device: where the flow is computed, cpu or cuda."""
        gpus = self.gpus_per_task
        if device == "cuda" and gpus == 0:
            raise UsageError("--device cuda needs --gpus-per-task to be more than 0")
        if device == "cpu" and gpus:
            raise UsageError("--gpus-per-task goes with --backend torch --device cuda: nothing else uses a GPU")
        needs = {"CPU": self.cpus_per_task}
        return needs if device == "cpu" else {**needs, "GPU": GPUS_PER_TASK if gpus is None else gpus}
