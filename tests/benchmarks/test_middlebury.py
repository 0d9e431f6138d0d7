"""Folders of Middlebury pairs, and their files."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lgd.benchmarks.middlebury import PAIR_FILES, end_point_errors, middlebury_folders, read_flo
from lgd.pipeline.console.errors import UserError


def write_pair(folder: Path) -> None:
    """Write a Middlebury pair with a motion of 1 pixel to the right; the motion of the first row is unknown."""
    folder.mkdir(parents=True)
    texture = cv2.resize(np.random.default_rng(0).uniform(0, 255, (12, 16)), (81, 60), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(texture, 0, 255).astype(np.uint8)
    cv2.imwrite(str(folder / "frame10.png"), picture[:, 1:])
    cv2.imwrite(str(folder / "frame11.png"), picture[:, :-1])
    truth = np.tile(np.array([1, 0], "<f4"), (60, 80, 1))
    truth[0] = 1e10
    (folder / "flow10.flo").write_bytes(b"PIEH" + np.array([80, 60], "<i4").tobytes() + truth.tobytes())


def test_folders_of_pairs_have_unique_names_and_incomplete_ones_are_ignored(tmp_path: Path):
    files = [f"{folder}/{name}" for folder in ("a/Venus", "b/Venus", "c/Urban") for name in PAIR_FILES]
    folders = middlebury_folders(tmp_path, [*files, "d/Grove/flow10.flo"])
    assert {name: folder.relative_to(tmp_path).as_posix() for name, folder in folders.items()} == {
        "a/Venus": "a/Venus",
        "b/Venus": "b/Venus",
        "Urban": "c/Urban",
    }
    assert middlebury_folders(tmp_path, list(PAIR_FILES)) == {tmp_path.name: tmp_path}


def test_files_that_are_not_a_pair_are_a_user_error(tmp_path: Path):
    folder = tmp_path / "shift"
    write_pair(folder)
    content = (folder / "flow10.flo").read_bytes()
    for damaged in (b"", content[:-1], b"text" + content[4:]):
        (folder / "flow10.flo").write_bytes(damaged)
        with pytest.raises(UserError, match="not a complete Middlebury flow file"):
            read_flo(folder / "flow10.flo")
    (folder / "flow10.flo").write_bytes(content)
    (folder / "frame11.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="of the same size"):
        end_point_errors(folder)
