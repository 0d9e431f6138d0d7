from dataclasses import replace

import pytest

from lgd.pipeline import node
from lgd.pipeline.console.errors import UsageError
from lgd.preprocessing.limits import GIB, LimitOptions
from lgd.preprocessing.settings import PreprocessResources
from lgd.preprocessing.video.rejections import Limits


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        (LimitOptions(), 10_000),
        (LimitOptions(max_frames=50_000), 50_000),
        (LimitOptions(max_frames=7), 7),
        (LimitOptions(max_seconds=3600), 90_000),
        (LimitOptions(max_seconds=0.01), 1),
        (LimitOptions(max_frames=50_000, max_seconds=60), 1500),
        (LimitOptions(max_frames=1000, max_seconds=60), 1000),
    ],
)
def test_the_smaller_of_the_given_limits_on_frames_counts(options: LimitOptions, frames: int):
    assert options.frames(25.0) == options.limits(25.0, GIB).frames == frames


@pytest.mark.parametrize(
    ("per_task_gb", "options", "frames_gb"),
    [
        (100, LimitOptions(), 4),  # never more by default
        (6, LimitOptions(), 3),  # half of the memory per task
        (0.5, LimitOptions(), 1),  # never less by default
        (100, LimitOptions(max_frames=20_000), 8),  # in proportion
        (6, LimitOptions(max_frames=20_000), 3),  # but never more than the node has
        (6, LimitOptions(max_memory_gb=16), 16),
        (100, LimitOptions(max_memory_gb=0.25), 0.25),
    ],
)
def test_memory_follows_the_node_unless_it_is_given(per_task_gb: float, options: LimitOptions, frames_gb: float):
    limits = options.limits(25.0, int(per_task_gb * GIB))
    assert limits.frame_bytes == frames_gb * GIB
    assert limits.memory_bytes == max(frames_gb, 1) * GIB  # ffmpeg needs some of it for itself
    assert limits.follows_node == (options.max_memory_gb is None)


def test_the_time_limit_grows_with_the_number_of_frames():
    assert LimitOptions(max_frames=90_000).limits(25.0, GIB).seconds == 9 * Limits.seconds
    assert LimitOptions(max_frames=100).limits(25.0, GIB).seconds == Limits.seconds


def test_a_large_node_with_the_default_options_has_the_default_limits():
    assert replace(LimitOptions().limits(25.0, 8 * GIB), follows_node=False) == Limits()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_frames": 0}, "--max-frames must be 1 or more, not 0"),
        ({"max_seconds": 0.0}, "--max-seconds must be greater than 0, not 0"),
        ({"max_seconds": float("nan")}, "--max-seconds must be greater than 0, not nan"),
        ({"max_memory_gb": -1.0}, "--max-memory-gb must be greater than 0, not -1"),
        ({"max_memory_gb": float("inf")}, "--max-memory-gb must be greater than 0, not inf"),
    ],
)
def test_a_limit_outside_its_range_is_refused(options: dict[str, float], message: str):
    with pytest.raises(UsageError, match=f"^{message}$"):
        LimitOptions(**options)  # type: ignore[arg-type]


def test_the_limits_of_a_task_follow_the_tasks_of_its_node(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(node, "node_memory", lambda: 32 * GIB)
    monkeypatch.setattr(node, "node_cpus", lambda: 8.0)
    assert PreprocessResources().limits_on_this_node(25.0).frame_bytes == 2 * GIB
    assert PreprocessResources(cpus_per_task=1.5).limits_on_this_node(25.0).frame_bytes == 32 * GIB // 5 // 2
    assert PreprocessResources(num_workers=1).limits_on_this_node(25.0).frame_bytes == 4 * GIB
    # The next video is in memory as well.
    assert PreprocessResources(cpus_per_task=2).limits_on_this_node(25.0).frame_bytes == 32 * GIB // 4 * 2 // 3 // 2
