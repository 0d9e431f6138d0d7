"""Checks of a node that need no library: processors, memory, load, compiler, limits, free space, the host name."""

import ipaddress
import os
import re
import resource
import shutil
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lgd.clusters.doctor import advice
from lgd.clusters.doctor.rows import NODE, OK, WARNING, WRONG, Row, attempt
from lgd.pipeline.compiler import missing_compiler
from lgd.pipeline.node import node_memory

GIB = 1 << 30
BUSY_LOAD = 0.5  # running programs per CPU, before the checks
LEAST_SHM, LEAST_FILES = GIB, 4096
LEAST_TEMPORARY, FEW_TEMPORARY = GIB, 10 * GIB
COMPILE_S = 10.0
SOURCE = "#include <Python.h>\n#include <stdio.h>\nint main(void) { return 0; }\n"


def machine_rows(ray_cpus: float, several: bool) -> Iterator[Row]:
    """Yield the rows. ray_cpus: that Ray offers on this node. several: the cluster has nodes on other machines."""
    yield from attempt(NODE, "CPUs and memory", lambda: processors(ray_cpus))
    yield from attempt(NODE, "load", lambda: load(os.getloadavg()[0], len(os.sched_getaffinity(0))))
    yield from attempt(NODE, "C compiler", compiler, advice=advice.COMPILER)
    yield from attempt(NODE, "/dev/shm, free", lambda: shared_memory("/dev/shm"))
    yield from attempt(NODE, "open files", lambda: open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    yield from attempt(NODE, "temporary files, free", lambda: temporary_folder(tempfile.gettempdir()))
    if several:
        yield from attempt(NODE, "host name", lambda: host_name(socket.gethostname()), advice=advice.HOST_NAME)


def processors(ray_cpus: float) -> Row:
    """The CPUs that this process may use, and the memory within the limits of a container or job."""
    cpus = len(os.sched_getaffinity(0))
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    figure = f"{cpus} CPUs{f' ({model[1].strip()})' if model else ''}, {node_memory() / GIB:.0f} GiB"
    if ray_cpus > cpus:
        return Row(NODE, "CPUs and memory", f"{figure}; Ray offers {ray_cpus:g}", WARNING, advice.CPUS_TOO_MANY)
    return Row(NODE, "CPUs and memory", figure)


def load(running: float, cpus: int) -> Row:
    """running: average number of running programs in the last minute."""
    share, unit = running / cpus, "running programs per CPU"
    figure = f"{share:.1f} {unit} in the last minute"
    busy = share > BUSY_LOAD
    return Row(NODE, "load", figure, WARNING if busy else OK, advice.BUSY if busy else "", share, unit)


def compiler() -> Row:
    """Compile a program that includes the headers of C and Python, as torch.compile and Triton do."""
    if missing := missing_compiler("CC"):
        return Row(NODE, "C compiler", f"no {missing}", WARNING, advice.COMPILER)
    found = os.environ.get("CC") or ("gcc" if shutil.which("gcc") else "clang")
    with tempfile.TemporaryDirectory(prefix="lgd-doctor-") as folder:
        source = Path(folder) / "check.c"
        source.write_text(SOURCE)
        command = [
            found,
            "-I",
            sysconfig.get_path("include"),
            str(source),
            "-o",
            str(source.with_suffix("")),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_S, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or ["no output"]
        figure = f"{found} fails: {errors[0].rpartition('error: ')[2]}"
        return Row(NODE, "C compiler", figure, WARNING, advice.COMPILER)
    return Row(NODE, "C compiler", found)


def shared_memory(folder: str) -> Row:
    """The size of the folder that Ray keeps its objects in."""
    usage = shutil.disk_usage(folder)
    figure = f"{_gib(usage.free)} of {_gib(usage.total)}"
    small = usage.total < LEAST_SHM or usage.free < LEAST_SHM // 4
    todo = advice.MOUNT_SHM if small else ""
    return Row(NODE, "/dev/shm, free", figure, WARNING if small else OK, todo, usage.free / GIB, "GiB")


def open_files(limit: int) -> Row:
    """limit: maximum number of files that a process may open."""
    if limit == resource.RLIM_INFINITY:
        return Row(NODE, "open files", "no limit")
    few = limit < LEAST_FILES
    return Row(NODE, "open files", f"at most {limit:,}", WARNING if few else OK, advice.FILES if few else "")


def temporary_folder(folder: str) -> Row:
    """The free space of the folder for temporary files, and whether it can be written to."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"lgd")
    free = shutil.disk_usage(folder).free
    verdict = WRONG if free < LEAST_TEMPORARY else WARNING if free < FEW_TEMPORARY else OK
    todo = "" if verdict == OK else advice.TEMPORARY
    return Row(NODE, "temporary files, free", f"{_gib(free)} in {folder}", verdict, todo, free / GIB, "GiB")


def host_name(name: str) -> Row:
    """The address that other programs on this node find for its name: gloo listens there."""
    address = socket.gethostbyname(name)
    alone = ipaddress.ip_address(address).is_loopback
    figure = f"its own name leads to {address}, which other nodes cannot reach" if alone else "leads to its address"
    return Row(NODE, "host name", figure, WARNING if alone else OK, advice.HOST_NAME if alone else "")


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size < 100 * GIB else f"{size / GIB:.0f} GiB"
