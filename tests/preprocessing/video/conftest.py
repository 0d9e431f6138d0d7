"""Fixtures that make videos, and that replace ffmpeg."""

import os
from pathlib import Path

import pytest

from tests.preprocessing.video.generated_videos import FakeFfmpeg, Make, ffmpeg


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that makes a video in the temporary folder."""

    def video(name: str, source: str, *options: str) -> Path:
        path = tmp_path / name
        inputs = ["-f", "lavfi", "-i", source]
        ffmpeg("-y", *inputs, *options, f"file:{path}")
        return path

    return video


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFfmpeg:
    """Return a function that puts a shell script in the place of ffmpeg."""

    def install(script: str) -> None:
        file = tmp_path / "bin" / "ffmpeg"
        file.parent.mkdir()
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", str(file.parent), prepend=os.pathsep)

    return install
