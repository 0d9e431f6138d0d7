"""Ray Train's set-up of a group of workers, with two differences: the rendezvous store listens on the address of rank
0's node and nowhere else, and nothing is started for Ray Data, which serves no clips here."""

import datetime
import socket
from dataclasses import dataclass
from typing import Any

import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _TorchBackend  # what TorchConfig.backend_cls names: there is no public way to it
from ray.train.v2._internal.callbacks import DatasetsCallback

_store: dist.TCPStore | None = None  # of the worker that serves it, for as long as that lives


class Trainer(TorchTrainer):
    """Without the actor that every group of workers has for Ray Data, and without Ray Data in the workers: a second or
    two of every start."""

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()  # type: ignore[misc]  # not public
        return [each for each in made if not isinstance(each, DatasetsCallback)]


@dataclass
class NodeTorchConfig(TorchConfig):
    """Ray Train's set-up of torch.distributed; its own lets the store listen on all addresses of the machine."""

    @property
    def backend_cls(self) -> type["_NodeBackend"]:
        return _NodeBackend


class _NodeBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Joins the workers of a group: NCCL where each has a GPU, gloo otherwise."""
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        backend = backend_config.backend or ("nccl" if gpus else "gloo")
        host, port = worker_group.execute_single(0, _serve)
        workers = len(worker_group)
        waiting = [
            worker_group.execute_single_async(rank, _join, backend, host, port, rank, workers, backend_config.timeout_s)
            for rank in range(workers)
        ]
        ray.get(waiting)


def _serve() -> tuple[str, int]:
    """Starts the store in this worker; where it listens."""
    global _store
    host = ray.util.get_node_ip_address()
    listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = listening.getsockname()[1]
    _store = dist.TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    return host, port


def _join(backend: str, host: str, port: int, rank: int, workers: int, timeout_s: int) -> None:
    store = _store or dist.TCPStore(host, port, is_master=False, wait_for_workers=False)
    timeout = datetime.timedelta(seconds=timeout_s)
    dist.init_process_group(backend, store=store, rank=rank, world_size=workers, timeout=timeout)
