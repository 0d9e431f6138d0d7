"""Local folders: atomic writes, relative paths, `~`, and errors of the file system in one line."""

import errno
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage, folder_and_name, folder_beside


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path):
    storage = Storage(tmp_path)
    with storage.writer("a.bin") as file:
        file.write(b"complete")
        assert not storage.exists("a.bin")
    assert storage.read("a.bin") == b"complete"
    assert storage.names() == ["a.bin"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path):
    storage = Storage(tmp_path)
    storage.write("a.bin", b"old")

    def write_half() -> None:
        with storage.writer("a.bin") as file:
            file.write(b"half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_half()
    assert storage.read("a.bin") == b"old"
    assert storage.names() == ["a.bin"]


def test_paths_are_relative_to_the_root_in_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    storage = Storage("data")
    storage.make_folder("inside")
    storage.write("inside/a", b"12345")
    monkeypatch.chdir("/")
    assert (storage.size("inside/a"), storage.size("inside"), storage.names("inside")) == (5, None, ["a"])
    with storage.map("inside/a") as file:
        assert file.read() == b"12345"
    assert storage.display("inside/a") == "data/inside/a"
    assert storage.names("missing") == []


def test_a_full_disk_is_one_line_that_says_what_to_do(full_disk: Path):
    storage = Storage(full_disk)
    with pytest.raises(UserError, match=r"no space is left .* rerun the same command to resume") as raised:
        storage.write("big", bytes(4 << 20))
    assert "\n" not in str(raised.value)
    assert storage.names() == []


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="a part of the path is a file, not a folder"):
        Storage(tmp_path / "file" / "data").make_folder()


@pytest.mark.parametrize(
    ("folder", "message"),
    [("/proc/no/such", "cannot create the folder /proc/no/such"), (f"/tmp/{300 * 'a'}", "too long")],
)
def test_a_folder_that_cannot_be_created_is_one_line(folder: str, message: str):
    with pytest.raises(UserError, match=message):
        Storage(folder).make_folder()


def test_other_errors_are_raised_unchanged(tmp_path: Path):
    with pytest.raises(OSError, match="strange") as raised, Storage(tmp_path).writer("a"):
        raise OSError(errno.EIO, "strange")
    assert raised.value.errno == errno.EIO


def test_a_tilde_at_the_start_of_a_path_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Storage("~").write("a.bin", b"1")
    assert Storage("~/data").address == Storage(Path("~/data")).display() == f"{tmp_path}/data"
    folder, name = folder_and_name("~/a.bin")
    assert folder.read(name) == b"1"
    assert folder_beside("~/a.bin", ".parts").address == f"{tmp_path}/a.bin.parts"
    monkeypatch.chdir(tmp_path)
    for path in ("b~/c", "~no-such-user/c", "./~/c"):
        assert Storage(path).path() == f"{tmp_path}/{path.removeprefix('./')}"
