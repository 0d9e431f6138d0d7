"""Configuration of preprocessing: the settings that decide the bytes of the streams, and the resources of its tasks."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast, get_args

import cv2
from tyro.conf import arg

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import IMPLIED_SETTINGS, Setting, StreamSpec
from lgd.pipeline.dataset.flow_code import default_bound
from lgd.pipeline.node import memory_per_task
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.tvl1 import solver_version
from lgd.preprocessing.limits import LimitOptions
from lgd.preprocessing.video.colors import UntaggedMatrix
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_version
from lgd.preprocessing.video.rejections import Limits

UNTAGGED_MATRIX: UntaggedMatrix = "bt709-hd"  # of a new dataset
GPUS_PER_TASK = 1 / 16  # with --flow.device cuda: decoding and JPEG keep a task's core busy nearly all of the time


@dataclass(frozen=True)
class FlowSettings:
    """Settings of the flow stream. Raises UsageError for a value outside its range."""

    bound: float | None = None
    """Largest motion that the flow code represents, pixels. Default: 20/256 of the short side (9.4 at 120)."""
    jpeg_quality: int = 95
    """JPEG quality of the flow planes, 1 to 100."""
    backend: Literal["numba", "opencv", "torch"] = "numba"
    """TV-L1 solver that computes the flow: numba, opencv or torch."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the torch backend: cpu, or cuda for GPUs; each task then uses --gpus-per-task."""
    tvl1: TVL1Params = field(default_factory=TVL1Params)
    """Parameters of TV-L1 optical flow."""

    def __post_init__(self) -> None:
        _check_range("--flow.jpeg-quality", self.jpeg_quality, 1, maximum=100)
        if self.bound is not None and not self.bound > 0:
            raise UsageError(f"--flow.bound must be greater than 0 pixels, not {self.bound}")
        if self.device == "cuda" and self.backend != "torch":
            raise UsageError(f"--flow.device cuda requires --flow.backend torch: {self.backend} computes on the CPU")

    @property
    def torch_device(self) -> str | None:
        """The device as `compute_flow` expects it: None unless the backend is torch."""
        return self.device if self.backend == "torch" else None


@dataclass(frozen=True)
class Settings:
    """Settings that apply to every video. Raises UsageError for a value outside its range."""

    fps: float = 25.0
    """Constant frame rate of the streams, frames per second."""
    short_side: int = 120
    """Shorter side of the frames, pixels."""
    jpeg_quality: int = 90
    """JPEG quality of the color frames, 1 to 100."""
    untagged_matrix: UntaggedMatrix | None = None
    """Color matrix of videos that do not declare one: bt709-hd (as in players: BT.709 for pictures of 720 lines and
    more, else BT.601) or bt601. Default: that of an existing dataset, bt709-hd for a new one."""
    flow: FlowSettings = field(default_factory=FlowSettings)
    """Settings of the flow stream."""

    def __post_init__(self) -> None:
        _check_range("--fps", self.fps, 0.01, maximum=1000)
        _check_range("--short-side", self.short_side, 2, maximum=4096)
        _check_range("--jpeg-quality", self.jpeg_quality, 1, maximum=100)

    @property
    def flow_bound(self) -> float:
        """Largest motion that the flow code represents, pixels."""
        return default_bound(self.short_side) if self.flow.bound is None else self.flow.bound

    @property
    def decoded_untagged_matrix(self) -> UntaggedMatrix:
        """The color matrix of videos that do not declare one, as `decode` expects it."""
        return self.untagged_matrix or UNTAGGED_MATRIX

    def of_dataset(self, specs: Mapping[str, StreamSpec]) -> "Settings":
        """Return the settings with the defaults that an existing dataset determines. specs: of its streams.

        Raises UsageError for a different color matrix: all streams of a dataset are computed from the same frames."""
        rules = {stream: _untagged_matrix(spec) for stream, spec in specs.items()}
        for stream, rule in rules.items():
            if self.untagged_matrix not in (None, rule):
                raise UsageError(
                    f"--untagged-matrix {self.untagged_matrix}: the {stream} stream of the dataset was created with "
                    f"{rule}; omit the option, or choose a new folder with --out"
                )
        return dataclasses.replace(self, untagged_matrix=next(iter(rules.values()), self.untagged_matrix))

    def spec(self, stream: str) -> StreamSpec:
        """Return everything that decides the bytes of a stream, including the versions of the libraries."""
        shared: dict[str, Setting] = {
            "fps": float(self.fps),
            "short_side": self.short_side,
            "ffmpeg": ffmpeg_version(),
            "opencv": cv2.__version__,
        }
        if self.decoded_untagged_matrix != IMPLIED_SETTINGS["untagged_matrix"]:
            shared["untagged_matrix"] = self.decoded_untagged_matrix
        if stream == "rgb":
            return StreamSpec("rgb", {**shared, "jpeg_quality": self.jpeg_quality})
        tvl1 = {f"tvl1.{name}": value for name, value in dataclasses.asdict(self.flow.tvl1).items()}
        return StreamSpec(
            "flow",
            {
                **shared,
                **tvl1,
                "order": "resize, grey, flow",
                "backend": self.flow.backend,
                "solver": solver_version(self.flow.backend, self.flow.torch_device),
                "bound": float(self.flow_bound),
                "jpeg_quality": self.flow.jpeg_quality,
            },
        )


