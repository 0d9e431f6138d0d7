"""The front door: the `lgd` command, one verb a function, nothing else."""

import dataclasses
import shlex
import sys
import time
from json import loads as parse_json
from math import ceil
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, Positional, arg

from pipeline.command_line import Answer, Json, Verb, Verbs, dispatch, run
from pipeline.errors import UsageError, UserError
from pipeline.progress import say
from pipeline.storage import Storage
from preprocessing.settings import Resources, Settings
from training.recipes import RECIPES, TrainConfig, recipe_named

Address = Annotated[
    str | None,
    arg(
        help="Ray cluster to join, host:port or auto; this machine must be one of its nodes. "
        "Default: RAY_ADDRESS, or a cluster of this machine alone."
    ),
]


def preprocess(
    videos: Annotated[
        Positional[str],
        arg(help="Folder of the videos, local or s3://...: class folders, unless --annotations is given."),
    ],
    out: Annotated[str, arg(help="Folder of the dataset, local or s3://...")],
    annotations: Annotated[
        Path | None,
        arg(
            help="What says the labels: a csv (path, label and optionally split, key, start_s, end_s), a Kinetics csv, "
            "or the folder of UCF101's, HMDB51's or Kinetics' lists. Default: the class folders."
        ),
    ] = None,
    classes: Annotated[
        Path | None, arg(help="Text file, one class a line: fixes the labels. Default: by name.")
    ] = None,
    split_number: Annotated[int | None, arg(help="Which split of UCF101's or HMDB51's lists. Default: 1.")] = None,
    group: Annotated[
        str | None, arg(help="Regular expression: files whose names match the same text stay in one split.")
    ] = None,
    val_fraction: Annotated[float, arg(help="Fraction that becomes the split val, where no splits are given.")] = 0.2,
    streams: Annotated[tuple[str, ...], arg(help="Streams to make: rgb, flow or both.")] = ("rgb", "flow"),
    retry_rejected: Annotated[
        bool,
        FlagCreatePairsOff,
        arg(help="Try again what earlier runs rejected; take in what has been found since."),
    ] = False,
    resources: Annotated[Resources, arg(name="")] = Resources(),
    address: Address = None,
    settings: Annotated[Settings, arg(name="")] = Settings(),
    json: Json = False,
) -> Answer:
    """Videos -> a dataset of shards. Run again, it makes only what is missing."""
    from clusters.embedded import ensure_cluster
    from pipeline.dataset import stream_named
    from preprocessing.annotations import read_manifest
    from preprocessing.job import preprocess as run_job

    for stream in streams:
        stream_named(stream)
    cpus = resources.workers and ceil(resources.workers * resources.cpus_per_task)
    folder = Storage(videos)
    manifest = read_manifest(folder, annotations, group, val_fraction, classes, split_number)
    outcome = run_job(
        folder,
        out,
        manifest,
        streams,
        settings,
        resources,
        lambda: ensure_cluster(cpus, address),
        retry_rejected,
    )
    text: list[Any] = [
        f"{outcome.out}: {outcome.videos} videos + {outcome.rejected} rejected = {outcome.manifest} of the manifest; "
        f"streams: {', '.join(outcome.streams)}"
    ]
    if outcome.reasons:
        text.append("rejected: " + ", ".join(f"{reason} {count}" for reason, count in outcome.reasons.items()))
    if outcome.tried_again:
        text.append(f"tried {outcome.tried_again} rejected videos again: {outcome.recovered} are in now")
    if outcome.made:
        stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in outcome.seconds.items() if spent)
        text.append(
            f"{outcome.made} videos in {outcome.work_s:.1f} s ({outcome.made / outcome.work_s:.1f} videos/s, "
            f"{outcome.flow_pairs / outcome.work_s:.0f} flow pairs/s); seconds of the workers: {stages}"
        )
    return Answer(dataclasses.asdict(outcome), text)


