"""The commands that create and describe datasets."""

from typing import Annotated

from tyro.conf import Positional, arg

from lgd.commands.shared_options import Address, Data
from lgd.pipeline.console.command_line import CommandResult, Json
from lgd.pipeline.inspection.options import InspectOptions
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.options import AnnotationOptions, SplitOptions
from lgd.preprocessing.settings import PreprocessResources, Settings


def preprocess(
    videos: Annotated[
        Positional[str],
        arg(help="Folder of the videos, local or s3://...: one folder per class, unless --annotations is given."),
    ],
    out: Data,
    labels: Annotated[AnnotationOptions, arg(name="")] = AnnotationOptions(),
    *,
    streams: Annotated[tuple[str, ...], arg(metavar="STREAM ...", help="Streams to create.")] = ("rgb", "flow"),
    retry_rejected: Annotated[bool, arg(help="Retry videos that earlier runs rejected or could not find.")] = False,
    resources: Annotated[PreprocessResources, arg(name="")] = PreprocessResources(),
    address: Address = None,
    settings: Annotated[Settings, arg(name="")] = Settings(),
    json: Json = False,
) -> CommandResult:
    """Create a dataset of shards from videos. Rerun to create only what is missing."""
    from lgd.clusters.embedded import embedded_cpus, ensure_cluster
    from lgd.pipeline.dataset.dataset import stream_named
    from lgd.preprocessing.annotations.read import read_manifest
    from lgd.preprocessing.job import preprocess as run_job

    for stream in streams:
        stream_named(stream)
    cpus = embedded_cpus(resources.num_workers, resources.cpus_per_task)
    folder = Storage(videos)
    manifest = read_manifest(folder, **vars(labels))
    return run_job(
        folder,
        out,
        manifest,
        streams=streams,
        settings=settings,
        resources=resources,
        start_cluster=lambda: ensure_cluster(cpus, address),
        retry_rejected=retry_rejected,
    )


def splits(
    dataset: Annotated[Positional[str], arg(help="Folder of the dataset, local or s3://...")],
    options: Annotated[SplitOptions, arg(name="")] = SplitOptions(),
    json: Json = False,
) -> CommandResult:
    """List the splits of a dataset, or add splits to it: official ones, your own, folds. No shard changes."""
    from lgd.preprocessing.dataset_splits import splits_of_dataset

    return splits_of_dataset(dataset, options)


def inspect(
    dataset: Annotated[Positional[str], arg(help="Folder of the dataset, local or s3://...")],
    options: Annotated[InspectOptions, arg(name="")] = InspectOptions(),
    json: Json = False,
) -> CommandResult:
    """Describe a dataset; --verify checks every byte, --pictures draws videos, --rebuild-index repairs an index."""
    from lgd.pipeline.inspection.describe import inspect_dataset

    return inspect_dataset(dataset, options)
