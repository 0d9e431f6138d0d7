import os
from pathlib import Path

import pytest

from lgd.pipeline import node
from lgd.pipeline.node import memory_per_task, node_memory

GIB = 1 << 30
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "memory"),
    [
        ("0::/\n", {}, MACHINE),  # no limit
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/\n", {"memory.max": "1073741824\n"}, GIB),  # a container
        ("0::/job/step\n", {"job/memory.max": "2147483648\n", "job/step/memory.max": "max\n"}, 2 * GIB),
        ("0::/job/step\n", {"job/memory.max": "2147483648\n", "job/step/memory.max": "1073741824\n"}, GIB),
        # Version 1, with the path of the host: the files are those of the container.
        ("4:cpu:/x\n3:memory:/docker/0123\n", {"memory/memory.limit_in_bytes": "1073741824\n"}, GIB),
        ("3:memory:/uid_1/job_2\n", {"memory/uid_1/job_2/memory.limit_in_bytes": "1073741824\n"}, GIB),
        ("3:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, MACHINE),  # no limit
        ("4:cpu:/\n", {"cpu/memory.limit_in_bytes": "1\n", "memory.max": "1\n"}, MACHINE),  # of other groups
    ],
)
def test_the_memory_is_that_of_the_container_or_the_job(
    tmp_path: Path, groups: str, files: dict[str, str], memory: int
):
    write(tmp_path / "cgroup", groups)
    for name, text in files.items():
        write(tmp_path / "sys" / name, text)
    assert node_memory(tmp_path / "cgroup", tmp_path / "sys") == memory
    assert node_memory(tmp_path / "absent", tmp_path / "sys") == MACHINE


def test_tasks_share_the_memory_of_the_node(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(node, "node_memory", lambda: 32 * GIB)
    monkeypatch.setattr(node, "node_cpus", lambda: 8.0)
    assert memory_per_task() == 4 * GIB
    assert memory_per_task(cpus_per_task=3) == 16 * GIB  # 2 tasks fit
    assert memory_per_task(cpus_per_task=0.5) == 2 * GIB
    assert memory_per_task(cpus_per_task=9) == 32 * GIB
    assert memory_per_task(max_tasks=2) == 16 * GIB
    assert memory_per_task(max_tasks=100) == 4 * GIB
