"""The frames of random videos carry the numbers that their source frames show at that time, by PyAV's times.

A fixed sample runs with the other tests. `make property N=1000 SEED=1` makes more videos, prints what it made, and
for each failure the plan, a smaller plan that fails as well, and the commands that make its file.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lgd.preprocessing.video import decode as decode_module
from lgd.preprocessing.video.decode import Frames, decode
from lgd.preprocessing.video.rejections import Rejected
from tests.support.expected_frames import SourceFrame, expected_frames, source_frames
from tests.support.numbered_videos import MAX_NUMBER, UNREADABLE, read_numbers
from tests.support.video_commands import NotMadeError, commands, make
from tests.support.video_plans import B_FRAMES, CONTAINERS, ISO, VideoPlan, minimal_plan, plain_plan, random_plan

VIDEOS = int(os.environ.get("LGD_PROPERTY_VIDEOS", "40"))
SEED = int(os.environ.get("LGD_PROPERTY_SEED", "8815"))
FPS, SHORT_SIDE = 25.0, 48
MAX_SHRUNK = 5  # failures that are made smaller


@dataclass(frozen=True)
class Fault:
    """What is wrong with the frames of a video. kind: a few words; detail: the numbers."""

    kind: str
    detail: str


def check(plan: VideoPlan) -> Fault | None:
    """Make a video and compare what `decode` returns with what PyAV reads."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = make(plan, Path(folder))
        except NotMadeError as error:
            return Fault("not made", str(error))
        return compare(plan, path)


