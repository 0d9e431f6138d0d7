"""How many tasks run at once. (What happens to tasks on a cluster is in tests/preprocessing/test_job.py.)"""

from typing import Any

import pytest
import ray

from lgd.pipeline import tasks
from lgd.pipeline.tasks import _Capacity


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


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
    monkeypatch.setattr(tasks, "WARN_AFTER_S", -1.0)
    nodes.append(node(CPU=2.0))
    capacity = _Capacity({"CPU": 4.0, "GPU": 1.0}, None)
    assert [capacity.now() for _ in range(3)] == [0, 0, 0]
    assert capsys.readouterr().err == "waiting: no node of the cluster has 4 CPU and 1 GPU\n"
    nodes.append(node(CPU=4.0, GPU=1.0))
    assert capacity.now() == 1
    nodes.pop()
    capacity.now()
    assert "waiting" in capsys.readouterr().err
