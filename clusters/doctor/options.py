"""The options of `lgd doctor`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class DoctorOptions:
    """What `lgd doctor` checks besides the nodes; see `lgd.clusters.doctor.examine.examine`."""

    data: Annotated[str | None, arg(metavar="DIR")] = None
    """Dataset to read on every node, local or s3://...: that all nodes see the same one, speed and latency. Nothing is
    written to it."""
