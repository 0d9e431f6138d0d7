"""Parts of Ray beyond its public interface that `fast_trainer` and `trainer.update_resources` use.

Ray is capped below the next minor version because of them. A test fails, with the name of the part, for a version of
Ray that does not have one; training then uses the public trainer."""

import importlib
from typing import Any

_COORDINATOR = "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator"

PRIVATE_PARTS = (  # module, name in it
    (_COORDINATOR, "get_or_create_autoscaling_coordinator"),
    (_COORDINATOR, "_AutoscalingCoordinatorActor.get_reserved_resources"),
    ("ray.train.v2._internal.callbacks", "DatasetsCallback"),
    ("ray.train.v2._internal.callbacks.placement_group_callback", "PlacementGroupCleanerCallback"),
    ("ray.train.v2.api.data_parallel_trainer", "DataParallelTrainer._create_default_callbacks"),
    ("ray.train.v2.api.data_parallel_trainer", "DataParallelTrainer._initialize_and_run_controller"),
)


def missing_private_parts() -> list[str]:
    """Return the full names of the PRIVATE_PARTS that the installed Ray does not have."""
    missing = []
    for module, names in PRIVATE_PARTS:
        try:
            part: Any = importlib.import_module(module)
            for name in names.split("."):
                part = getattr(part, name)
        except (ImportError, AttributeError):
            missing.append(f"{module}.{names}")
    return missing
