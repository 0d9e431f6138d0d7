"""Locks: one command at a time, in folders and object stores; locks of dead commands are taken over."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage import lock, lock_owner
from lgd.pipeline.storage.lock import LOCK, LockedStorage, LockLost, lock_tokens, locked, read_owner
from lgd.pipeline.storage.lock_owner import LockOwner
from lgd.pipeline.storage.storage import TEMPORARY, Storage

IN_USE = r"is in use by `lgd train` of .+ on .+ \(process \d+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\): "
HOLDER = """
import sys, time
from lgd.pipeline.storage.lock import locked
from lgd.pipeline.storage.storage import Storage
with locked(Storage(sys.argv[1]), "lgd train") as storage:
    with storage.writer("half") as file:
        print("held", flush=True)
        time.sleep(600)
"""


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("s3") if request.param == "s3" else tmp_path / "run")


@contextmanager
def on_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process believe that it runs on a machine of this name."""
    with monkeypatch.context() as patch:
        patch.setattr(lock_owner, "_this_machine", lambda: name)
        yield


@contextmanager
def holding_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a folder and has written half a file."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def leave_lock(folder: str, owner: LockOwner) -> None:
    """Write the file of a lock that nobody renews."""
    storage = Storage(folder)
    storage.make_folder()
    storage.write(LOCK + owner.token, owner.to_json())


def test_a_second_command_is_refused_with_the_holder_until_the_first_has_ended(folder: str):
    storage = Storage(folder)
    with locked(storage, "lgd train") as first:
        first.write("a", b"1")
        with pytest.raises(UserError, match=IN_USE) as refused, locked(storage, "lgd train"):
            pass
        assert "\n" not in str(refused.value)
        first.write("a", b"2")
        assert len(lock_tokens(storage)) == 1
    assert storage.names() == ["a"]
    with locked(storage, "lgd train") as next_one:
        next_one.write("a", b"3")
    assert storage.read("a") == b"3"


def test_of_many_commands_that_start_at_once_never_two_hold_the_lock(tmp_path: Path):
    holders, most, held = 0, 0, 0
    counting = threading.Lock()

    def try_often() -> None:
        nonlocal holders, most, held
        for _ in range(15):
            with contextlib.suppress(UserError), locked(Storage(tmp_path), "lgd train"):
                with counting:
                    holders += 1
                    held += 1
                    most = max(most, holders)
                time.sleep(0.002)
                with counting:
                    holders -= 1

    threads = [threading.Thread(target=try_often) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, held > 1) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_of_this_machine_is_taken_over_at_once_and_its_temporary_file_removed(
    tmp_path: Path,
):
    with holding_process(tmp_path) as process:
        with pytest.raises(UserError, match=rf"{IN_USE}wait until it ends, or end it with `kill {process.pid}`"):
            locked(Storage(tmp_path), "lgd train").__enter__()
        process.kill()
        process.wait()
        assert len(list(tmp_path.iterdir())) == 2
        with locked(Storage(tmp_path), "lgd train") as storage:
            storage.clean()
            assert storage.names() == [LOCK + storage.token]