def inspect(
    dataset: Annotated[Positional[str], arg(help="Folder of the dataset.")],
    verify: Annotated[bool, FlagCreatePairsOff, arg(help="Read everything back; check counts and checksums.")] = False,
    pictures: Annotated[
        str | None, arg(metavar="DIR", help="Folder for pictures to look at: a PNG a video, moments of RGB and flow.")
    ] = None,
    videos: Annotated[
        int | None, arg(help="With --pictures: how many videos are drawn, evenly chosen. Default: 16.")
    ] = None,
    json: Json = False,
) -> Answer:
    """What a dataset holds; with --verify, whether it still does; with --pictures, what it looks like."""
    from pipeline.dataset import open_dataset
    from pipeline.inspection import describe
    from pipeline.inspection import verify as verify_dataset
    from pipeline.pictures import VIDEOS, draw_videos

    if videos is not None and pictures is None:
        raise UsageError("--videos says how many videos --pictures draws: give --pictures DIR as well")
    if videos is not None and videos < 1:
        raise UsageError(f"--videos must be 1 or more, not {videos}")
    opened = open_dataset(dataset)
    about = describe(opened)
    table = Table("stream", "videos", "frames", "MB", "recipe", title=None)
    for name, stream in about["streams"].items():
        settings = ", ".join(f"{key} {value}" for key, value in stream["recipe"].items())
        table.add_row(name, *(f"{stream[c]:,}" for c in ("videos", "frames")), f"{stream['bytes'] / 1e6:.1f}", settings)
    text: list[Any] = [
        f"{dataset}: {about['videos']} videos of {len(about['classes'])} classes; "
        + ", ".join(f"{split} {count}" for split, count in about["splits"].items()),
        "rejected: " + (", ".join(f"{reason} {count}" for reason, count in about["rejected"].items()) or "none"),
        table,
    ]
    if "flow" in about["streams"]:
        text.append(f"flow vectors beyond the bound: {about['streams']['flow']['saturated']:.3%}")
    if verify:
        problems = verify_dataset(opened, opened.streams)
        about["problems"] = problems
        if problems:
            for problem in problems[:20]:
                say(problem)
            raise UserError(
                f"{dataset} has {len(problems)} problems; delete the shards named above and run `lgd preprocess` again"
            )
        text.append("verified: every frame is there and has its checksum")
    if pictures is not None:
        about["pictures"] = draw_videos(opened, pictures, VIDEOS if videos is None else videos)
        text.append(f"{pictures}: pictures of {len(about['pictures'])} videos")
    return Answer(about, text)


def train(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help=f"One of {', '.join(RECIPES)}.")],
    data: Annotated[str, arg(help="Folder of the dataset.")],
    run: Annotated[str, arg(help="Folder of the run: checkpoints, metrics, result.")],
    workers: Annotated[
        tuple[int, int] | None, arg(help="Fewest and most workers. Default: 1, and one a GPU or one a CPU.")
    ] = None,
    address: Address = None,
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),
    json: Json = False,
) -> Answer:
    """Train a network by a recipe, whose fields the options override. Run again, it goes on where it stopped."""
    from clusters.embedded import ensure_cluster
    from pipeline.dataset import open_dataset
    from training.elastic import fit
    from training.models.zoo import check
    from training.run import begin_run
    from training.start import located

    dataset = open_dataset(data)
    check(config.model, len(dataset.classes), channels=3)
    opened = begin_run(run, recipe, located(config), dataset)
    result = fit(opened, dataset, workers, lambda: ensure_cluster(address=address))
    accuracy = f"; validation top-1 {result['val_top1']:.1%}" if "val_top1" in result else ""
    return Answer({"run": run, **result}, [f"{run}: {result['steps']} steps{accuracy}"])