def compare(plan: VideoPlan, path: Path) -> Fault | None:
    """Compare the decoded frames of a video with what PyAV reads."""
    try:
        frames = source_frames(path)
    except av.FFmpegError as error:
        return _undecodable(path, str(error))
    shown = [frame.number for frame in frames]
    if not shown:
        return _undecodable(path, "no frames")
    if not _is_valid_source(plan, shown):
        return Fault("PyAV's frames are not those of the plan", _ranges(shown))
    expected = expected_frames(frames, FPS, step_s=_step_s(plan, frames))
    start_s, end_s = plan.interval
    times = [k / FPS for k in range(len(expected.numbers))]
    kept = [
        numbers
        for time_s, numbers in zip(times, expected.numbers, strict=True)
        if (start_s or 0.0) <= time_s < (end_s or times[-1] + 1)
    ]
    try:
        decoded = decode(path, FPS, SHORT_SIDE, start_s=start_s, end_s=end_s)
    except Rejected as rejected:
        if rejected.reason == _documented_reason(plan, len(kept)):
            return None
        return Fault(f"rejected, {rejected.reason}", f"{rejected.detail}; PyAV reads {len(frames)} frames")
    upright = np.rot90(decoded.rgb, -plan.rotation // 90, axes=(1, 2))  # the pictures are turned before they are stored
    numbers = read_numbers(upright.mean(axis=3).astype(np.uint8))
    slack = 1 if end_s is not None and len(times) / FPS > end_s else expected.slack
    detail = f"got {len(numbers)} frames {_ranges(numbers)}; expected {len(kept)}: {_ranges([min(n) for n in kept])}"
    if abs(len(numbers) - len(kept)) > slack:
        return Fault("frames lost" if len(numbers) < len(kept) else "too many frames", detail)
    wrong = [k for k, (number, right) in enumerate(zip(numbers, kept, strict=False)) if number not in right]
    if wrong:
        return Fault("different frames", f"first at {wrong[0]}: {detail}")
    # A slow video may be shorter by `slack`, but not without its last picture.
    complete = end_s is not None or numbers[-1] >= min(set.union(*kept[-2:]))
    return None if complete else Fault("last frame lost", detail)


def _is_valid_source(plan: VideoPlan, numbers: list[int]) -> bool:
    """Return whether the numbers that PyAV reads are complete, so that they can be compared with."""
    first = plan.offset is None or plan.offset[0] in ("shifted", "delayed")
    if plan.change and plan.container in ISO:
        first = False  # copied from TS with a later sound, the file gets an edit list that leaves out the first frames
    increasing = numbers == sorted(set(numbers)) and UNREADABLE not in numbers
    # libavcodec does not return the last picture before a change of format if it has to reorder it in these codecs.
    changes = (3 if plan.joined else 1) if plan.change else int(plan.joined)
    missing = changes if plan.codec in ("mpeg1", "mpeg2", "mpeg4") else 0
    complete = plan.variable == "sparse" or plan.gap is not None or len(numbers) >= plan.frames - missing
    return increasing and len(numbers) > 1 and (not first or (numbers[0] == 0 and complete))


def _step_s(plan: VideoPlan, frames: list[SourceFrame]) -> float | None:
    """Return the seconds from frame to frame if the file does not contain the times of its frames, else None."""
    if not CONTAINERS[plan.container].timed:
        return frames[0].duration_s or 1 / FPS
    # ASF has one time per frame. With B-frames it is that of decoding.
    return float(1 / Fraction(plan.rate)) if plan.container == "asf" and plan.codec in B_FRAMES else None


def _documented_reason(plan: VideoPlan, kept: int) -> str | None:
    """Return the reason for which a video of this plan must be rejected, as `decode` documents it, None if there is
    none. kept: expected frames."""
    start_s, end_s = plan.interval
    if kept < 2 or (end_s is not None and end_s - (start_s or 0.0) - kept / FPS > 0.5 - 1 / FPS):
        return "too-short"  # the interval ends long after the video
    if plan.rotation and plan.change:
        return "decoder-error"
    if plan.gap == ("jump", 3600.0) and plan.interval != (None, None):
        return "decoder-error"  # the times of the interval are not known
    return None


def _undecodable(path: Path, problem: str) -> Fault | None:
    """Return no fault if a file that PyAV cannot decode to its end is rejected."""
    try:
        decoded = decode(path, FPS, SHORT_SIDE)
    except Rejected as rejected:
        expected = rejected.reason in ("decoder-error", "no-video")
        return None if expected else Fault(f"rejected, {rejected.reason}", rejected.detail)
    return Fault("a file that cannot be decoded to its end", f"{problem}; got {len(decoded.rgb)} frames")


def _ranges(numbers: list[int]) -> str:
    """Return "0-9 12 20-29" for a list of numbers; "x" where they cannot be read."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1 and number > 0:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    words = ["x" if a == UNREADABLE else f"{a}-{b}" if b > a else f"{a}" for a, b in ranges]
    return " ".join(words if len(words) <= 30 else [*words[:20], "...", *words[-5:]])


def _describe(plan: VideoPlan, fault: Fault, *, shrink: bool) -> str:
    def fails(simpler: VideoPlan) -> bool:
        found = check(simpler)
        return found is not None and found.kind == fault.kind

    smallest = minimal_plan(plan, fails) if shrink else plan
    script = "\n    ".join(line[:1500] for line in commands(smallest)[1])
    return f"{plan}\n  {fault.kind}: {fault.detail}\n  fails as well: {smallest}\n    {script}"


def _summary(plans: list[VideoPlan], faults: list[tuple[VideoPlan, Fault]]) -> str:
    special = {
        "with sound": lambda plan: plan.sound,
        "with a changing format": lambda plan: plan.change,
        "joined": lambda plan: plan.joined,
        "with an offset": lambda plan: plan.offset,
        "with a gap": lambda plan: plan.gap,
        "with a variable rate": lambda plan: plan.variable,
        "rotated": lambda plan: plan.rotation,
        "streamed": lambda plan: plan.streamed,
        "with an interval": lambda plan: plan.interval != (None, None),
    }
    counts = ", ".join(f"{sum(bool(has(plan)) for plan in plans)} {name}" for name, has in special.items())
    pairs = {(plan.container, plan.codec) for plan in plans}
    kinds = Counter(fault.kind for _, fault in faults)
    return (
        f"{len(plans)} videos (seed {SEED}) in {len({plan.container for plan in plans})} containers with "
        f"{len({plan.codec for plan in plans})} codecs ({len(pairs)} combinations): {counts}\n"
        f"{len(faults)} failures {dict(kinds) if kinds else ''}"
    )


def test_random_videos_show_the_right_frames_at_each_moment(capsys: pytest.CaptureFixture[str]) -> None:
    plans = [random_plan(number, SEED) for number in range(VIDEOS)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(check, plans))
    faults = [(plan, fault) for plan, fault in zip(plans, found, strict=True) if fault]
    details = [_describe(plan, fault, shrink=i < MAX_SHRUNK) for i, (plan, fault) in enumerate(faults)]
    with capsys.disabled():
        print(f"\n{_summary(plans, faults)}")
    assert not faults, "\n\n".join(details)


def _without_frame_20(rgb: np.ndarray) -> np.ndarray:
    return np.delete(rgb, 20, axis=0)


def _one_frame_late(rgb: np.ndarray) -> np.ndarray:
    return np.concatenate([rgb[:1], rgb[:-1]])


def _without_the_end(rgb: np.ndarray) -> np.ndarray:
    return rgb[:40]


def _mirrored(rgb: np.ndarray) -> np.ndarray:
    return rgb[:, :, ::-1]


def _blended(rgb: np.ndarray) -> np.ndarray:
    return np.concatenate([rgb[:10], ((rgb[10:11].astype(int) + rgb[11:12]) // 2).astype(np.uint8), rgb[11:]])


@pytest.mark.parametrize("damage", [_without_frame_20, _one_frame_late, _without_the_end, _mirrored, _blended])
def test_wrong_frames_are_noticed(
    damage: Callable[[np.ndarray], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plain_plan("mp4", "h264")
    path = make(plan, tmp_path)
    assert compare(plan, path) is None

    def damaged(*arguments: object, **options: object) -> Frames:
        frames = decode_module.decode(*arguments, **options)  # type: ignore[arg-type]
        return replace(frames, rgb=damage(frames.rgb))

    monkeypatch.setattr(f"{__name__}.decode", damaged)
    assert compare(plan, path)


def test_all_numbers_can_be_read_after_lossy_compression(tmp_path: Path) -> None:
    plan = replace(plain_plan("mkv", "mpeg4"), frames=MAX_NUMBER + 1)
    assert [frame.number for frame in source_frames(make(plan, tmp_path))] == list(range(MAX_NUMBER + 1))
