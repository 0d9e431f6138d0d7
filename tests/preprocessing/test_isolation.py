import errno
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numba.core.errors
import numpy as np
import pytest

from lgd.pipeline.console.errors import NodeError, StoreError, UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.manifest import Video
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.encode import encode_video
from lgd.preprocessing.isolation import KNOWN, describe, encode_isolated
from lgd.preprocessing.settings import Settings
from lgd.preprocessing.video.rejections import Limits, Rejected

VIDEO = Video("key", "class/video.mp4", 0, "class", "train")
ENCODED = {"rgb": "encoded"}


class Failing:
    """An `encode` that raises the errors one after the other for VIDEO, and none for the known video of the check."""

    def __init__(self, *errors: Callable[[], object]):
        self.errors = list(errors)
        self.calls: list[str] = []

    def __call__(self, videos: Storage, video: Video, settings: Settings, **arguments: Any) -> Any:
        self.calls.append(video.key)
        if video.key == VIDEO.key and self.errors:
            self.errors.pop(0)()
        return ENCODED


def isolated(encode: Any, folder: Path, limits: Limits = Limits()) -> Any:
    (folder / "class").mkdir(exist_ok=True)
    return encode_isolated(
        encode,
        Storage(folder),
        VIDEO,
        settings=Settings(),
        streams=("rgb",),
        counters=ShardCounters(),
        limits=limits,
    )


def raising(error: BaseException) -> Callable[[], object]:
    def function() -> None:
        raise error

    return function


def recurse() -> object:
    return recurse()


UNFORESEEN = {
    "ZeroDivisionError": lambda: 1 / 0,
    "cv2.error": lambda: cv2.resize(np.zeros((0, 0, 3), np.uint8), (3, 3)),
    "UnicodeDecodeError": lambda: b"\xff".decode(),
    "OverflowError": lambda: (1 << 70).to_bytes(4, "big"),
    "RecursionError": recurse,
    "RuntimeError": raising(RuntimeError("OpenCV could not encode an image")),
    "OSError": raising(OSError(errno.EINVAL, "Invalid argument")),
    "AssertionError": raising(AssertionError()),
    "numba.core.errors.TypingError": raising(numba.core.errors.TypingError("cannot\n  determine\ttype")),
    "MemoryError": raising(MemoryError("8 PiB")),  # more than a video may take, which could be allocated
}


@pytest.mark.parametrize("name", UNFORESEEN)
def test_an_unforeseen_error_is_repeated_once_and_then_rejects_the_video(name: str, tmp_path: Path):
    encode = Failing(UNFORESEEN[name], UNFORESEEN[name])
    with pytest.raises(Rejected) as caught:
        isolated(encode, tmp_path)
    assert encode.calls == [VIDEO.key, VIDEO.key, KNOWN]
    assert caught.value.reason == "internal-error"
    assert re.fullmatch(
        rf"{re.escape(name)}(: .+)? \(lgd/preprocessing/isolation\.py, line \d+\)", caught.value.detail
    ), caught.value.detail


def test_an_error_that_does_not_happen_again_rejects_nothing(tmp_path: Path):
    encode = Failing(lambda: 1 / 0)
    assert isolated(encode, tmp_path) == ENCODED
    assert encode.calls == [VIDEO.key, VIDEO.key]


