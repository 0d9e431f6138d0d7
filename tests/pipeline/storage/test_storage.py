import errno
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import TEMPORARY, Storage


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path):
    storage = Storage(tmp_path)
    with storage.writer("a.bin") as file:
        file.write(b"whole")
        assert not storage.exists("a.bin")
    assert storage.read("a.bin") == b"whole"
    assert storage.names() == ["a.bin"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
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


def test_what_killed_writers_leave_is_cleaned_and_nothing_else(tmp_path: Path):
    storage = Storage(tmp_path)
    storage.write("keep.tar", b"")
    (tmp_path / f"{TEMPORARY}x-keep.tar").write_bytes(b"half")
    storage.clean()
    assert storage.names() == ["keep.tar"]


def test_storage_reads_and_lists_below_its_root_whatever_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    storage = Storage("data")
    storage.make_folder("inside")
    storage.write("inside/a", b"12345")
    monkeypatch.chdir("/")
    assert (storage.size("inside/a"), storage.size("inside"), storage.names("inside")) == (5, None, ["a"])
    with storage.map("inside/a") as file:
        assert file.read() == b"12345"
    assert storage.display("inside/a") == "data/inside/a"
    assert storage.names("nowhere") == []


def test_a_full_disk_is_one_line_that_says_what_to_do(full_disk: Path):
    storage = Storage(full_disk)
    with pytest.raises(UserError, match=r"no space is left .* run the same command again") as raised:
        storage.write("big", bytes(4 << 20))
    assert "\n" not in str(raised.value)
    assert storage.names() == []


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="file"):
        Storage(tmp_path / "file" / "data").make_folder()


@pytest.mark.parametrize(
    ("folder", "said"), [("/proc/no/such", "cannot make the folder /proc/no/such"), (f"/tmp/{300 * 'a'}", "too long")]
)
def test_a_folder_that_cannot_be_made_is_one_line(folder: str, said: str):
    with pytest.raises(UserError, match=said):
        Storage(folder).make_folder()


def test_other_faults_are_not_dressed_up(tmp_path: Path):
    with pytest.raises(OSError, match="strange") as raised, Storage(tmp_path).writer("a"):
        raise OSError(errno.EIO, "strange")
    assert raised.value.errno == errno.EIO
