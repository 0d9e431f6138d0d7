"""The options of `lgd inspect`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class InspectOptions:
    """What is done with a dataset besides its description; in the order of the fields."""

    rebuild_index: bool = False
    """Write the index of each stream again from its shards, reading every byte."""
    verify: bool = False
    """Read every byte and check frame counts and checksums."""
    pictures: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder for pictures: one PNG per video, with frames of RGB and flow."""
    videos: int | None = None
    """Number of videos that --pictures draws, evenly spaced in the dataset. Default: 16."""
    dali_index: Annotated[str | None, arg(metavar="DIR")] = None
    """Folder for index files for DALI's webdataset reader, one per shard."""