def test_a_suspended_process_of_this_machine_keeps_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "LIMIT_S", 0.0)
    with holding_process(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        message = f"suspended: continue it with `kill -CONT {process.pid}`, or end it with `kill -KILL {process.pid}`"
        with pytest.raises(UserError, match=message):
            locked(Storage(tmp_path), "lgd train").__enter__()


def test_a_process_id_that_is_used_again_does_not_keep_a_lock(folder: str):
    owner = LockOwner.this_process("lgd train", "")
    leave_lock(folder, replace(owner, started=owner.started - 1, ticket=1))
    with locked(Storage(folder), "lgd train") as storage:
        assert lock_tokens(storage) == {storage.token}


def test_a_lock_of_another_machine_that_is_renewed_is_kept(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(lock, "RENEW_S", 0.1)
    monkeypatch.setattr(lock, "POLL_S", 0.02)
    with on_machine("elsewhere", monkeypatch):
        first = locked(Storage(folder), "lgd train")
        storage = first.__enter__()
    with pytest.raises(UserError, match=IN_USE + r"wait .* its lock is taken over 60 s after its last renewal"):
        locked(Storage(folder), "lgd train").__enter__()
    assert "on a machine that cannot be asked: taking over in " in capsys.readouterr().err
    storage.write("a", b"")
    first.__exit__(None, None, None)
    assert Storage(folder).names() == ["a"]


@pytest.mark.parametrize("ended", [False, True])
def test_a_command_that_was_suspended_for_too_long_writes_nothing_more(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, ended: bool
):
    monkeypatch.setattr(lock, "POLL_S", 0.02)
    with on_machine("elsewhere", monkeypatch):
        first = locked(Storage(folder), "lgd train")  # it is not renewed during this test
        suspended = first.__enter__()
    suspended.write("a", b"first")
    monkeypatch.setattr(lock, "LIMIT_S", 0.2)
    monkeypatch.setattr(lock, "RENEW_S", 0.03)
    second = locked(Storage(folder), "lgd train")
    storage = second.__enter__()
    assert "taking over from `lgd train` of " in capsys.readouterr().err
    storage.write("a", b"second")
    message = "was taken over by `lgd train` of .* because this command did not respond"
    if ended:
        second.__exit__(None, None, None)
        message = "the lock of this command is missing on .*: this command stops|it was removed and"
    for change in (lambda: suspended.write("a", b"first"), lambda: suspended.delete("a"), suspended.check_lock):
        with pytest.raises(LockLost, match=message) as lost:
            change()
        assert "\n" not in str(lost.value)
    copy = pickle.loads(pickle.dumps(suspended))  # in a worker
    assert isinstance(copy, LockedStorage)
    with pytest.raises(LockLost, match=message):
        copy.write("a", b"first")
    first.__exit__(None, None, None)
    assert Storage(folder).read("a") == b"second"
    if not ended:
        storage.write("a", b"still held")
        second.__exit__(None, None, None)
    assert Storage(folder).names() == ["a"]


def test_a_holder_whose_file_was_created_again_after_a_takeover_has_lost_it(folder: str):
    """In an object store, a renewal may be on its way while another command takes over."""
    with locked(Storage(folder), "lgd train") as first:
        owner = read_owner(first, first.token)
        assert owner
        leave_lock(folder, replace(owner, token="b" * 32, ticket=2, replaces=(first.token,)))
        with pytest.raises(LockLost, match="was taken over"):
            first.write("a", b"")
    assert Storage(folder).names() == [LOCK + "b" * 32]


def test_commands_with_the_same_work_share_the_lock_and_keep_each_others_temporary_files(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    storage = Storage(folder)
    with locked(storage, "lgd preprocess", "list 1") as first, locked(storage, "lgd preprocess", "list 1") as second:
        assert "sharing the work with `lgd preprocess` of " in capsys.readouterr().err
        for work in ("list 2", ""):
            with pytest.raises(UserError, match="is in use by `lgd preprocess`"):
                locked(storage, "lgd preprocess", work).__enter__()
        with first.writer("a") as file:
            second.clean()
            file.write(b"1")
        with Storage(folder).writer(f"{LOCK}third"):  # a command that is just about to ask for the lock
            second.clean()
        Storage(folder).delete(f"{LOCK}third")
        second.write("b", b"2")
    assert storage.names() == ["a", "b"]


def test_only_temporary_files_of_killed_processes_are_removed(tmp_path: Path):
    for name in (f"{TEMPORARY}x-a.tar", f"{TEMPORARY}{'0' * 32}-x-b.tar", "c.tar", "d/e.tar", f"d/{TEMPORARY}x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    with locked(Storage(tmp_path), "lgd preprocess") as storage:
        storage.clean()
        storage.clean("d")
    assert Storage(tmp_path).list_all() == ["c.tar", "d/e.tar"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"token": 1, "ticket": 1, "newer": 2}'])
def test_a_lock_file_that_cannot_be_understood_is_waited_for_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
):
    monkeypatch.setattr(lock, "POLL_S", 0.01)
    monkeypatch.setattr(lock, "LIMIT_S", 0.05)
    (tmp_path / f"{LOCK}x").write_bytes(content)
    with locked(Storage(tmp_path), "lgd train") as storage:
        assert lock_tokens(storage) == {storage.token}


def test_the_age_of_an_abandoned_lock_in_an_object_store_is_by_the_clock_of_the_store(
    s3: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "LIMIT_S", 1.0)
    monkeypatch.setattr(lock, "POLL_S", 0.01)
    leave_lock(s3, LockOwner("x", ticket=1))
    time.sleep(1.1)  # times of objects may be whole seconds
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waited"))
    with locked(Storage(s3), "lgd train") as storage:
        assert lock_tokens(storage) == {storage.token}


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "file"))):
        locked(Storage(tmp_path / "file" / "run"), "lgd train").__enter__()


def test_a_folder_that_was_deleted_is_a_lost_lock(tmp_path: Path):
    with locked(Storage(tmp_path / "run"), "lgd train") as storage:
        (tmp_path / "run" / (LOCK + storage.token)).unlink()
        (tmp_path / "run").rmdir()
        with pytest.raises(LockLost, match="is missing on"):
            storage.check_lock()