def _check_range(option: str, value: float, minimum: float, *, maximum: float) -> None:
    if not minimum <= value <= maximum:
        raise UsageError(f"{option} must be between {minimum} and {maximum}, not {value}")


def _untagged_matrix(spec: StreamSpec) -> UntaggedMatrix:
    """Return the color matrix of untagged videos in a stream. Raises UserError for one of a later version."""
    matrix = {**IMPLIED_SETTINGS, **spec.settings}["untagged_matrix"]
    if matrix not in get_args(UntaggedMatrix):
        raise UserError(
            f"the installed version does not know the settings of the {spec.stream} stream (untagged_matrix: {matrix})"
        )
    return cast(UntaggedMatrix, matrix)


VERSIONS = {"ffmpeg", "opencv", "solver"}  # entries of a spec that are not options but versions found on the machine


def settings_from_specs(specs: Mapping[str, StreamSpec]) -> Settings:
    """Return the settings that create streams with these specs: the inverse of `Settings.spec`, except for versions.

    The specs must have the same frame rate, size and color matrix of untagged videos. Flow that was computed on a GPU
    is computed on the CPU where there is no GPU. Raises UserError, naming what differs, for a spec that the installed
    version cannot reproduce."""
    settings = Settings()
    try:
        for stream, spec in specs.items():
            given: dict[str, Any] = dict(spec.settings)
            settings = dataclasses.replace(
                settings, fps=given["fps"], short_side=given["short_side"], untagged_matrix=_untagged_matrix(spec)
            )
            if stream == "rgb":
                settings = dataclasses.replace(settings, jpeg_quality=given["jpeg_quality"])
            else:
                tvl1 = {name.removeprefix("tvl1."): v for name, v in given.items() if name.startswith("tvl1.")}
                flow = FlowSettings(
                    bound=given["bound"],
                    jpeg_quality=given["jpeg_quality"],
                    backend=given["backend"],
                    device="cuda" if given["solver"].endswith(", cuda)") and _has_gpu() else "cpu",
                    tvl1=TVL1Params(**tvl1),
                )
                settings = dataclasses.replace(settings, flow=flow)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the installed version does not know the settings of the {stream} stream ({error})") from error
    for stream, spec in specs.items():
        current = settings.spec(stream)
        names = {*spec.settings, *current.settings} - VERSIONS
        if any(spec.settings.get(name) != current.settings.get(name) for name in names):
            differences = "; ".join(spec.differences(current))
            raise UserError(
                f"the installed version cannot reproduce the settings of the {stream} stream: {differences}"
            )
    return settings


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True)
class PreprocessResources:
    """Resources of the cluster for preprocessing tasks, each of which creates one shard.

    Raises UsageError for a value outside its range."""

    num_workers: Annotated[int | None, arg(aliases=("--workers",))] = None
    """Maximum number of shards created at the same time. Default: as many as fit on the cluster."""
    cpus_per_task: float = 1.0
    """CPUs per task. With 2 or more, a task decodes the next video and encodes JPEGs while it computes the flow: for
    tasks that share a GPU. On CPUs, tasks of 1 CPU are faster."""
    gpus_per_task: float | None = None
    """GPUs, or the fraction of one GPU, per task. Default: 0.0625 with --flow.device cuda, else 0."""
    limits: Annotated[LimitOptions, arg(name="")] = LimitOptions()
    """Limits on one video."""

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise UsageError(f"--num-workers must be 1 or more, not {self.num_workers}")
        if not self.cpus_per_task > 0:
            raise UsageError(f"--cpus-per-task must be greater than 0, not {self.cpus_per_task:g}")
        gpus = self.gpus_per_task or 0
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise UsageError(f"--gpus-per-task must be a fraction of 1 or a whole number, not {gpus:g}")

    def limits_on_this_node(self, fps: float) -> Limits:
        """Return the limits on a video at a frame rate; those on memory depend on the node that calls this method."""
        memory = memory_per_task(self.cpus_per_task, self.num_workers)
        if self.cpus_per_task >= 2:  # the next video is in memory as well, see `overlap`
            memory = memory * 2 // 3
        return self.limits.limits(fps, memory)

    def per_task(self, device: str) -> dict[str, float]:
        """Return the resources of one task by Ray's names. device: where the flow is computed, cpu or cuda.

        Raises UsageError if the number of GPUs does not fit the device."""
        gpus = self.gpus_per_task
        if device == "cuda" and gpus == 0:
            raise UsageError("--flow.device cuda requires --gpus-per-task to be greater than 0")
        if device == "cpu" and gpus:
            raise UsageError(
                "--gpus-per-task requires --flow.backend torch --flow.device cuda: nothing else uses a GPU"
            )
        resources = {"CPU": self.cpus_per_task}
        return resources if device == "cpu" else {**resources, "GPU": GPUS_PER_TASK if gpus is None else gpus}
