"""The options of `lgd submit`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class SubmitOptions:
    """Where a job runs, and what is done with it; see `lgd.clusters.submit.submit_or_follow`."""

    address: Annotated[str, arg(metavar="URL")] = ""
    """The cluster's dashboard: http://HOST:PORT. Ray's usual token locations are searched."""
    env: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ()
    """Local environment variables passed to the job."""
    follow: Annotated[str | None, arg(metavar="ID")] = None
    """Print the log of a running or finished job."""
    stop: Annotated[str | None, arg(metavar="ID")] = None
    """Stop a job."""
