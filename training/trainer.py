"""Ray Train's trainer for our workers: the one with a faster start if this Ray has the private parts that it needs,
otherwise the public `TorchTrainer`.

Both join the workers in `WorkerGroupBackend`, whose rendezvous store listens on the address of rank 0's node only. Ray
Train's own backend lets it listen on all addresses."""

import contextlib
import datetime
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray.train.backend import Backend, BackendConfig

from lgd.pipeline.console.progress import say
from lgd.training.gpu import check_gpu
from lgd.training.private_parts import missing_private_parts

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch has no __all__ there

COLLECTIVE_TIMEOUT_S = 1800  # for joining the process group, and for each of its collectives
MIG = "MIG-"  # prefix of the id of a part of a GPU (Multi-Instance GPU)
LEAVE_TIMEOUT_S = 5  # after a lost node, others may wait for it in NCCL; Ray ends their processes anyway

_store: "TCPStore | None" = None  # in the worker that serves it, until that worker ends


class RayTrainer(Protocol):
    """What is used of Ray Train's trainers."""

    def fit(self) -> Any:
        """Train until the workers finish. Raises ray.train.TrainingFailedError."""


def create_trainer(train_loop: Callable[[dict[str, Any]], None], config: dict[str, Any], **settings: Any) -> RayTrainer:
    """Return the trainer that runs `train_loop(config)` in every worker.

    settings: scaling_config and run_config of Ray Train."""
    if missing := missing_private_parts():
        say(
            f"Ray {ray.__version__} has no {', '.join(missing)}: training uses Ray's TorchTrainer, which starts more "
            "slowly; the result is the same"
        )
        from lgd.training.public_trainer import create_public_trainer

        return create_public_trainer(train_loop, config, **settings)
    from lgd.training.fast_trainer import FastTrainer

    trainer: RayTrainer = FastTrainer(
        train_loop, train_loop_config=config, backend_config=WorkerGroupConfig(), **settings
    )
    return trainer


def update_resources() -> None:
    """Let Ray Train's coordinator check the resources of the cluster again.

    A run with a fixed number of workers has no coordinator, and a run that is about to end may have none any more; a
    different version of Ray may have a different one. Then nothing is done, and Ray Train checks by itself."""
    with contextlib.suppress(ValueError, AttributeError, TypeError, ray.exceptions.RayError):
        coordinator = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
        ray.get(coordinator.get_reserved_resources.remote("lgd", recompute=True))


class WorkerGroupConfig(BackendConfig):
    """Configuration of `WorkerGroupBackend`, without importing torch."""

    @property
    def backend_cls(self) -> type["WorkerGroupBackend"]:
        return WorkerGroupBackend


class WorkerGroupBackend(Backend):
    """Joins the workers of a group to a process group of torch.distributed."""

    share_cuda_visible_devices = True  # workers of one node can access each other's GPUs

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Join the workers: with NCCL on GPUs, with gloo on CPUs and on parts of GPUs (MIG), which NCCL cannot use."""
        on_gpus = bool(worker_group.get_resources_per_worker().get("GPU", 0))
        on_parts = on_gpus and any(worker_group.execute(_show_own_part))
        backend = "nccl" if on_gpus and not on_parts else "gloo"
        host, port = worker_group.execute_single(0, _serve_store)
        workers = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    number, _join, backend, host, port, number=number, workers=workers, on_gpu=on_gpus
                )
                for number in range(workers)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Let the workers leave the process group."""
        ray.wait(worker_group.execute_async(_leave), num_returns=len(worker_group), timeout=LEAVE_TIMEOUT_S)


def _serve_store() -> tuple[str, int]:
    """Start the rendezvous store in this worker and return its host and port."""
    global _store
    host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = listening.getsockname()[1]
    _store = _tcp_store(host, port, is_master=True, master_listen_fd=listening.detach())
    return host, port


def _show_own_part() -> bool:
    """Return whether this worker has a part of a GPU, and let CUDA see that part alone.

    Ray Train lets every worker see the GPUs of all workers of its node. Of parts of GPUs CUDA uses only the first that
    it sees, so all workers of a node would have the same one, or none."""
    own = [str(gpu) for gpu in ray.get_gpu_ids()]
    if not any(gpu.startswith(MIG) for gpu in own):
        return False
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return True


def _tcp_store(host: str, port: int, **options: Any) -> "TCPStore":
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch has no __all__ there

    return TCPStore(host, port, wait_for_workers=False, **options)


def _join(backend: str, host: str, port: int, *, number: int, workers: int, on_gpu: bool) -> None:
    """Join worker `number` to the process group. (`rank` is a parameter of Ray's execute_single_async.)"""
    import torch.distributed as dist

    if on_gpu:
        check_gpu()
    store = _store or _tcp_store(host, port, is_master=False)
    timeout = datetime.timedelta(seconds=COLLECTIVE_TIMEOUT_S)
    dist.init_process_group(backend, store=store, rank=number, world_size=workers, timeout=timeout)


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
