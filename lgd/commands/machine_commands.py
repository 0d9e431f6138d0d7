"""The commands that check the machines of a cluster."""

from functools import partial
from typing import Annotated

from tyro.conf import arg

from lgd.clusters.doctor.options import DoctorOptions
from lgd.commands.shared_options import Address
from lgd.pipeline.console.command_line import CommandResult, Json


def doctor(
    options: Annotated[DoctorOptions, arg(name="")] = DoctorOptions(),
    *,
    address: Address = None,
    json: Json = False,
) -> CommandResult:
    """Check every node of the cluster: versions, GPUs, decoders, network, disks. Exits with 1 if something is wrong."""
    from lgd.clusters.doctor.examine import examine
    from lgd.clusters.embedded import ensure_cluster

    return examine(options, partial(ensure_cluster, address=address))
