"""The commands that train networks, score and describe."""

from functools import partial
from typing import Annotated

from tyro.conf import Positional, arg

from lgd.commands.shared_options import Address, Data, PerClass, Split
from lgd.pipeline.console.command_line import CommandResult, Json
from lgd.pipeline.storage.cache import CacheConfig
from lgd.prediction.options import PredictOptions
from lgd.training.fusion.options import FusionOptions
from lgd.training.options import ResumeOptions
from lgd.training.recipes import TrainConfig
from lgd.training.scoring.protocol import CheckpointChoice, ScoringResources, TestProtocol
from lgd.training.stop import StopOptions


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
    from lgd.preprocessing.annotations.class_list import read_classes
    from lgd.training.elastic import run_training, worker_range
    from lgd.training.models.zoo import check_model_config
    from lgd.training.run import begin_run
    from lgd.training.run_dataset import dataset_for
    from lgd.training.start import check_initial_run, with_absolute_paths

    workers = worker_range(num_workers)
    dataset = dataset_for(run, config, open_dataset(data), read=read_classes)
    check_model_config(config.model, len(dataset.classes), channels=3)
    config = with_absolute_paths(config)
    check_initial_run(recipe, config, run)
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


def average(
    scores: Annotated[
        Positional[tuple[str, ...]], arg(help="Score files of one model on different splits, one file of each split.")
    ],
    json: Json = False,
) -> CommandResult:
    """Average the accuracies of score files over splits: mean and standard deviation."""
    from lgd.training.transfer.average import average as average_files

    return average_files(scores)


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
