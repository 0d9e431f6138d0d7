"""Video folders and lists for the tests of annotations."""

from pathlib import Path

import pytest


def create_files(folder: Path, *paths: str) -> Path:
    """Create empty files: reading annotations never opens videos."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def write_file(folder: Path, text: str | bytes, name: str = "list.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return create_files(tmp_path / "videos", "jump/a.mp4", "jump/b.avi", "run/c.webm", "run/deep/d.MKV")
