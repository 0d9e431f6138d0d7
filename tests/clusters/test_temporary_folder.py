"""Ray's folder with any TMPDIR: its sockets have short paths, and nothing is left behind."""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lgd.clusters import temporary_folder
from lgd.clusters.temporary_folder import LONGEST_SOCKET, SOCKET_PATH_BYTES, ray_temporary_folder
from lgd.pipeline.console.errors import UserError


@pytest.fixture(autouse=True)
def links(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple]]:
    """No given folder; what would be removed when the process ends is recorded, and removed after the test."""
    found: list[tuple] = []
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr("atexit.register", lambda remove, *names: found.append((remove, *names)))
    yield found
    for remove, *names in found:
        remove(*names)


def fits(folder: str) -> bool:
    return len(os.fsencode(f"{folder}/{LONGEST_SOCKET}")) <= SOCKET_PATH_BYTES


def test_without_a_tmpdir_it_is_rays_own_default(monkeypatch: pytest.MonkeyPatch, links: list):
    monkeypatch.delenv("TMPDIR", raising=False)
    assert ray_temporary_folder() == "/tmp/ray"
    assert links == []


@pytest.mark.parametrize("name", ["a" * 60, "a" * 150, "/".join(["a" * 99] * 3), "two words", "日本語"])
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_path_that_ray_cannot_use_is_replaced_by_a_link_to_the_same_folder_which_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: list, name: str, variable: str
):
    given = tmp_path / name
    given.mkdir(parents=True)
    monkeypatch.setenv(variable, str(given))
    folder = ray_temporary_folder()
    assert fits(folder)
    assert os.path.realpath(folder) == str(given / "ray")
    session = Path(folder, "session_1")
    session.mkdir()
    Path(folder, "session_latest").symlink_to(session)  # as Ray does
    ((remove, *names),) = links
    remove(*names)
    assert not os.path.lexists(os.path.dirname(folder))
    assert (given / "ray" / "session_latest").resolve() == given / "ray" / "session_1"


def test_a_relative_tmpdir_is_made_absolute_for_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    (tmp_path / "t").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", "t")
    assert os.path.realpath(ray_temporary_folder()) == str(tmp_path / "t" / "ray")
    assert os.environ["TMPDIR"] == str(tmp_path / "t")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_tmpdir_that_cannot_be_used_is_named_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, name: str
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    assert ray_temporary_folder() == "/tmp/ray"
    assert os.environ["TMPDIR"] == "/tmp"
    assert f"TMPDIR is {tmp_path / name}, which is not a folder that can be written to: /tmp is used" in (
        capsys.readouterr().err
    )


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert re.fullmatch(rf"{tmp_path}/ray-\w+", os.path.realpath(ray_temporary_folder()))


def test_without_a_folder_for_the_link_the_advice_is_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(temporary_folder, "SHORT_FOLDERS", (str(tmp_path / "missing"),))
    (tmp_path / ("a" * 60)).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("a" * 60)))
    with pytest.raises(UserError, match=r"too long for Ray's sockets.*: set TMPDIR to a folder with a short path"):
        ray_temporary_folder()


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot create .*file/ray \(Not a directory\): set TMPDIR or RAY_TMPDIR to a"):
        ray_temporary_folder()
