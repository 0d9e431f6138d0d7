"""Predictions of trained runs for the videos of temporary datasets: of the complete video, and of every moment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.progress import Progress
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.pipeline.loading.clip_order import UniformOrder
from lgd.training.fusion.fuse import fuse, make_rule
from lgd.training.fusion.join import join
from lgd.training.models.lgd import Network
from lgd.training.recipes import TrainConfig
from lgd.training.run import Run, open_run
from lgd.training.scoring.inference import load_checkpoint, load_network, score_rows
from lgd.training.scoring.protocol import CheckpointChoice, TestProtocol
from lgd.training.scoring.scores import Scores


@dataclass(frozen=True)
class TrainedRun:
    """A run and its network with the weights of one of its checkpoints."""

    run: Run
    network: Network


@dataclass(frozen=True)
class Prediction:
    """Class probabilities of one video, float32.

    fused: classes. streams: by stream, classes."""

    fused: np.ndarray
    streams: Mapping[str, np.ndarray]
    _clips: Sequence["ClipScores"]
    _rates: Sequence[float]
    _weights: Sequence[float]

    def over_time(self) -> np.ndarray:
        """Return frames of the first stream x classes: the mean over the clips that contain a frame, or over the
        nearest clips if none does. Takes a number per frame and class: of a long video, much memory."""
        return _mean_over_time([clips.over_time() for clips in self._clips], self._rates, self._weights)


@dataclass(frozen=True)
class ClipScores:
    """Scores of the views of one video.

    mean: probabilities, classes. views: probabilities of each view, views x classes. spans: first and last frame of
    each view, views x 2. frames: of the video."""

    mean: np.ndarray
    views: np.ndarray
    spans: np.ndarray
    frames: int

    def over_time(self) -> np.ndarray:
        """Return frames x classes: the mean over the views that contain a frame, or else over the nearest views."""
        frame = np.arange(self.frames)[:, None]
        first, last = self.spans.T
        distance = np.maximum(np.maximum(first - frame, frame - last), 0)
        nearest = (distance == distance.min(1, keepdims=True)).astype(np.float32)
        mean: np.ndarray = nearest @ self.views / nearest.sum(1, keepdims=True)
        return mean


def open_trained_runs(
    folders: Mapping[str, str], weights: Sequence[float], which: CheckpointChoice, *, device: torch.device
) -> dict[str, TrainedRun]:
    """Open runs, by their stream, with the weights of their last or best checkpoint.

    Raises UsageError for a run of a different stream and for invalid weights, and UserError, naming the difference, for
    runs with different classes and for a run without a checkpoint."""
    if not folders:
        raise UsageError("give a run with --rgb, one with --flow, or both")
    if len(folders) < 2 and set(weights) != {1.0}:
        raise UsageError("--weights needs two runs: give --rgb and --flow")
    runs = {stream: open_run(folder) for stream, folder in folders.items()}
    for stream, run in runs.items():
        actual = run.config.stream
        if actual != stream:
            raise UsageError(
                f"--{stream} takes a run of the {stream} stream, but {run.storage.display()} is a run of the {actual} "
                f"stream: give it with --{actual}"
            )
    if len(runs) > 1:  # a trial fusion: raises an error now, and not after minutes of work
        _fuse([_scores(run, ["-"], np.full((1, n := len(run.classes)), 1 / n)) for run in runs.values()], weights)
    return {
        stream: TrainedRun(run, load_network(run, load_checkpoint(run, which)["model"], device))
        for stream, run in runs.items()
    }


def predict_videos(
    trained: Mapping[str, TrainedRun],
    datasets: Mapping[str, Dataset],
    split: str,
    *,
    keys: Sequence[str],
    clips: int | None,
    crops: int,
    weights: Sequence[float],
    device: torch.device,
) -> dict[str, Prediction]:
    """Return the predictions, by key, for the videos with these keys, which the split of every dataset contains.

    datasets: by stream, with the stream spec of the run. clips: uniform clips per video, by default the number in each
    run's recipe. crops: see `TestProtocol`. weights: of the streams."""
    if not keys:
        return {}
    clip_scores = {
        stream: _score_clips(each, datasets[stream], split, clips=clips, crops=crops, device=device)
        for stream, each in trained.items()
    }
    means = [
        _scores(trained[stream].run, keys, np.stack([by_key[key].mean for key in keys]))
        for stream, by_key in clip_scores.items()
    ]
    fused = (_fuse(means, weights) if len(means) > 1 else means[0]).probabilities
    rates = [float(datasets[stream].spec(stream).settings["fps"]) for stream in trained]
    predictions = {}
    for row, key in enumerate(keys):
        clips_of = [by_key[key] for by_key in clip_scores.values()]
        streams = {stream: scores.probabilities[row] for stream, scores in zip(trained, means, strict=True)}
        predictions[key] = Prediction(fused[row], streams, clips_of, rates, weights)
    return predictions


