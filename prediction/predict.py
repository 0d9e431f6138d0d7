"""What trained networks say of some videos: their probabilities, and those of every moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.clip_order import UniformOrder
from lgd.training.fusion.fuse import fuse, given_rule
from lgd.training.fusion.join import join
from lgd.training.models.lgd import Network
from lgd.training.run import Run, open_run
from lgd.training.scoring.inference import chosen_checkpoint, score_rows, trained_network
from lgd.training.scoring.protocol import CheckpointChoice, TestProtocol
from lgd.training.scoring.scores import UNLABELLED, Scores


@dataclass(frozen=True)
class Trained:
    """A run and its network as it was last."""

    run: Run
    network: Network


@dataclass(frozen=True)
class Prediction:
    """Probabilities of one video, float32.

    fused: classes. streams: by stream, classes. over_time: frames of the first stream x classes, the mean over the
    clips that show a frame (those nearest to it where none does)."""

    fused: np.ndarray
    streams: Mapping[str, np.ndarray]
    over_time: np.ndarray


def open_trained(
    folders: Mapping[str, str], weights: Sequence[float], which: CheckpointChoice, *, device: torch.device
) -> dict[str, Trained]:
    """The runs by the stream that each is given for, with the weights of their last or best checkpoint.

    Raises UsageError for a run of another stream and weights that do not fit, and UserError, naming what differs, for
    runs of other classes and a run without a checkpoint."""
    if not folders:
        raise UsageError("give a run with --rgb, with --flow, or one with each")
    if len(folders) < 2 and set(weights) != {1.0}:
        raise UsageError("--weights are for two runs: give --rgb and --flow")
    runs = {stream: open_run(folder) for stream, folder in folders.items()}
    for stream, run in runs.items():
        if run.config.stream != stream:
            raise UsageError(
                f"--{stream} takes a run of the {stream} stream, and {run.storage.display()} is one of "
                f"{run.config.stream}: give it with --{run.config.stream}"
            )
    if len(runs) > 1:  # refused here and not after minutes
        _fused([_scores(run, ["-"], np.full((1, n := len(run.classes)), 1 / n)) for run in runs.values()], weights)
    return {
        stream: Trained(run, trained_network(run, chosen_checkpoint(run, which)["model"], device))
        for stream, run in runs.items()
    }


def predict(
    trained: Mapping[str, Trained],
    datasets: Mapping[str, Dataset],
    split: str,
    *,
    keys: Sequence[str],
    clips: int | None,
    crops: int,
    weights: Sequence[float],
    device: torch.device,
) -> dict[str, Prediction]:
    """The predictions for the videos with these keys, which every dataset has in this split.

    datasets: by stream, made by the run's recipe. clips: uniform clips a video; by default as many as each run's
    configuration says. crops: as in `Protocol`. weights: of the streams."""
    if not keys:
        return {}
    of_clips = {
        stream: _clips(each, datasets[stream], split, clips=clips, crops=crops, device=device)
        for stream, each in trained.items()
    }
    means = [
        _scores(trained[stream].run, keys, np.stack([found[key].mean for key in keys]))
        for stream, found in of_clips.items()
    ]
    fused = (_fused(means, weights) if len(means) > 1 else means[0]).probabilities
    rates = [float(datasets[stream].spec(stream).settings["fps"]) for stream in trained]
    predictions = {}
    for row, key in enumerate(keys):
        moments = [found[key].over_time() for found in of_clips.values()]
        frame = np.arange(len(moments[0]))
        rows = [np.minimum(frame * rate // rates[0], len(each) - 1) for each, rate in zip(moments, rates, strict=True)]
        seen = [each[rows_of.astype(int)] for each, rows_of in zip(moments, rows, strict=True)]
        over_time = np.average(seen, axis=0, weights=weights[: len(seen)])
        streams = {stream: scores.probabilities[row] for stream, scores in zip(trained, means, strict=True)}
        predictions[key] = Prediction(fused[row], streams, over_time.astype(np.float32))
    return predictions


def most_probable(classes: Sequence[str], probabilities: np.ndarray, top: int) -> list[dict[str, Any]]:
    """The `top` most probable classes, the first first: {"class": name, "probability": number}."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [{"class": classes[i], "probability": float(probabilities[i])} for i in order]


def prediction_line(row: Mapping[str, Any]) -> str:
    """A video's row of the JSON document for a person."""
    path = "".join(c if c.isprintable() else "?" for c in row["path"])
    if "rejected" in row:
        return f"{path}: rejected: {row['rejected']} ({row['detail']})"
    return f"{path}: " + ", ".join(f"{each['class']} {each['probability']:.1%}" for each in row["predictions"])


@dataclass(frozen=True)
class ClipScores:
    """What a network says of one video. mean: probabilities, classes. views: those of each view, views x classes.
    spans: its first and last frame, views x 2. frames: of the video."""

    mean: np.ndarray
    views: np.ndarray
    spans: np.ndarray
    frames: int

    def over_time(self) -> np.ndarray:
        """Frames x classes: the mean over the views that show a frame, or those nearest to it."""
        frame = np.arange(self.frames)[:, None]
        first, last = self.spans.T
        away = np.maximum(np.maximum(first - frame, frame - last), 0)
        shows = (away == away.min(1, keepdims=True)).astype(np.float32)
        return shows @ self.views / shows.sum(1, keepdims=True)


def _clips(
    trained: Trained, dataset: Dataset, split: str, *, clips: int | None, crops: int, device: torch.device
) -> dict[str, ClipScores]:
    """Every video's views by key."""
    config = trained.run.config
    protocol = TestProtocol(clips, crops, keep=("clips",))
    index = Index(dataset, config.stream)
    rows = index.rows(split)
    order = UniformOrder(
        rows, index.lengths[rows], config.sampling, clips=protocol.clips_of(config), crops=protocol.crops
    )
    place = {int(row): number for number, row in enumerate(rows)}
    found: dict[str, ClipScores] = {}
    with Progress(f"predict {config.stream}", len(rows), "videos") as progress:
        for video in score_rows(
            trained.network,
            config,
            dataset,
            split=split,
            protocol=protocol,
            device=device,
            threads=torch.get_num_threads(),
            index=index,
        ):
            first = place[video.row] * order.views
            frames = [clip.frames for clip in order.clips_at(range(first, first + order.views))]
            spans = np.array([(each.min(), each.max()) for each in frames])
            assert video.clip_probabilities is not None
            length = int(index.lengths[video.row])
            found[index.key(video.row)] = ClipScores(video.probabilities, video.clip_probabilities, spans, length)
            progress.update(len(found))
    return found


def _fused(means: Sequence[Scores], weights: Sequence[float]) -> Scores:
    return fuse(join(means), given_rule(len(means), tuple(weights)))


def _scores(run: Run, keys: Sequence[str], probabilities: np.ndarray) -> Scores:
    labels = np.full(len(keys), UNLABELLED, np.int64)
    return Scores(run.storage.display(), list(keys), labels, probabilities.astype(np.float32), run.classes, "given")
