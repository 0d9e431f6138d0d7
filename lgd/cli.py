"""The `lgd` command line: the table of the commands, and those that run other commands."""

import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from lgd.benchmarks.commands import BENCHES
from lgd.clusters.options import SubmitOptions
from lgd.commands.dataset_commands import inspect, preprocess, splits
from lgd.commands.machine_commands import doctor
from lgd.commands.run_commands import average, evaluate, fuse, models, predict, recipes, report, train
from lgd.commands.shared_options import Data, Epochs
from lgd.pipeline.console.command_line import CommandResult, Commands, CommandSequence, Json, run_command_line
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.progress import say
from lgd.training.chains import REPRODUCTIONS, TRANSFERS, reproduction_named
from lgd.training.recipes import TrainConfig, recipe_defaults
from lgd.training.transfer.options import FusionPlan

InitialRun = Annotated[
    str | None, arg(metavar="RUN", help="Run on another dataset that this stream starts from: its folder.")
]


def reproduce(
    name: Annotated[Positional[str], arg(metavar="NAME", help=f"One of {', '.join([*REPRODUCTIONS, *TRANSFERS])}.")],
    data: Annotated[str, arg(metavar="DIR", help="Folder of a dataset with the streams rgb and flow.")],
    out: Annotated[Path, arg(metavar="DIR", help="Folder of the runs and scores.")],
    *,
    split: Annotated[
        str | None, arg(metavar="NAME", help="Split to score. Default: val. Not for UCF101 and HMDB51.")
    ] = None,
    rgb: InitialRun = None,
    flow: InitialRun = None,
    splits: Annotated[
        tuple[int, ...] | None,
        arg(metavar="N ...", help="Official splits of UCF101 and HMDB51. Default: 1 2 3."),
    ] = None,
    epochs: Epochs = None,
    fusion: Annotated[FusionPlan, arg(name="")] = FusionPlan(),
    json: Json = False,
) -> CommandResult:
    """Train both streams with a chain of recipes, evaluate, fuse and write a report. Rerun to resume.

    UCF101 and HMDB51 (--rgb, --flow, --splits): fine-tune on trainN and score testN of each split, then average."""
    sequence = CommandSequence(COMMANDS, defaults)
    if name in TRANSFERS:
        from lgd.training.transfer.official import reproduce_splits

        if split is not None:
            raise UsageError(f"{name} scores the official test splits: choose them by number with --splits")
        numbers = (1, 2, 3) if splits is None else splits
        return reproduce_splits(
            sequence, name, data, out=out, rgb=rgb, flow=flow, splits=numbers, epochs=epochs, fusion=fusion
        )
    from lgd.training.reproduce import run_chain

    chain = reproduction_named(name)
    if (rgb, flow, splits, fusion) != (None, None, None, FusionPlan()):
        raise UsageError(
            f"--rgb, --flow, --splits, --weights and --fit-fusion are for {', '.join(TRANSFERS)}, not for {name}"
        )
    return run_chain(sequence, chain, data, out=out, split=split or "val", epochs=epochs)


def cross_validate(
    recipe: Annotated[
        Positional[str], arg(metavar="RECIPE", help="Name of a recipe, such as nano-rgb; `lgd recipes` lists them.")
    ],
    data: Data,
    folds: Annotated[
        tuple[str, ...],
        arg(
            metavar="NAME ...",
            help="Folds. NAME stands for the splits NAME-train and NAME-test, or trainNAME and testNAME; TRAIN:TEST "
            "for any two splits.",
        ),
    ],
    *,
    out: Annotated[Path, arg(metavar="DIR", help="Folder of the runs and scores.")],
    streams: Annotated[
        tuple[str, ...] | None,
        arg(metavar="STREAM ...", help="Streams to train: rgb flow for both, fused. Default: that of the recipe."),
    ] = None,
    rgb: InitialRun = None,
    flow: InitialRun = None,
    fusion: Annotated[FusionPlan, arg(name="")] = FusionPlan(),
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),
    json: Json = False,
) -> CommandResult:
    """Train a recipe on every fold of a dataset, score the fold's test split, and average. Rerun to resume.

    Options of `lgd train` override fields of the recipe. Nothing is validated, and the last checkpoint is scored."""
    from lgd.training.transfer.cross_validate import cross_validate as run

    sequence = CommandSequence(COMMANDS, defaults)
    init_from = {"rgb": rgb, "flow": flow}
    return run(
        sequence, recipe, config, data=data, folds=folds, out=out, streams=streams, init_from=init_from, fusion=fusion
    )


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
    **{
        each.__name__: each
        for each in (preprocess, splits, inspect, train, evaluate, fuse, average, predict, report, models, recipes)
    },
    "reproduce": reproduce,
    "cross-validate": cross_validate,
    "bench": BENCHES,
    "submit": submit,
    "doctor": doctor,
    "demo": demo,
}


def defaults(name: str, words: list[str]) -> dict[str, Any]:
    """The options after the recipe of a command have its values."""
    return recipe_defaults(words) if name in ("train", "bench train", "cross-validate") else {}


def main() -> None:
    """The `lgd` command."""
    run_command_line(sys.argv[1:], COMMANDS, defaults)
