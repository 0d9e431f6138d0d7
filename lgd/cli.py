"""The `lgd` command line: each command is a function that declares its options and calls the module with the work."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from lgd.benchmarks.commands import BENCHES
from lgd.clusters.options import SubmitOptions
from lgd.pipeline.console.command_line import CommandResult, Commands, CommandSequence, Json, run_command_line
from lgd.pipeline.console.progress import say
from lgd.pipeline.inspection.options import InspectOptions
from lgd.pipeline.storage.cache import CacheConfig
from lgd.pipeline.storage.storage import Storage
from lgd.prediction.options import PredictOptions
from lgd.preprocessing.annotations.options import AnnotationOptions
from lgd.preprocessing.settings import PreprocessResources, Settings
from lgd.training.fusion.options import FusionOptions
from lgd.training.options import ResumeOptions
from lgd.training.recipes import REPRODUCTIONS, TrainConfig, recipe_defaults, reproduction_named
from lgd.training.scoring.protocol import CheckpointChoice, ScoringResources, TestProtocol
from lgd.training.stop import StopOptions

Address = Annotated[
    str | None,
    arg(
        metavar="HOST:PORT",
        help="Ray cluster to join, or auto; this machine must be one of its nodes. Default: RAY_ADDRESS, or a new "
        "cluster on this machine alone.",
    ),
]
Data = Annotated[str, arg(metavar="DIR", help="Folder of the dataset, local or s3://...")]
Split = Annotated[str, arg(metavar="NAME", help="Split to score.")]
Epochs = Annotated[float | None, arg(metavar="N", help="Epochs of each training. Default: those of the recipes.")]
PerClass = Annotated[
    str | None, arg(metavar="FILE.parquet", help="File for the accuracy of each class and the confusion matrix.")
]


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


def inspect(
    dataset: Annotated[Positional[str], arg(help="Folder of the dataset, local or s3://...")],
    options: Annotated[InspectOptions, arg(name="")] = InspectOptions(),
    json: Json = False,
) -> CommandResult:
    """Describe a dataset; --verify checks every byte, --pictures draws videos, --rebuild-index repairs an index."""
    from lgd.pipeline.inspection.describe import inspect_dataset

    return inspect_dataset(dataset, options)


def train(
    recipe: Annotated[
        Positional[str], arg(metavar="RECIPE", help="Name of a recipe, such as nano-rgb; `lgd recipes` lists them.")
    ],
    data: Data,
    run: Annotated[str, arg(metavar="DIR", help="Folder of the run: checkpoints, metrics, result.")],
    *,
    num_workers: Annotated[
        tuple[int, ...] | None,
        arg(
            aliases=["--workers"],
            metavar="MIN [MAX]",
            help="Minimum and maximum workers, or one number for both. Default: 1 and one per GPU (else CPU).",
        ),
    ] = None,
    cache_config: Annotated[CacheConfig, arg(name="")] = CacheConfig(),
    address: Address = None,
    stop: Annotated[StopOptions, arg(name="")] = StopOptions(),
    resume: Annotated[ResumeOptions, arg(name="")] = ResumeOptions(),
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),
    json: Json = False,
) -> CommandResult:
    """Train a network with a recipe; options override its fields. Rerun to resume."""
    from lgd.clusters.embedded import embedded_cpus, ensure_cluster
    from lgd.pipeline.dataset.dataset import open_dataset
    from lgd.training.elastic import run_training, worker_range
    from lgd.training.models.zoo import check_model_config
    from lgd.training.run import begin_run
    from lgd.training.start import with_absolute_paths

    workers = worker_range(num_workers)
    dataset = open_dataset(data)
    check_model_config(config.model, len(dataset.classes), channels=3)
    config = with_absolute_paths(config)
    opened = begin_run(run, recipe, config, dataset=dataset, resume_from=resume.resume_from)
    cpus = embedded_cpus(workers[0] if workers else None)
    start = partial(ensure_cluster, cpus, address)
    return run_training(
        opened, dataset, workers, start_cluster=start, cache_config=cache_config, stop=stop, resume=resume
    )


def evaluate(
    run: Annotated[Positional[str], arg(help="Folder of the run, local or s3://...")],
    data: Data,
    out: Annotated[str, arg(metavar="FILE.parquet", help="File for the scores, local or s3://...")],
    *,
    split: Split = "val",
    checkpoint: Annotated[
        CheckpointChoice, arg(help="The last checkpoint of the run, or its best one by validation top-1.")
    ] = "last",
    per_class: PerClass = None,
    protocol: Annotated[TestProtocol, arg(name="")] = TestProtocol(),
    resources: Annotated[ScoringResources, arg(name="")] = ScoringResources(),
    cache_config: Annotated[CacheConfig, arg(name="")] = CacheConfig(),
    address: Address = None,
    json: Json = False,
) -> CommandResult:
    """Score a split with a run's checkpoint: class probabilities of every video. Rerun to resume."""
    from lgd.clusters.embedded import embedded_cpus, ensure_cluster
    from lgd.training.scoring.evaluate import evaluate as evaluate_run

    cpus = embedded_cpus(resources.num_workers, resources.cpus_per_task)
    return evaluate_run(
        run,
        data,
        split,
        out=out,
        protocol=protocol,
        which=checkpoint,
        resources=resources,
        start_cluster=partial(ensure_cluster, cpus, address),
        cache_config=cache_config,
        per_class=per_class,
    )


