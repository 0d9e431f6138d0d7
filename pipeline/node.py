"""What one of the tasks on this node may use of it: its memory, within the limits of the container or the job."""

import os
import sys
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")  # version 2 and version 1 of Linux's control groups


def memory_per_task(cpus_per_task: float = 1.0, max_tasks: int | None = None) -> int:
    """Return the bytes of this node's memory per task, if as many tasks run at the same time as fit.

    cpus_per_task: CPUs of one task. max_tasks: maximum number of tasks that run at the same time."""
    tasks = max(int(node_cpus() / cpus_per_task), 1)
    return node_memory() // min(tasks, max_tasks or tasks)


def node_memory(own_groups: Path = OWN_GROUPS, cgroups: Path = CGROUPS) -> int:
    """Return the bytes of memory that this process may use: those of the machine, or fewer in a container or a job with
    a memory limit.

    own_groups, cgroups: the files in which Linux describes control groups."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(own_groups, cgroups)])


def node_cpus() -> float:
    """Return the CPUs that Ray offers to tasks on this node; without Ray, those that this process may use."""
    if "ray" in sys.modules and (ray := sys.modules["ray"]).is_initialized():
        own = ray.get_runtime_context().get_node_id()
        for node in ray.nodes():
            if node["NodeID"] == own and node["Resources"].get("CPU"):
                return float(node["Resources"]["CPU"])
    return len(os.sched_getaffinity(0))


def _cgroup_limits(own_groups: Path, cgroups: Path) -> list[int]:
    """Return the memory limits, bytes, of this process's control group and of the groups that contain it."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:  # not Linux
        return []
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        group = PurePosixPath(path.lstrip("/"))
        root = cgroups / "memory" if controllers else cgroups
        # In a container the path may be that of the host, while the files are those of the container: at the root.
        for folder in (group, *group.parents):
            for name in LIMIT_FILES:
                try:
                    limits.append(int((root / folder / name).read_text()))
                except (OSError, ValueError):  # no such group here, or "max": no limit
                    continue
    return [limit for limit in limits if limit > 0]
