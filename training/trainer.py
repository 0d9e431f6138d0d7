"""Ray Train's set-up of a group of workers, with three differences: the rendezvous store listens on the address of rank
0's node and nowhere else, nothing is started that is of no use here, and torch is imported in the workers alone."""

import datetime
import socket
from typing import TYPE_CHECKING, Any

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer  # what TorchTrainer is a thin dress of

if TYPE_CHECKING:
    from torch.distributed import TCPStore

COLLECTIVE_TIMEOUT_S = 1800  # for joining the process group, and for each of its collectives
LEAVE_TIMEOUT_S = 30

_store: "TCPStore | None" = None  # of the worker that serves it, for as long as that lives


# Of Ray Train's own, what is left out: an actor in every group of workers for Ray Data, and Ray Data in the workers;
# and an actor that frees the workers' places should the controller die: the driver ends then, and Ray frees them.
LEFT_OUT = (DatasetsCallback, PlacementGroupCleanerCallback)


class Trainer(DataParallelTrainer):
    """Ray Train's, with fewer processes to start, and with the actor that keeps account of the cluster's room started
    while the controller starts, not after."""

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()  # type: ignore[misc]  # not public
        return [each for each in made if not isinstance(each, LEFT_OUT)]

    def _initialize_and_run_controller(self, **told: Any) -> Any:
        get_or_create_autoscaling_coordinator()
        return super()._initialize_and_run_controller(**told)  # type: ignore[misc]  # not public


class NodeTorchConfig(BackendConfig):
    """torch.distributed for a group of workers. Ray Train's TorchConfig lets the store listen on all addresses of the
    machine."""

    @property
    def backend_cls(self) -> type["_NodeBackend"]:
        return _NodeBackend


class _NodeBackend(Backend):
    share_cuda_visible_devices = True  # workers of one node reach each other's GPUs

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Joins the workers of a group: NCCL where each has a GPU, gloo otherwise."""
        backend = "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) else "gloo"
        host, port = worker_group.execute_single(0, _serve)
        workers = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(r, _join, backend, host, port, worker=r, workers=workers)
                for r in range(workers)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        ray.wait(worker_group.execute_async(_leave), num_returns=len(worker_group), timeout=LEAVE_TIMEOUT_S)


def _serve() -> tuple[str, int]:
    """Starts the store in this worker; where it listens."""
    import torch.distributed as dist

    global _store
    host = ray.util.get_node_ip_address()
    listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = listening.getsockname()[1]
    _store = dist.TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    return host, port


def _join(backend: str, host: str, port: int, *, worker: int, workers: int) -> None:
    import torch.distributed as dist

    store = _store or dist.TCPStore(host, port, is_master=False, wait_for_workers=False)
    timeout = datetime.timedelta(seconds=COLLECTIVE_TIMEOUT_S)
    dist.init_process_group(backend, store=store, rank=worker, world_size=workers, timeout=timeout)


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
