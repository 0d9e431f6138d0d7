"""The embedded cluster: a Ray of one node in this process's care, with token authentication and without a dashboard."""

import atexit
import logging
import os
import secrets
import sys

SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a task that asks for no GPU may still see what there is
}


def ensure_cluster(cpus: int | None = None) -> None:
    """Starts the embedded cluster unless this process already has one; it ends with the process.

    cpus: how many it offers; by default those that this process may use. Only processes that inherit this one's
    environment know the token. Ray reads its settings when it is imported, so that must not have happened before."""
    if "ray" not in sys.modules:
        os.environ.update(SETTINGS)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif os.environ.get("RAY_AUTH_MODE") != "token":
        raise RuntimeError("ray was imported before ensure_cluster(): its authentication can no longer be switched on")
    import ray

    if ray.is_initialized():
        return
    ray.init(
        address="local",
        num_cpus=cpus or len(os.sched_getaffinity(0)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    atexit.register(ray.shutdown)
