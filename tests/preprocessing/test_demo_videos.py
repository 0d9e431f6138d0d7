"""The rendered set of labeled videos."""

from pathlib import Path

import numpy as np

from lgd.preprocessing.demo_videos import FRAMES, HEIGHT, MOTIONS, WIDTH, render, render_set
from lgd.preprocessing.video.decode import decode


def test_every_class_has_its_videos_of_the_documented_size(tmp_path: Path) -> None:
    render_set(tmp_path, videos_per_class=1)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert names == sorted(f"{name}/{name}_000.mp4" for name in MOTIONS)
    assert decode(tmp_path / "spin" / "spin_000.mp4", 25, HEIGHT).rgb.shape == (FRAMES, HEIGHT, WIDTH, 3)


def test_existing_videos_are_kept_and_the_set_can_grow(tmp_path: Path) -> None:
    render_set(tmp_path / "small", videos_per_class=1)
    (tmp_path / "small" / "up" / "up_000.mp4").write_bytes(b"kept")
    (tmp_path / "small" / "up" / ".tmp-killed-up_001.mp4").touch()  # left by a writer that was killed
    render_set(tmp_path / "small", videos_per_class=2)
    render_set(tmp_path / "large", videos_per_class=2)
    small, large = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*")} for name in ("small", "large")
    )
    assert small.pop("up_000.mp4") == b"kept"
    assert len(large.pop("up_000.mp4")) > 1000
    assert small == large


def test_the_frames_depend_on_the_seed_only() -> None:
    first, again, different = (render(MOTIONS["spin"], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, different)