def evaluate(
    run: Annotated[Positional[str], arg(help="Folder of the run.")],
    data: Annotated[str, arg(help="Folder of the dataset.")],
    out: Annotated[str, arg(help="The scores: a Parquet file.")],
    split: Annotated[str, arg(help="Split to score.")] = "val",
    clips: Annotated[int | None, arg(help="Uniform clips a video. Default: as the run's recipe says.")] = None,
    json: Json = False,
) -> Answer:
    """Score a split with a run's last checkpoint: class probabilities for every video."""
    import torch

    from training.evaluate import evaluate as evaluate_run
    from training.fuse import metrics
    from training.run import open_run
    from training.scores import write_scores

    if not out.endswith(".parquet"):
        raise UsageError(f"--out is a Parquet file, such as {Path(out).stem or 'scores'}.parquet, not {out}")
    if clips is not None and clips < 1:
        raise UsageError(f"--clips must be 1 or more, not {clips}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scores = evaluate_run(open_run(run), data, split, clips, device)
    write_scores(out, scores)
    numbers = metrics(scores)
    return Answer({"out": out, **numbers}, [f"{out}: {numbers['videos']} videos", accuracy_table({run: numbers})])


def fuse(
    scores: Annotated[Positional[tuple[str, ...]], arg(help="Score files of `lgd evaluate` or `lgd fuse`.")],
    weights: Annotated[tuple[float, ...] | None, arg(help="One a score file. Default: equal.")] = None,
    out: Annotated[str | None, arg(help="Where to write the fused scores: a Parquet file.")] = None,
    json: Json = False,
) -> Answer:
    """Join the streams' predictions by key and average them."""
    from training.fuse import comparison
    from training.fuse import fuse as fuse_scores
    from training.scores import read_scores, write_scores

    inputs = [read_scores(path) for path in scores]
    fused = fuse_scores(inputs, weights)
    if out:
        write_scores(out, fused)
    document = {**comparison(inputs, fused), "weights": fused.about["weights"], "out": out}
    return Answer(document, [accuracy_table({**document["inputs"], "fused": document["fused"]})])


def models(
    classes: Annotated[int, arg(help="Classes that the networks tell apart.")] = 400, json: Json = False
) -> Answer:
    """The networks: parameters and GMAC (10^9 multiply-accumulates) a clip of the given channels x T x H x W."""
    from training.models.zoo import listing

    if classes < 1:
        raise UsageError(f"--classes must be 1 or more, not {classes}")
    rows = listing(classes)
    table = Table("name", "stage", "parameters", "GMAC", "input")
    for row in rows:
        shape = " x ".join(map(str, row["input"]))
        table.add_row(row["name"], str(row["stage"]), f"{row['parameters']:,}", f"{row['gmac']:.3f}", shape)
    return Answer(rows, [table])


def bench_flow(
    data: Annotated[
        Positional[Path], arg(help="Folder with videos at any depth, and Middlebury pairs (frame10, frame11, flow10).")
    ],
    videos: Annotated[int, arg(help="Videos measured, evenly chosen from those found.")] = 10,
    pairs: Annotated[int, arg(help="Pairs of frames solved of each video at each size.")] = 4,
    json: Json = False,
) -> Answer:
    """TV-L1 flow beside OpenCV's: speed, difference, end-point errors, cost by stage."""
    from benchmarks.flow import report
    from benchmarks.flow import run as run_benchmark

    for option, number in (("--videos", videos), ("--pairs", pairs)):
        if number < 1:
            raise UsageError(f"{option} must be 1 or more, not {number}")
    result = run_benchmark(data, videos, pairs)
    failed = "; ".join(result["failed"])
    return Answer(result, report(result), f"claims that do not hold: {failed}" if failed else "")


def bench_preprocess(
    videos: Annotated[Positional[Path], arg(help="Folder of class folders of videos.")],
    short_side: Annotated[int, arg(help="Shorter side of the frames, pixels.")] = 120,
    limit: Annotated[int, arg(help="Videos taken, evenly chosen.")] = 32,
    rounds: Annotated[int, arg(help="Runs of the job with one worker, and as many with two.")] = 3,
    json: Json = False,
) -> Answer:
    """The preprocessing job: cost by stage, two workers over one, projected core-hours for Kinetics."""
    from benchmarks.preprocess import report
    from benchmarks.preprocess import run as run_benchmark

    for option, number in (("--limit", limit), ("--rounds", rounds)):
        if number < 1:
            raise UsageError(f"{option} must be 1 or more, not {number}")
    result = run_benchmark(videos, Settings(short_side=short_side), limit, rounds)
    return Answer(result, report(result))


def demo(
    videos: Annotated[Path | None, arg(help="Folder of class folders. Default: a small set is rendered.")] = None,
    out: Annotated[Path, arg(help="Folder of everything that the demo makes.")] = Path("lgd-demo"),
    group: Annotated[str | None, arg(help="As in `lgd preprocess`.")] = None,
    epochs: Annotated[float, arg(help="Times that every video is drawn.")] = RECIPES["nano-rgb"].epochs,
    json: Json = False,
) -> Answer:
    """The whole job on a small set of videos: preprocess, train both streams, evaluate, fuse."""
    from preprocessing.render import render_set

    seconds: dict[str, float] = {}

    def do(stage: str, *words: object) -> Any:
        command = [str(word) for word in words]
        say(f"\n$ lgd {shlex.join(command)}")
        start = time.monotonic()
        answer = dispatch(command, VERBS, defaults)
        seconds[stage] = time.monotonic() - start
        for line in answer.text:
            say(line) if isinstance(line, str) else Console(stderr=True).print(line)
        return answer.document

    short_side: list[object] = ["--short-side", DEMO_SHORT_SIDE]
    if videos is None:
        videos = out / "videos"
        say(f"rendering videos of objects that move in 6 ways to {videos}")
        start = time.monotonic()
        render_set(videos, DEMO_VIDEOS_PER_CLASS)
        seconds["render"] = time.monotonic() - start
    grouped: list[object] = ["--group", group] if group else []
    data = out / "data"
    do("preprocess", "preprocess", videos, "--out", data, *short_side, *grouped)
    files = []
    for stream in ("rgb", "flow"):
        shorter = ["--epochs", epochs] if epochs != RECIPES[f"nano-{stream}"].epochs else []
        do(f"train {stream}", "train", f"nano-{stream}", "--data", data, "--run", out / stream, *shorter)
        files.append(out / f"{stream}.parquet")
        do(f"evaluate {stream}", "evaluate", out / stream, "--data", data, "--split", "val", "--out", files[-1])
    fused = do("fuse", "fuse", *files, "--out", out / "fused.parquet")
    rows = {"rgb": fused["inputs"][str(files[0])], "flow": fused["inputs"][str(files[1])], "fused": fused["fused"]}
    stages = Table("stage", "seconds")
    for stage, spent in seconds.items():
        stages.add_row(stage, f"{spent:.1f}")
    stages.add_row("together", f"{sum(seconds.values()):.1f}")
    text = ["", accuracy_table(rows), stages, f"everything is in {out}"]
    return Answer({**rows, "seconds": seconds, "out": str(out)}, text)


def submit(
    words: Annotated[
        Positional[tuple[str, ...]],
        arg(
            metavar="-- VERB ...", help="The command, as it would follow `lgd`. Its paths are the cluster's: absolute."
        ),
    ] = (),
    address: Annotated[
        str, arg(help="The cluster's dashboard, http://HOST:PORT. Its token is looked for where Ray does.")
    ] = "",
    env: Annotated[
        tuple[str, ...], arg(help="Names of environment variables that the job gets as they are here. Default: none.")
    ] = (),
    follow: Annotated[
        str | None, arg(metavar="ID", help="Show a job that runs, or has run, from its beginning.")
    ] = None,
    stop: Annotated[str | None, arg(metavar="ID", help="End a job.")] = None,
    json: Annotated[
        bool, FlagCreatePairsOff, arg(help="Print the verb's JSON document, as its own --json does.")
    ] = False,
) -> Answer:
    """Run a verb on a cluster. Ctrl-C or a closed terminal leave it running."""
    from clusters.submit import check_words, follow_job, run_job, stop_job

    if not address or [bool(words), follow is not None, stop is not None].count(True) != 1:
        raise UsageError("submit takes --address URL, and one of -- VERB ..., --follow ID and --stop ID")
    if stop is not None:
        status = stop_job(address, stop)
        return Answer({"job": stop, "status": status}, [f"{stop}: {status.lower()}"])
    as_json = json or "--json" in words
    answer: list[str] = []
    keep = answer.append if as_json else sys.stdout.write
    if follow is not None:
        code = follow_job(address, follow, keep)
    else:
        check_words([*words], VERBS, defaults)
        if json and "--json" not in words:
            words = (*words, "--json")
        code = run_job(address, words, env, keep)
    failed = f"the job ended with exit code {code}; its log is above" if code else ""
    if failed and not answer:
        error = UserError(failed)
        error.exit_code = code
        raise error
    return Answer(parse_json("".join(answer)) if answer else None, [], failed)


DEMO_SHORT_SIDE, DEMO_VIDEOS_PER_CLASS = 64, 16

BENCHES: dict[str, Verb] = {"flow": bench_flow, "preprocess": bench_preprocess}
VERBS: Verbs = {
    **{verb.__name__: verb for verb in (preprocess, inspect, train, evaluate, fuse, models)},
    "bench": BENCHES,
    "submit": submit,
    "demo": demo,
}


def accuracy_table(rows: dict[str, Any]) -> Table:
    table = Table("", "top-1", "top-5", "mean class", "videos")
    for name, numbers in rows.items():
        table.add_row(name, *(f"{numbers[c]:.1%}" for c in ("top1", "top5", "mean_class")), str(numbers["videos"]))
    return table


def defaults(name: str, words: list[str]) -> dict[str, Any]:
    """What the first word after `train`, the recipe, makes of the defaults of the options after it."""
    return {"config": recipe_named(words[0])} if name == "train" and words and not words[0].startswith("-") else {}


def main() -> None:
    """The `lgd` command."""
    run(sys.argv[1:], VERBS, defaults)


if __name__ == "__main__":
    main()