def frames_of_clips(
    trained: Mapping[str, TrainedRun], *, clips: int | None, crops: int
) -> dict[str, Callable[[int], np.ndarray]]:
    """Return a function for each stream: number of frames of a video -> numbers of the frames that its clips contain.

    clips, crops: see `predict_videos`."""

    def function_of(config: TrainConfig) -> Callable[[int], np.ndarray]:
        number = TestProtocol(clips, crops).clips_of(config)

        def frames(length: int) -> np.ndarray:
            order = UniformOrder(np.zeros(1, np.int64), np.array([length]), config.sampling, clips=number)
            return np.unique(np.concatenate([clip.frames for clip in order.clips_at(range(number))]))

        return frames

    return {stream: function_of(each.run.config) for stream, each in trained.items()}


def _mean_over_time(streams: Sequence[np.ndarray], rates: Sequence[float], weights: Sequence[float]) -> np.ndarray:
    """Return the weighted mean of the streams' probabilities, float32, frames of the first stream x classes.

    streams: frames x classes each. rates: frames per second."""
    frame = np.arange(len(streams[0]))
    rows = [np.minimum(frame * rate // rates[0], len(each) - 1) for each, rate in zip(streams, rates, strict=True)]
    aligned = [each[rows_of.astype(int)] for each, rows_of in zip(streams, rows, strict=True)]
    mean: np.ndarray = np.average(aligned, axis=0, weights=weights[: len(aligned)]).astype(np.float32)
    return mean


def _score_clips(
    trained: TrainedRun, dataset: Dataset, split: str, *, clips: int | None, crops: int, device: torch.device
) -> dict[str, ClipScores]:
    """Return the scores of the views of every video, by key."""
    config = trained.run.config
    protocol = TestProtocol(clips, crops, keep=("clips",))
    index = Index(dataset, config.stream)
    rows = index.rows(split)
    order = UniformOrder(
        rows, index.lengths[rows], config.sampling, clips=protocol.clips_of(config), crops=protocol.crops
    )
    place_of = {int(row): place for place, row in enumerate(rows)}
    scores: dict[str, ClipScores] = {}
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
            first = place_of[video.row] * order.views
            frames = [clip.frames for clip in order.clips_at(range(first, first + order.views))]
            spans = np.array([(each.min(), each.max()) for each in frames])
            assert video.clip_probabilities is not None
            length = int(index.lengths[video.row])
            scores[index.key(video.row)] = ClipScores(video.probabilities, video.clip_probabilities, spans, length)
            progress.update(len(scores))
    return scores


def _fuse(means: Sequence[Scores], weights: Sequence[float]) -> Scores:
    return fuse(join(means), make_rule(len(means), tuple(weights)))


def _scores(run: Run, keys: Sequence[str], probabilities: np.ndarray) -> Scores:
    """Return probabilities, N x classes, as scores without labels."""
    labels = np.full(len(keys), UNLABELLED, np.int64)
    return Scores(run.storage.display(), list(keys), labels, probabilities.astype(np.float32), run.classes, "given")
