"""The owner of a lock: what its file says, and whether its process runs."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from lgd.pipeline.storage import lock_owner
from lgd.pipeline.storage.lock_owner import LockOwner


@pytest.fixture
def owner() -> LockOwner:
    return LockOwner.this_process("lgd train", "")


def test_a_lock_file_is_read_back(owner: LockOwner):
    owner = replace(owner, ticket=3, replaces=("a", "b"))
    assert LockOwner.from_json(owner.token, owner.to_json()) == owner
    newer = json.dumps({**json.loads(owner.to_json()), "new_field": 1}).encode()
    assert LockOwner.from_json(owner.token, newer) == owner


def test_this_process_is_alive_and_a_process_that_has_ended_is_not(owner: LockOwner):
    assert (owner.pid, owner.is_alive(), owner.is_suspended()) == (os.getpid(), True, False)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    stat = lock_owner._process_stat(child.pid)
    assert stat
    zombie = replace(owner, pid=child.pid, started=stat[1])
    assert zombie.is_alive() is False
    child.wait()
    assert zombie.is_alive() is False


def test_a_process_id_that_another_process_has_now_is_not_alive(owner: LockOwner):
    assert replace(owner, started=owner.started + 1).is_alive() is False


@pytest.mark.parametrize("machine", ["", "node boot pid:[1]"])
def test_processes_of_other_machines_and_containers_are_unknown(owner: LockOwner, machine: str):
    assert replace(owner, machine=machine).is_alive() is None
    assert replace(owner, machine=machine).is_suspended() is False


def test_a_process_of_another_user_is_alive(owner: LockOwner, monkeypatch: pytest.MonkeyPatch):
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert owner.is_alive() is True
    monkeypatch.setattr(lock_owner, "_process_stat", lambda pid: None)  # hidden, as with the mount option hidepid
    assert owner.is_alive() is None


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch):
    def no_name() -> str:
        raise KeyError

    monkeypatch.setattr("getpass.getuser", no_name)
    assert LockOwner.this_process("lgd train", "").user == str(os.getuid())
