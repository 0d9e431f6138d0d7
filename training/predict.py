"""What trained networks say of some videos: their probabilities, and those of every moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.dataset import STREAMS, Dataset
from pipeline.errors import UsageError, UserError
from pipeline.loader import Delivery, uniform_loader
from pipeline.progress import Progress
from training import checkpoint
from training.evaluate import CLIPS_AT_ONCE, autocast
from training.fuse import fuse
from training.models.lgd import Network
from training.models.zoo import build
from training.run import Run, open_run
from training.scores import UNLABELLED, Scores


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
    folders: Mapping[str, str], weights: Sequence[float] | None, device: torch.device
) -> dict[str, Trained]:
    """The runs by the stream that each is given for, before any work is done for them.

    Raises UsageError for a run of another stream and weights that do not fit, and UserError, naming what differs, for
    runs of other classes and a run without a checkpoint."""
    if not folders:
        raise UsageError("give a run with --rgb, with --flow, or one with each")
    if weights is not None and len(folders) < 2:
        raise UsageError("--weights are for two runs: give --rgb and --flow")
    runs = {stream: open_run(folder) for stream, folder in folders.items()}
    for stream, run in runs.items():
        if run.config.stream != stream:
            raise UsageError(
                f"--{stream} takes a run of the {stream} stream, and {run.storage.show()} is one of "
                f"{run.config.stream}: give it with --{run.config.stream}"
            )
    if len(runs) > 1:  # refused here and not after minutes
        fuse(
            [_scores(run, ["-"], np.full((1, len(run.classes)), 1 / len(run.classes))) for run in runs.values()],
            weights,
        )
    return {stream: Trained(run, _network(run, device)) for stream, run in runs.items()}


def _network(run: Run, device: torch.device) -> Network:
    content = checkpoint.load_latest(run)
    if content is None:
        raise UserError(f"{run.storage.show()} has no sound checkpoint yet: train it first")
    network = build(run.config.model, len(run.classes), STREAMS[run.config.stream].channels)
    network.load_state_dict(content["model"])
    return network.to(device=device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]


def predict(
    trained: Mapping[str, Trained],
    datasets: Mapping[str, Dataset],
    split: str,
    keys: Sequence[str],
    clips: int | None,
    weights: Sequence[float] | None,
    device: torch.device,
) -> dict[str, Prediction]:
    """The predictions for the videos with these keys, which every dataset has in this split.

    datasets: by stream, made by the run's recipe. clips: uniform clips a video; by default as many as each run's
    configuration says. weights: of the streams; equal by default."""
    if not keys:
        return {}
    of_clips = {stream: _clips(each, datasets[stream], split, clips, device) for stream, each in trained.items()}
    means = [
        _scores(trained[stream].run, keys, np.stack([found[key].probabilities.mean(0) for key in keys]))
        for stream, found in of_clips.items()
    ]
    fused = (fuse(means, weights) if len(means) > 1 else means[0]).probabilities
    shares = np.ones(len(means)) if weights is None else np.asarray(weights)
    rates = [float(datasets[stream].recipe(stream).settings["fps"]) for stream in trained]
    predictions = {}
    for row, key in enumerate(keys):
        moments = [found[key].over_time() for found in of_clips.values()]
        frame = np.arange(len(moments[0]))
        rows = [np.minimum(frame * rate // rates[0], len(each) - 1) for each, rate in zip(moments, rates, strict=True)]
        seen = [each[rows_of.astype(int)] for each, rows_of in zip(moments, rows, strict=True)]
        over_time = np.average(seen, axis=0, weights=shares)
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
    """The clips of a video: probabilities, clips x classes; first and last frame of each; frames of the video."""

    probabilities: np.ndarray
    spans: np.ndarray
    frames: int

    def over_time(self) -> np.ndarray:
        frame = np.arange(self.frames)[:, None]
        first, last = self.spans.T
        away = np.maximum(np.maximum(first - frame, frame - last), 0)
        shows = (away == away.min(1, keepdims=True)).astype(np.float32)
        return shows @ self.probabilities / shows.sum(1, keepdims=True)


@torch.inference_mode()
def _clips(
    trained: Trained, dataset: Dataset, split: str, clips: int | None, device: torch.device
) -> dict[str, ClipScores]:
    """Every video's clips by key."""
    config = trained.run.config
    clips = clips or config.test_clips
    loader = uniform_loader(
        dataset,
        config.stream,
        clips,
        config.sampling,
        config.transform,
        split=split,
        most_clips=CLIPS_AT_ONCE,
        delivery=Delivery(device, threads=torch.get_num_threads()),
    )
    found: dict[str, ClipScores] = {}
    rows: list[np.ndarray] = []
    spans: list[tuple[int, int]] = []
    with Progress(f"predict {config.stream}", len(loader.order.rows), "videos") as progress:
        for batch in loader:
            with autocast(config, device):
                probabilities = trained.network.probabilities(trained.network(batch.video)).cpu().numpy()
            for key, position, row in zip(batch.key, batch.position, probabilities, strict=True):
                frames = loader.order.clips_at([position])[0].frames
                rows.append(row)
                spans.append((int(frames.min()), int(frames.max())))
                if len(rows) == clips:
                    length = int(loader.order.lengths[position // clips])
                    found[key] = ClipScores(np.stack(rows), np.array(spans), length)
                    rows, spans = [], []
                    progress.update(len(found))
    return found


def _scores(run: Run, keys: Sequence[str], probabilities: np.ndarray) -> Scores:
    labels = np.full(len(keys), UNLABELLED, np.int64)
    return Scores(run.storage.show(), list(keys), labels, probabilities.astype(np.float32), run.classes, "given")
