"""The public trainer of Ray Train, for versions of Ray without the private parts that `fast_trainer` needs."""

from collections.abc import Callable
from typing import Any

from ray.train.torch import TorchConfig, TorchTrainer

from lgd.training.trainer import RayTrainer, WorkerGroupBackend


class PublicWorkerGroupConfig(TorchConfig):
    """Configuration of `WorkerGroupBackend` that TorchTrainer accepts."""

    @property
    def backend_cls(self) -> type[WorkerGroupBackend]:
        return WorkerGroupBackend


def create_public_trainer(
    train_loop: Callable[[dict[str, Any]], None], config: dict[str, Any], **settings: Any
) -> RayTrainer:
    """Return a TorchTrainer; parameters as in `trainer.create_trainer`."""
    trainer: RayTrainer = TorchTrainer(
        train_loop, train_loop_config=config, torch_config=PublicWorkerGroupConfig(), **settings
    )
    return trainer
