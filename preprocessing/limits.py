"""The options of `lgd preprocess` that limit what one video may cost: frames, duration and memory."""

import math
from dataclasses import dataclass

from lgd.pipeline.console.errors import UsageError
from lgd.preprocessing.video.rejections import Limits

GIB = 1 << 30
MIN_MEMORY = GIB  # bytes: enough for every video with the default options, so that its result depends on no machine


@dataclass(frozen=True)
class LimitOptions:
    """Limits on one video: a video over a limit is rejected. They are not part of a stream's spec: a rerun may use
    different limits, which apply to the videos that it decodes. Raises UsageError for a value outside its range."""

    max_frames: int | None = None
    """Maximum number of frames per video, at --fps; longer videos are rejected. Default: 10,000 (400 s at 25 frames per
    second), or as many as --max-seconds allows. The time limit of ffmpeg (600 s) grows with it."""
    max_seconds: float | None = None
    """Maximum duration of a video, or of its annotated interval, seconds. Default: that of --max-frames."""
    max_memory_gb: float | None = None
    """Maximum memory of the decoded frames of a video, and of its ffmpeg process, GiB each. Default: half of the node's
    memory per task (a third with --cpus-per-task 2 or more), at least 1 and at most 4 GiB (more in proportion with more
    than 10,000 frames)."""

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"--max-frames must be 1 or more, not {self.max_frames}")
        for option, value in (("--max-seconds", self.max_seconds), ("--max-memory-gb", self.max_memory_gb)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{option} must be greater than 0, not {value:g}")

    def frames(self, fps: float) -> int:
        """Return the maximum number of frames of a video at this frame rate."""
        frames = [] if self.max_frames is None else [self.max_frames]
        if self.max_seconds is not None:
            frames.append(max(math.ceil(self.max_seconds * fps), 1))
        return min(frames, default=Limits.frames)

    def limits(self, fps: float, memory_per_task: int) -> Limits:
        """Return the limits for videos at a frame rate on a node with so many bytes of memory per task."""
        frames = self.frames(fps)
        growth = max(frames / Limits.frames, 1.0)
        if self.max_memory_gb is None:
            memory = max(min(memory_per_task // 2, int(Limits.frame_bytes * growth)), MIN_MEMORY)
        else:
            memory = int(self.max_memory_gb * GIB)
        return Limits(
            frames=frames,
            frame_bytes=memory,
            memory_bytes=max(memory, MIN_MEMORY),
            seconds=Limits.seconds * growth,
            follows_node=self.max_memory_gb is None,
        )
