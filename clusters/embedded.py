"""The cluster that a command works on: one that is running, or an embedded Ray of one node in this process's care."""

import atexit
import contextlib
import logging
import os
import secrets
import socket
import sys

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say

SECURITY = {
    "RAY_AUTH_MODE": "token",
    # All of Ray's servers listen on loopback when the node's address is a loopback address, and everywhere otherwise.
    # Ray replaces a loopback address that it is given by the machine's own, except where this says that no other
    # machine will ever join (Ray's default on Windows and macOS, hence the name).
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody announces that this machine will be taken away
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a task that asks for no GPU may still see what there is
}

JOIN_ATTEMPTS = "2"  # of up to 40 s; Ray makes 20 before it says that no cluster is there
CONNECT_S = 10.0
# Ray puts the folder that the driver is in first on the import path of its workers, where a user's own torch.py or
# yaml.py would be imported instead of the library of that name. There are no modules here.
NEUTRAL_FOLDER = "/"


def ensure_cluster(cpus: int | None = None, address: str | None = None) -> None:
    """Connects this process to a cluster, unless it is connected already, until the process ends.

    address: of the running Ray cluster to join, host:port, or "auto" for the one that this machine is a node of; by
    default what RAY_ADDRESS says, as it does in a job that was submitted to a cluster. Its token is found by Ray
    (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token). Without an address the embedded cluster is started.
    cpus: how many that one offers; by default those that this process may use.
    Raises UserError for a cluster that cannot be joined."""
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return
    if address := address or os.environ.get("RAY_ADDRESS"):
        _join(address)
    else:
        _start(cpus)
    import ray

    atexit.register(ray.shutdown)


def _join(address: str) -> None:
    if address.startswith("ray://"):
        raise UserError(
            f"{address}: Ray's client protocol is not spoken here: run the command on a node of the cluster"
        )
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", JOIN_ATTEMPTS)
    say(f"joining the Ray cluster at {address}")
    import ray

    try:
        host, _, port = address.rpartition(":")
        if port.isdigit():  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), CONNECT_S).close()
        with contextlib.chdir(NEUTRAL_FOLDER):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot join the cluster at {address} ({reason}): see that it runs (ray status), that this machine is one "
            "of its nodes, and that RAY_AUTH_TOKEN is its token"
        ) from error


def _start(cpus: int | None) -> None:
    """All its ports are on loopback, and only processes that inherit this one's environment know the token. Ray reads
    its settings when it is imported, so that must not have happened before."""
    if "ray" not in sys.modules:
        os.environ.update(SECURITY | SETTINGS)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif any(os.environ.get(name) != value for name, value in SECURITY.items()):
        raise RuntimeError("ray was imported before ensure_cluster(): it can no longer be confined to this machine")
    import ray

    try:
        with contextlib.chdir(NEUTRAL_FOLDER):
            ray.init(
                address="local",
                num_cpus=cpus or len(os.sched_getaffinity(0)),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
            )
    except Exception as error:  # of no narrower kind: Ray's node did not come up within its 30 s
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the cluster of this machine does not start ({reason}): is it very busy, or its memory or /tmp full? Run "
            "the same command again to go on"
        ) from error
