"""Index files for DALI's own reader of WebDataset shards.

    fn.readers.webdataset(paths=tars, index_paths=indexes, ext=["mjpeg", "json"])

The format is that of DALI's `wds2idx`, version 1.2: one line for the file, `v1.2 SAMPLES`, and one line per sample with
`EXTENSION OFFSET SIZE NAME` for each of its members; offset and size are bytes in the tar.
"""

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.dataset.dataset import Dataset, shard_name
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.shard_file import INVALID_TAR, tar_members
from lgd.pipeline.storage.storage import Storage

VERSION = "v1.2"


def write_dali_indexes(dataset: Dataset, folder: str) -> list[str]:
    """Write `<stream>/<shard>.idx` for every shard that contains a video; return these names.

    Raises UserError for a missing or damaged shard."""
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
    """Return the index of one shard, made from its headers. Raises UserError if the shard is missing or damaged."""
    samples: dict[str, list[str]] = {}
    try:
        with storage.open_whole(tar) as file:
            for member, _ in tar_members(file, file.size()):
                key, _, extension = member.name.partition(".")
                if not member.name.isprintable() or " " in member.name:
                    raise ValueError(f"the name {member.name[:60]!r} does not belong in a shard")
                entry = f"{extension} {member.offset} {member.size} {member.name}"
                samples.setdefault(key, []).append(entry)
    except (*INVALID_TAR, FileNotFoundError) as error:
        raise UserError(
            f"{storage.display(tar)} is missing or damaged ({' '.join(str(error).split())}): "
            f"run `lgd inspect {storage.display()} --verify`"
        ) from error
    return "\n".join([f"{VERSION} {len(samples)}", *(" ".join(members) for members in samples.values()), ""])