def test_a_rejection_is_passed_on(tmp_path: Path):
    encode = Failing(lambda: 1 / 0, raising(Rejected("truncated", "half of it")))
    with pytest.raises(Rejected, match="truncated"):
        isolated(encode, tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "text") for number in (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT)),
        *(OSError(number, "text") for number in (errno.EMFILE, errno.ENOMEM, errno.ENOENT, errno.EACCES)),
        OSError("the object store does not answer"),
        UserError("this node's versions differ"),
        StoreError("the store is unreachable"),
        NodeError("ffmpeg was killed from outside by SIGKILL"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_an_error_that_a_video_does_not_cause_is_raised_at_once(error: BaseException, tmp_path: Path):
    encode = Failing(raising(error))
    with pytest.raises(type(error)) as caught:
        isolated(encode, tmp_path)
    assert caught.value is error
    assert encode.calls == [VIDEO.key]


@pytest.mark.parametrize(
    "error", [MemoryError("no memory"), RuntimeError("CUDA error: an illegal memory access"), RuntimeError("CUDA OOM")]
)
def test_a_node_without_memory_or_with_a_broken_gpu_rejects_no_video(error: Exception, tmp_path: Path):
    with pytest.raises(NodeError, match=rf"class/video\.mp4 \({type(error).__name__}: {error} "):
        isolated(Failing(raising(error)), tmp_path, Limits(frame_bytes=1 << 62))


def test_a_part_of_a_file_that_the_disk_cannot_read_is_the_reason_of_this_file_alone(tmp_path: Path):
    error = raising(OSError(errno.EIO, "Input/output error"))
    with pytest.raises(Rejected, match="unreadable: Input/output error: the disk cannot read a part of the file"):
        isolated(Failing(error, error), tmp_path)


def test_a_file_system_that_is_broken_as_a_whole_rejects_no_video(tmp_path: Path):
    def break_folder() -> None:
        (tmp_path / "class").rmdir()
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="class"):
        isolated(Failing(break_folder), tmp_path)


def test_a_node_that_fails_on_a_known_video_as_well_rejects_no_video(tmp_path: Path):
    def broken(*_: object, **__: object) -> None:
        raise ImportError("libcuda.so is missing")

    with pytest.raises(NodeError, match=r"no video can be encoded on this node.*: ImportError: libcuda\.so is missing"):
        isolated(broken, tmp_path)


@pytest.mark.parametrize("fps", [0.01, 24000 / 1001, 1000.0])
@pytest.mark.parametrize("short_side", [2, 120])
def test_the_known_video_can_be_encoded_with_any_settings(fps: float, short_side: int, tmp_path: Path):
    streams = ("rgb", "flow")
    settings = Settings(fps=fps, short_side=short_side)
    frames: list[int] = []

    def encode(videos: Storage, video: Video, settings: Settings, **arguments: Any) -> Any:
        if video.key != KNOWN:
            raise ZeroDivisionError
        encoded = encode_video(videos, video, settings, **arguments)
        frames.extend(len(encoded[stream].frames) for stream in streams)
        return encoded

    with pytest.raises(Rejected, match="internal-error: ZeroDivisionError"):
        encode_isolated(
            encode,
            Storage(tmp_path),
            VIDEO,
            settings=settings,
            streams=streams,
            counters=ShardCounters(),
            limits=Limits(),
        )
    assert frames == [2, 1]


def test_a_limit_that_the_known_video_exceeds_does_not_hide_the_error(tmp_path: Path):
    def encode(videos: Storage, video: Video, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError if video.key != KNOWN else Rejected("too-large", "a frame")

    with pytest.raises(Rejected, match="internal-error: ZeroDivisionError"):
        isolated(encode, tmp_path)


def test_the_description_of_an_error_is_one_line_that_is_the_same_on_every_run():
    for text, expected in (
        ("a\nb\r\n  c\td", "a b c d"),
        ("<object at 0x7f12ab34cd56>, /dev/fd/17, /tmp/.tmp-ab_12xyz", "<object at ...>, /dev/fd/..., ..."),
        ("title \x1b[31m \udcff é", "title ?[31m ? é"),
        ("x" * 1000, "x" * 300),
    ):
        assert describe(ValueError(text)) == f"ValueError: {expected}"
    assert describe(KeyError()) == "KeyError"


def test_the_description_names_the_last_line_of_our_code(tmp_path: Path):
    """Also if a library raises the error."""
    video = replace(VIDEO, path="video.mp4")
    (tmp_path / "video.mp4").write_bytes(b"x")
    with pytest.raises(AttributeError) as caught:
        encode_video(
            Storage(tmp_path),
            video,
            Settings(),
            streams=(),
            counters=ShardCounters(),
            limits=None,  # type: ignore[arg-type]
        )
    assert re.search(r" \(lgd/preprocessing/video/\w+\.py, line \d+\)$", describe(caught.value))
