"""How many tasks run at once, and what their errors become.

What happens to tasks on a cluster is in tests/preprocessing/test_job.py.
"""

import errno
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from lgd.pipeline import placement, tasks
from lgd.pipeline.console.errors import NodeError, UserError
from lgd.pipeline.tasks import Task, _Capacity, run_tasks
from lgd.preprocessing.counters import ShardCounters


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources, "NodeManagerHostname": "node-1"}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The nodes of a cluster, which a test may change."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(tasks, "SIZE_INTERVAL_S", -1.0)  # check at every call
    return found


def test_as_many_tasks_as_fit_on_the_living_nodes(nodes: list[dict[str, Any]]):
    nodes += [node(CPU=4.0, memory=1.0), node(CPU=3.0, GPU=1.0), node(alive=False, CPU=64.0)]
    assert _Capacity({"CPU": 2.0}, None).now() == 3
    assert _Capacity({"CPU": 2.0}, workers=2).now() == 2
    assert _Capacity({"CPU": 1.0, "GPU": 0.25}, None).now() == 3
    assert _Capacity({"CPU": 0.5}, None).now() == 14


def test_the_capacity_follows_a_cluster_that_changes(nodes: list[dict[str, Any]]):
    capacity = _Capacity({"CPU": 1.0}, None)
    assert capacity.now() == 0
    nodes.append(node(CPU=2.0))
    assert capacity.now() == 2
    nodes.clear()
    assert capacity.now() == 0


def test_a_cluster_without_a_node_that_is_large_enough_is_reported_once(
    nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(placement, "WARN_AFTER_S", -1.0)
    nodes.append(node(CPU=2.0))
    capacity = _Capacity({"CPU": 4.0, "GPU": 1.0}, None)
    assert [capacity.now() for _ in range(3)] == [0, 0, 0]
    assert capsys.readouterr().err == (
        "waiting: no node of the cluster has 4 CPU and 1 GPU for a task: node-1 has 2 CPU and 0 GPU: add such a node, "
        "or lower --cpus-per-task\n"
    )
    nodes.append(node(CPU=4.0, GPU=1.0))
    assert capacity.now() == 1
    nodes.pop()
    capacity.now()
    assert "waiting" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cause", "expected", "line"),
    [
        (
            NodeError("ffmpeg was killed from outside by SIGKILL"),
            NodeError,
            "ffmpeg was killed from outside by SIGKILL",
        ),
        (
            OSError(errno.ESTALE, "Stale file handle", "/videos/a.mp4"),
            UserError,
            "shard train-000000 failed 11 times ([Errno 116] Stale file handle: '/videos/a.mp4'); progress is saved: "
            "rerun the same command to resume",
        ),
        (RuntimeError("a mistake"), RayTaskError, None),  # its traceback is printed
    ],
    ids=repr,
)
def test_what_fails_in_every_attempt_is_one_line_unless_it_is_a_mistake(
    cause: Exception,
    expected: type[Exception],
    line: str | None,
    nodes: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
):
    class Failing:
        def remote(self) -> Iterator[Any]:
            raised = RayTaskError("make_shard", "the traceback", cause)
            return (raise_error(raised) for _ in range(1))

    nodes.append(node(CPU=1.0))
    monkeypatch.setattr(tasks, "_remote", lambda *_: Failing())
    monkeypatch.setattr(ray, "wait", lambda generators, **_: (generators, []))
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(ray, "cancel", lambda generator: None)
    task = Task("shard train-000000", lambda: iter(()), {}, 1)
    with pytest.raises(expected) as caught:
        run_tasks("preprocess", [task], {"CPU": 1.0}, workers=None, total=ShardCounters())
    if line is not None:
        assert str(caught.value) == line


def raise_error(error: Exception) -> Any:
    raise error