def fuse(
    scores: Annotated[Positional[tuple[str, ...]], arg(help="Score files of `lgd evaluate` or `lgd fuse`.")],
    options: Annotated[FusionOptions, arg(name="")] = FusionOptions(),
    out: Annotated[str | None, arg(metavar="FILE.parquet", help="File for the fused scores.")] = None,
    *,
    per_class: PerClass = None,
    json: Json = False,
) -> CommandResult:
    """Join score files by key, average them, and compare the result with the inputs. Fused files can be fused again."""
    from lgd.training.fusion.comparison import fuse_and_compare

    return fuse_and_compare(scores, options, out=out, per_class=per_class)


def predict(
    videos: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="VIDEO ...", help="Local video files; give them last, after `--`, if a name starts with a dash."),
    ],
    rgb: Annotated[str | None, arg(metavar="RUN", help="Folder of a run of the rgb stream.")] = None,
    flow: Annotated[
        str | None, arg(metavar="RUN", help="Folder of a run of the flow stream. The optical flow is computed first.")
    ] = None,
    *,
    options: Annotated[PredictOptions, arg(name="")] = PredictOptions(),
    json: Json = False,
) -> CommandResult:
    """Classify video files with trained runs. Needs no dataset and no cluster."""
    from lgd.prediction.predict_files import predict_files

    return predict_files(videos, rgb, flow, options=options)


def report(
    out: Annotated[Positional[str], arg(metavar="OUT.html", help="The report: one HTML file, local or s3://...")],
    paths: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="RUN|SCORES ...", help="Run folders and score files (.parquet), in any order and number."),
    ] = (),
    data: Annotated[
        str | None,
        arg(metavar="DIR", help="Folder of the dataset, for description and examples. Default: as the scores say."),
    ] = None,
    *,
    json: Json = False,
) -> CommandResult:
    """Write an HTML report on runs and scores: curves, accuracy, confusion, gain of the fusion, examples."""
    from lgd.training.report.page import write_report

    return write_report(out, paths, data)


def models(
    classes: Annotated[int, arg(help="Number of classes of the networks.")] = 400, json: Json = False
) -> CommandResult:
    """List the networks: parameters and GMAC (10^9 multiply-accumulates) per clip of channels x T x H x W."""
    from lgd.training.models.model_list import list_models

    return list_models(classes)


def recipes(
    name: Annotated[
        Positional[str | None], arg(metavar="NAME", help="Recipe to print with all its fields. Default: list all.")
    ] = None,
    json: Json = False,
) -> CommandResult:
    """List the training recipes, or print one of them with the options that its fields belong to."""
    from lgd.training.recipe_list import list_recipes

    return list_recipes(name)


def reproduce(
    name: Annotated[Positional[str], arg(metavar="NAME", help=f"One of {', '.join(REPRODUCTIONS)}.")],
    data: Annotated[str, arg(metavar="DIR", help="Folder of a dataset with the streams rgb and flow.")],
    out: Annotated[Path, arg(metavar="DIR", help="Folder of the runs and scores.")],
    *,
    split: Split = "val",
    epochs: Epochs = None,
    json: Json = False,
) -> CommandResult:
    """Train both streams with a chain of recipes, evaluate, fuse and write a report. Rerun to resume."""
    from lgd.training.reproduce import run_chain

    sequence = CommandSequence(COMMANDS, defaults)
    return run_chain(sequence, reproduction_named(name), data, out=out, split=split, epochs=epochs)


def demo(
    videos: Annotated[
        Path | None, arg(metavar="DIR", help="Folder of class folders. Default: a small set is rendered.")
    ] = None,
    out: Annotated[Path, arg(metavar="DIR", help="Folder for everything that the demo creates.")] = Path("lgd-demo"),
    group: Annotated[str | None, arg(metavar="REGEX", help="As in `lgd preprocess`.")] = None,
    *,
    epochs: Epochs = None,
    json: Json = False,
) -> CommandResult:
    """Run all commands on a small set of videos: preprocess, train both streams, evaluate, fuse, report."""
    from lgd.preprocessing.demo_videos import render_set
    from lgd.training.reproduce import run_chain

    sequence = CommandSequence(COMMANDS, defaults)
    if videos is None:
        videos = out / "videos"
        say(f"rendering videos of objects that move in 6 ways to {videos}")
        with sequence.timed("render"):
            render_set(videos, DEMO_VIDEOS_PER_CLASS)
    options: list[object] = ["--group", group] if group else []
    data = out / "data"
    sequence.do("preprocess", "preprocess", videos, "--out", data, "--short-side", DEMO_SHORT_SIDE, *options)
    return run_chain(sequence, REPRODUCTIONS["nano"], data, out=out, split="val", epochs=epochs)


def submit(
    words: Annotated[
        Positional[tuple[str, ...]],
        arg(metavar="-- COMMAND ...", help="The command and its options. Its paths are the cluster's: absolute."),
    ] = (),
    options: Annotated[SubmitOptions, arg(name="")] = SubmitOptions(),
    json: Annotated[bool, arg(help="Print the JSON document of the job's command on stdout.")] = False,
) -> CommandResult:
    """Run a command on a cluster. The job keeps running after Ctrl-C or if the terminal closes."""
    from lgd.clusters.submit import submit_or_follow

    return submit_or_follow(words, options, as_json=json, commands=COMMANDS, defaults=defaults)


DEMO_SHORT_SIDE, DEMO_VIDEOS_PER_CLASS = 64, 16

COMMANDS: Commands = {
    **{each.__name__: each for each in (preprocess, inspect, train, evaluate, fuse, predict, report, models, recipes)},
    "reproduce": reproduce,
    "bench": BENCHES,
    "submit": submit,
    "demo": demo,
}


def defaults(name: str, words: list[str]) -> dict[str, Any]:
    """The options after the recipe of `train` have its values."""
    return recipe_defaults(words) if name in ("train", "bench train") else {}


def main() -> None:
    """The `lgd` command."""
    run_command_line(sys.argv[1:], COMMANDS, defaults)
