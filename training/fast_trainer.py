"""A trainer of Ray Train that starts faster: it does not start processes that are not needed, and neither driver nor
controller imports torch. It uses private parts of Ray, see `private_parts`."""

from typing import Any

from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer  # base class of TorchTrainer

# DatasetsCallback starts an actor for Ray Data per worker group and imports Ray Data in the workers.
# PlacementGroupCleanerCallback starts an actor that frees the workers' resources if the controller dies; our driver
# ends in this case, and Ray frees them.
UNUSED_CALLBACKS = (DatasetsCallback, PlacementGroupCleanerCallback)


class FastTrainer(DataParallelTrainer):
    """`TorchTrainer` without UNUSED_CALLBACKS. The actor that coordinates the cluster's resources starts at the same
    time as the controller instead of after it."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, UNUSED_CALLBACKS)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        get_or_create_autoscaling_coordinator()  # type: ignore[no-untyped-call]
        return super()._initialize_and_run_controller(**settings)
