"""The `lgd` command line: the table of the commands, and those that run other commands."""

import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from lgd.benchmarks.commands import BENCHES
from lgd.clusters.options import SubmitOptions
from lgd.commands.dataset_commands import inspect, preprocess
from lgd.commands.machine_commands import doctor
from lgd.commands.run_commands import evaluate, fuse, models, predict, recipes, report, train
from lgd.commands.shared_options import Epochs, Split
from lgd.pipeline.console.command_line import CommandResult, Commands, CommandSequence, Json, run_command_line
from lgd.pipeline.console.progress import say
from lgd.training.chains import REPRODUCTIONS, reproduction_named
from lgd.training.recipes import recipe_defaults


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
    "doctor": doctor,
    "demo": demo,
}


def defaults(name: str, words: list[str]) -> dict[str, Any]:
    """The options after the recipe of `train` have its values."""
    return recipe_defaults(words) if name in ("train", "bench train") else {}


def main() -> None:
    """The `lgd` command."""
    run_command_line(sys.argv[1:], COMMANDS, defaults)
