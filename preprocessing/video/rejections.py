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
    "internal-error",  # an error in lgd or in a library that nobody foresaw; the detail names the line of code
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


class TooManyFrames(Rejected):
    """A video whose decoded frames exceed a limit on their number or on their memory ("too-large")."""

    def __init__(self, detail: str):
        super().__init__("too-large", detail)

    def __reduce__(self) -> tuple[type["TooManyFrames"], tuple[str]]:
        return type(self), (self.detail,)


@dataclass(frozen=True)
class Limits:
    """Limits on what decoding one video may cost.

    A video over a limit is rejected, and its ffmpeg process is killed with all its child processes.
    `lgd.preprocessing.limits` derives them from the options of `lgd preprocess`.
    """

    pixels: int = 4096 * 4096  # of one frame, as stored and as resized: 4K passes, 8K does not
    side: int = 65_500  # of a stored picture, the maximum of JPEG; a picture of the flow is two frames wide
    frames: int = 10_000  # at the constant rate: 400 s at 25 frames per second
    frame_bytes: int = 4 << 30  # all resized frames of one video: 10,000 frames of 213 x 120 are 0.8e9 bytes
    seconds: float = 600.0  # wall time of one ffmpeg run, and its processor time
    stall_s: float = 120.0  # wall time without a byte of output
    memory_bytes: int = 4 << 30  # address space of ffmpeg (Linux only)
    follows_node: bool = False  # the limits on bytes are those of this node: a larger one may accept the video
    options: bool = True  # the command has options for the limits and for the size of the frames; rejections name them

    def check_size(self, width: int, height: int) -> None:
        """Raise Rejected ("too-large") unless frames of this size, pixels, can be stored in every stream: a video is in
        all streams or in none, so the size of the flow's pictures counts even if only the colors are stored."""
        if 2 * width > self.side or height > self.side:
            raise Rejected(
                "too-large",
                f"its resized frames, {width} x {height} pixels, do not fit into a JPEG: the limit is "
                f"{self.side // 2} pixels wide (flow stores two planes side by side) and {self.side} high; "
                f"{self._smaller()}",
            )
        if width * height > self.pixels:
            raise Rejected(
                "too-large",
                f"its resized frames, {width} x {height} pixels, exceed the limit of {self.pixels} pixels: "
                f"{self._smaller()}",
            )

    def check_frames(self, frames: int, frame_bytes: int) -> None:
        """Raise TooManyFrames if a video has more frames, or more bytes of resized frames, than allowed."""
        if frames > self.frames:
            raise TooManyFrames(f"the video has more than {self.frames} frames, the limit: {self.more_frames()}")
        if frame_bytes > self.frame_bytes:
            raise TooManyFrames(f"its frames take more than {self.in_words(self.frame_bytes)}")

    def in_words(self, limit: int) -> str:
        """Return a limit in bytes as text, with what to do about it."""
        origin = ", half of this node's memory per task" if self.follows_node else ""
        advice = (
            "raise the limit with --max-memory-gb" if self.options else "cut the video, or convert it to a smaller one"
        )
        return f"{limit / (1 << 30):.3g} GiB{origin}: {advice}"

    def more_frames(self) -> str:
        """Return what to do about a video with too many frames."""
        return "raise it with --max-frames or --max-seconds" if self.options else "cut the video"

    def _smaller(self) -> str:
        """Return what to do about frames that are too large."""
        return "crop the video, or use a smaller --short-side" if self.options else "crop the video"
