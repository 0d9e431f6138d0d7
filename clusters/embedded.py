"""The Ray cluster that a command uses: a running one, or an embedded one of one node that ends with this process."""

import atexit
import contextlib
import logging
import math
import os
import re
import secrets
import shutil
import socket
import sys
from typing import Any

from lgd.clusters.temporary_folder import ray_temporary_folder
from lgd.pipeline.console import signals
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say

SECURITY = {
    "RAY_AUTH_MODE": "token",
    # All of Ray's servers listen on loopback if the node's address is a loopback address, and on all addresses
    # otherwise. Ray replaces a given loopback address with the machine's own address unless this variable says that no
    # other machine will ever join (Ray's default on Windows and macOS, hence the name).
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nothing announces that this machine will be preempted
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a task that requests no GPU can still see the GPUs
    # The process groups of the workers. NCCL would listen on every interface except loopback.
    "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
}

JOIN_ATTEMPTS = "2"  # of up to 40 s each; Ray makes 20 before it reports that there is no cluster
CONNECT_S = 10.0
# Ray puts the driver's working folder first on the import path of its workers, where a user's own torch.py or yaml.py
# would be imported instead of the library of that name. This folder contains no modules.
NEUTRAL_FOLDER = "/"


def embedded_cpus(num_workers: int | None = None, cpus_per_worker: float | None = None) -> int:
    """Return the number of CPUs that the embedded cluster offers: those that this process may use, or more if the
    requested workers need more, since a worker that Ray cannot place would wait forever.

    num_workers, cpus_per_worker: as requested; None counts as 1."""
    return max(len(os.sched_getaffinity(0)), math.ceil((num_workers or 1) * (cpus_per_worker or 1)))


def ensure_cluster(cpus: int | None = None, address: str | None = None) -> None:
    """Connect this process to a Ray cluster until the process ends. Do nothing if it is already connected.

    address: of the running cluster to join, host:port, or "auto" for the cluster that this machine is a node of. The
    default is RAY_ADDRESS, which is set in a job that was submitted to a cluster. Ray finds the cluster's token in
    RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token. Without an address, start the embedded cluster.
    cpus: CPUs that the embedded cluster offers; the default is `embedded_cpus()`.
    Raises UserError if the cluster cannot be joined or started."""
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return
    if address := address or os.environ.get("RAY_ADDRESS"):
        _join(address)
    else:
        with signals.deferred():  # if Ray's start were interrupted, its processes and its folder would not be known
            session = _start(cpus or embedded_cpus())
            atexit.register(_stop, session)
            signals.remove_if_killed(session)


def _join(address: str) -> None:
    if address.startswith("ray://"):
        raise UserError(f"{address}: ray:// addresses are not supported; run the command on a node of the cluster")
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", JOIN_ATTEMPTS)
    say(f"joining the Ray cluster at {address}")
    import ray

    try:
        host, _, port = address.rpartition(":")
        if port.isdigit():  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), CONNECT_S).close()
        with contextlib.chdir(NEUTRAL_FOLDER):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        atexit.register(ray.shutdown)  # the tasks and actors of this process end, the cluster does not
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", str(error))
        if len(versions) == 2:  # of the cluster and of this process
            theirs, ours = (f"Ray {ray} and Python {python}" for ray, python in versions)
            raise UserError(
                f"cannot join the cluster at {address}: it runs {theirs}, but here are {ours}: use the same versions"
            ) from error
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot join the cluster at {address} ({reason}): check that it is running (ray status), that this "
            "machine is one of its nodes, and that RAY_AUTH_TOKEN is its token"
        ) from error


def _start(cpus: int) -> str:
    """Start the embedded cluster and return the folder of its logs and sockets.

    All its ports are on loopback, and only processes that inherit this process's environment have the token. Ray reads
    these settings when it is imported, so it must not have been imported yet."""
    if "ray" not in sys.modules:
        os.environ.update(SECURITY | SETTINGS)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif any(os.environ.get(name) != value for name, value in SECURITY.items()):
        raise RuntimeError("ray was imported before ensure_cluster(): it can no longer be confined to this machine")
    import ray

    temporary_folder = ray_temporary_folder()
    try:
        with contextlib.chdir(NEUTRAL_FOLDER):
            context: Any = ray.init(
                address="local",
                _temp_dir=temporary_folder,
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
            )
    except Exception as error:  # Ray raises nothing more specific if its node does not start within 30 s
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot start a Ray cluster on this machine ({reason}): check its load, its free memory and the free "
            f"space in {os.path.realpath(temporary_folder)}, then rerun to resume"
        ) from error
    return str(context.address_info["session_dir"])


def _stop(session: str) -> None:
    """Stop the embedded cluster. session: its folder, removed after a signal, and kept otherwise because of the logs.

    After a signal, also kill what Ray may leave for some seconds: its workers, and the children of these."""
    import ray

    ray.shutdown()
    if not signals.interrupted():
        return
    signals.kill_children()
    shutil.rmtree(session, ignore_errors=True)
    newest = os.path.join(os.path.dirname(session), "session_latest")
    if os.path.islink(newest) and not os.path.exists(newest):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(newest)
