"""`lgd predict`: video files -> the most probable classes of each, and optionally videos with the predictions drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, final

import numpy as np

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.storage.storage import Storage
from lgd.prediction.options import PredictOptions
from lgd.prediction.overlay import draw_video, drawn_predictions, output_names
from lgd.prediction.predict import Prediction, frames_of_clips, open_trained_runs, predict_videos
from lgd.prediction.temporary import SPLIT, GivenFile, TemporaryDatasets, given_files, temporary_datasets
from lgd.preprocessing.isolation import rejection_of
from lgd.preprocessing.video.rejections import Rejected
from lgd.training.gpu import best_device
from lgd.training.scoring.class_table import ClassName
from lgd.training.scoring.protocol import TestProtocol


class ClassProbability(ClassName):
    """A class and its probability.

    class: Class name."""

    probability: float
    """Probability, 0 to 1."""


@final
class PredictedVideo(TypedDict):
    """Prediction for one video file."""

    path: str
    """Path of the file."""
    predictions: list[ClassProbability]
    """The most probable classes, the most probable one first; with two runs, of their fused probabilities."""
    streams: dict[str, list[ClassProbability]]
    """The same for each run alone, by stream."""
    frames: int
    """Frames at the frame rate of the first run's dataset."""
    seconds: float
    """Duration of the video, seconds."""
    render: NotRequired[str]
    """The video with the predictions drawn, if it was asked for."""


@final
class RejectedVideo(TypedDict):
    """A file without a prediction."""

    path: str
    """Path of the file."""
    rejected: str
    """Reason, as in rejected.parquet."""
    detail: str
    """One line that explains it."""


@dataclass(frozen=True)
class PredictResult(CommandResult):
    """Result of `lgd predict`."""

    videos: list[PredictedVideo | RejectedVideo]
    """One entry per file, in the given order."""
    runs: dict[str, str]
    """Folder of the run, by stream."""

    def lines(self) -> list[Line]:
        return [video_line(video) for video in self.videos]

    @property
    def failed(self) -> str:
        rejected = sum("rejected" in video for video in self.videos)
        return f"{rejected} of {len(self.videos)} videos were rejected" if rejected else ""


def predict_files(
    paths: Sequence[str],
    rgb: str | None = None,
    flow: str | None = None,
    *,
    options: PredictOptions = PredictOptions(),
) -> PredictResult:
    """Classify video files with the runs of one stream or two.

    rgb, flow: folders of the runs. Raises UsageError for invalid arguments, and UserError for runs that cannot be used
    and for a full disk; a file that cannot be decoded or drawn is an entry of the result."""
    if not paths:
        raise UsageError("give one or more video files")
    if options.top < 1:
        raise UsageError(f"--top must be 1 or more, not {options.top}")
    TestProtocol(options.clips, options.crops)  # raises UsageError before any work
    runs = {stream: run for stream, run in (("rgb", rgb), ("flow", flow)) if run is not None}
    device, device_name = best_device()
    trained = open_trained_runs(runs, options.weights, options.checkpoint, device=device)
    classes = next(iter(trained.values())).run.classes
    drawn = None
    if options.render is not None:
        folder, names = output_names(options.render, paths)
        drawn = _Drawn(folder, names, classes, options.top)
    files = given_files(paths)
    say(f"predicting on {device_name}")
    videos: list[PredictedVideo | RejectedVideo] = []
    specs = {stream: each.run.stream_spec for stream, each in trained.items()}
    clip_frames = frames_of_clips(trained, clips=options.clips, crops=options.crops)
    with temporary_datasets(files, specs, classes, clip_frames=clip_frames) as temporary:
        keys = [file.key for file in files if file.key not in temporary.rejected]
        predictions = predict_videos(
            trained,
            temporary.datasets,
            SPLIT,
            keys=keys,
            clips=options.clips,
            crops=options.crops,
            weights=options.weights,
            device=device,
        )
        frames, fps = temporary.lengths()
        for number, file in enumerate(files):
            if file.key in temporary.rejected:
                videos.append(_rejected(file, temporary.rejected[file.key]))
                continue
            prediction = predictions[file.key]
            video: PredictedVideo = {
                "path": file.text,
                "predictions": most_probable(classes, prediction.fused, options.top),
                "streams": {
                    name: most_probable(classes, each, options.top) for name, each in prediction.streams.items()
                },
                "frames": frames[file.key],
                "seconds": frames[file.key] / fps,
            }
            try:
                if drawn is not None:
                    video["render"] = drawn.draw(number, file, prediction, temporary=temporary)
            except Rejected as rejection:
                videos.append(_rejected(file, rejection))
            else:
                videos.append(video)
    return PredictResult(videos, runs)


@dataclass(frozen=True)
class _Drawn:
    """Where the drawn videos are written, one name per file, and the classes that they show."""

    folder: Storage
    names: Sequence[str]
    classes: Sequence[str]
    top: int

    def draw(self, number: int, file: GivenFile, prediction: Prediction, *, temporary: TemporaryDatasets) -> str:
        """Draw the file of this number and return the path of the drawn video.

        Raises Rejected if it cannot be drawn, also because of an error that nobody foresaw."""
        name, path = self.names[number], Path(file.path)
        try:
            shown = drawn_predictions(self.classes, prediction.fused, prediction.over_time(), top=self.top)
            draw_video(path, self.folder, name, shown=shown, datasets=temporary.datasets, key=file.key)
        except UserError:
            raise
        except Rejected as rejection:
            raise Rejected(rejection.reason, f"it cannot be drawn: {rejection.detail}") from rejection
        except Exception as error:
            reason = rejection_of(error, file.text, path.parent)
            raise Rejected(reason.reason, f"it cannot be drawn: {reason.detail}") from error
        return self.folder.display(name)


def _rejected(file: GivenFile, rejection: Rejected) -> RejectedVideo:
    return {"path": file.text, "rejected": rejection.reason, "detail": rejection.detail}


def most_probable(classes: Sequence[str], probabilities: np.ndarray, top: int) -> list[ClassProbability]:
    """Return the `top` most probable classes, the most probable one first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [{"class": classes[i], "probability": float(probabilities[i])} for i in order]


def video_line(video: PredictedVideo | RejectedVideo) -> str:
    """Return the entry of a file as one line of text."""
    path = "".join(character if character.isprintable() else "?" for character in video["path"])
    if "rejected" in video:
        return f"{path}: rejected: {video['rejected']} ({video['detail']})"
    return f"{path}: " + ", ".join(f"{each['class']} {each['probability']:.1%}" for each in video["predictions"])
