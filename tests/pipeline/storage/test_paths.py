"""Paths of the wrong kind: one line each, before anything is opened."""

import os
import socket
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.storage.storage import Storage, folder_and_name
from lgd.training.fusion.comparison import fuse_and_compare
from lgd.training.report.page import write_report
from lgd.training.run import open_run
from lgd.training.scoring.scores import read_scores


@pytest.fixture
def wrong(tmp_path: Path) -> dict[str, str]:
    """Paths by what is wrong with them."""
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "loop.parquet").symlink_to("loop.parquet")
    (tmp_path / "zero.parquet").symlink_to("/dev/zero")
    (tmp_path / "broken.parquet").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.parquet"))
    (tmp_path / "file").touch()
    names = ("pipe", "folder", "loop", "zero", "broken", "socket")
    paths = {name: str(tmp_path / f"{name}.parquet") for name in names}
    return {**paths, "below a file": str(tmp_path / "file/x.parquet"), "long": str(tmp_path / ("x" * 300 + ".parquet")),
            "zero byte": "a\0b.parquet", "empty": "", "slash": str(tmp_path / "x/")}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        read_scores,
        open_run,
        open_dataset,
        lambda path: fuse_and_compare([path, "b.parquet"]),
        lambda path: write_report("r.html", [path]),
        lambda path: Storage(folder_and_name(path)[0].address).read(folder_and_name(path)[1]),
    ],
)
def test_every_wrong_path_is_one_line(wrong: dict[str, str], command):
    for name, path in wrong.items():
        missing = (FileNotFoundError,) if name in ("broken", "slash") else ()
        with pytest.raises((UserError, *missing)) as raised:
            command(path)
        assert missing or "\n" not in str(raised.value), name


def test_a_file_does_not_replace_a_pipe(wrong: dict[str, str]):
    folder, name = folder_and_name(wrong["pipe"])
    with pytest.raises(UserError, match="is a named pipe, not a file"):
        folder.write(name, b"")
