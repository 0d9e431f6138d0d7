"""Why a video cannot go into a dataset: the reasons, the exception that carries one, and the limits on one video."""

from dataclasses import dataclass

REASONS = (
    "missing",  # the file is listed but does not exist
    "unreadable",  # no permission, not a regular file, empty, or not a video file of a supported format
    "no-video",  # the file has no video stream (cover art does not count)
    "too-short",  # fewer frames than required, or the video ends before the annotated interval does
    "truncated",  # the file is shorter than its container declares
    "too-large",  # over a limit on pixels, frames or memory
    "timeout",  # over a limit on time
    "decoder-error",  # ffmpeg failed, or too many frames are damaged
)


class Rejected(Exception):
    """A video that cannot go into the dataset.

    reason: one of REASONS. detail: one line that explains it to a person.
    Raises ValueError for a reason that is not in REASONS.
    """

    def __init__(self, reason: str, detail: str):
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is not one of {REASONS}")
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class Limits:
    """Limits on what decoding one video may cost.

    A video over a limit is rejected, and its ffmpeg process is killed with all its child processes.
    """

    pixels: int = 4096 * 4096  # of one frame, as stored and as resized: 4K passes, 8K does not
    frames: int = 10_000  # at the constant rate: 400 s at 25 frames per second
    frame_bytes: int = 4 << 30  # all resized frames of one video: 10,000 frames of 213 x 120 are 0.8e9 bytes
    seconds: float = 600.0  # wall time of one ffmpeg run, and its processor time
    stall_s: float = 120.0  # wall time without a byte of output
    memory_bytes: int = 4 << 30  # address space of ffmpeg (Linux only)
