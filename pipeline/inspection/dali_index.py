"""Index files for DALI's own reader of WebDatasets.

    fn.readers.webdataset(paths=tars, index_paths=indexes, ext=["mjpeg", "json"])

The format is that of DALI's `wds2idx`, version 1.2: a line for the file, `v1.2 SAMPLES`, and a line for each sample, of
`EXTENSION OFFSET SIZE NAME` for each of its members: bytes in the tar.
"""

import tarfile

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.dataset.dataset import Dataset, shard_name
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.storage.storage import Storage

VERSION = "v1.2"


def write_dali_indexes(dataset: Dataset, folder: str) -> list[str]:
    """Writes `<stream>/<shard>.idx` for every shard that holds a video; returns these names.

    Raises UserError for a shard that is gone or damaged."""
    out = Storage(folder)
    names = []
    for stream in dataset.streams:
        out.make_folder(stream)
        shards = sorted(Index(dataset, stream).shards())
        with Progress(f"index {stream}", len(shards), "shards") as progress:
            for count, shard in enumerate(shards, 1):
                names.append(f"{stream}/{shard}.idx")
                out.write(names[-1], dali_index(dataset.storage, shard_name(stream, shard)).encode())
                progress.update(count)
    return names


def dali_index(storage: Storage, tar: str) -> str:
    """The index of one shard, from the headers in it. Raises UserError if it is gone or damaged."""
    samples: dict[str, list[str]] = {}
    try:
        with storage.open_whole(tar) as file, tarfile.open(fileobj=file, mode="r:") as members:
            for member in members:
                key, _, extension = member.name.partition(".")
                about = f"{extension} {member.offset_data} {member.size} {member.name}"
                samples.setdefault(key, []).append(about)
    except (tarfile.TarError, FileNotFoundError) as error:
        raise UserError(
            f"{storage.display(tar)} is gone or damaged ({error}): run `lgd inspect {storage.display()} --verify`"
        ) from error
    return "\n".join([f"{VERSION} {len(samples)}", *(" ".join(members) for members in samples.values()), ""])
