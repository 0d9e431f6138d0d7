"""`lgd inspect`: the numbers of a dataset, and on request its verification, pictures and index files for DALI."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import Dataset, Setting, describe_classes, describe_splits, open_dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.inspection.dali_index import write_dali_indexes
from lgd.pipeline.inspection.options import InspectOptions
from lgd.pipeline.inspection.pictures import VIDEOS, DrawnVideo, draw_videos
from lgd.pipeline.inspection.rebuild import rebuild_indexes
from lgd.pipeline.inspection.verify import verify as verify_dataset

MAX_SHOWN = 20  # problems that are printed


@dataclass(frozen=True)
class StreamDescription:
    """One complete stream of a dataset."""

    videos: int
    """Number of videos."""
    frames: int
    """Number of frames of all videos."""
    bytes: int
    """Bytes of all frames."""
    hash: str
    """Hash of the stream spec: streams with the same hash were created with the same settings."""
    spec: Mapping[str, Setting]
    """Everything that decides the stream's bytes, by name."""
    saturated: float | None = None
    """Mean fraction of the flow vectors of a video that exceed the bound; only for flow."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ("saturated",)


@dataclass(frozen=True)
class DatasetDescription(CommandResult):
    """The contents of a dataset. Fields that were not requested are absent from the JSON document."""

    dataset: str
    """Folder of the dataset."""
    classes: list[str]
    """Class names, in the order of their labels."""
    videos: int
    """Number of videos."""
    splits: Mapping[str, int]
    """Number of videos by split: those of the shards, then those of splits.parquet."""
    unlabelled: Mapping[str, int]
    """Number of videos without a label by split; only splits that have such videos."""
    rejected: Mapping[str, int]
    """Number of rejected videos by reason."""
    streams: Mapping[str, StreamDescription]
    """The complete streams, by name."""
    rebuilt: list[str] | None = None
    """With --rebuild-index: the streams whose index was written again."""
    problems: list[str] | None = None
    """With --verify: one line per problem; empty if the dataset is valid."""
    pictures: list[DrawnVideo] | None = None
    """With --pictures: the drawn videos."""
    dali_indexes: list[str] | None = None
    """With --dali-index: the files in that folder, one per shard."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ("rebuilt", "problems", "pictures", "dali_indexes")

    def document(self) -> dict[str, Any]:
        """Return the fields, without optional ones that are None; also in the streams."""
        document: dict[str, Any] = super().document()
        return {**document, "streams": {name: _without_none(stream) for name, stream in document["streams"].items()}}

    def lines(self) -> list[Line]:
        """Return the summary of the dataset, and the results that were requested."""
        splits = describe_splits(self.splits, self.unlabelled)
        rejected = ", ".join(f"{reason} {count}" for reason, count in self.rejected.items()) or "none"
        lines: list[Line] = [
            f"{self.dataset}: {self.videos} videos in {describe_classes(self.classes)}; videos by split: {splits}",
            f"rejected videos: {rejected}",
            self._stream_table(),
        ]
        flow = self.streams.get("flow")
        if flow and flow.saturated is not None:
            lines.append(f"flow vectors that exceed the bound: {flow.saturated:.3%}")
        if self.rebuilt is not None:
            lines.append(f"index rebuilt from the shards: {', '.join(self.rebuilt)}")
        if self.problems == []:
            lines.append("verified: all frames exist and match their checksums")
        if self.pictures is not None:
            first = f", the first in {self.pictures[0]['file']}" if self.pictures else ""
            lines.append(f"pictures of {len(self.pictures)} videos{first}")
        if self.dali_indexes is not None:
            lines.append(f"{len(self.dali_indexes)} index files for DALI's webdataset reader")
        return lines

    def _stream_table(self) -> Table:
        table = Table("stream", "videos", "frames", "MB", "spec")
        for name, stream in self.streams.items():
            spec = ", ".join(f"{key} {value}" for key, value in stream.spec.items())
            table.add_row(name, f"{stream.videos:,}", f"{stream.frames:,}", f"{stream.bytes / 1e6:.1f}", spec)
        return table

    @property
    def failed(self) -> str:
        if not self.problems:
            return ""
        count = f"{len(self.problems)} {'problem' if len(self.problems) == 1 else 'problems'}"
        if len(self.problems) > MAX_SHOWN:
            count += f" (the first {MAX_SHOWN} are shown)"
        return f"{self.dataset} has {count}: delete the damaged shards and rerun `lgd preprocess` to recreate them"


def inspect_dataset(root: str, options: InspectOptions = InspectOptions()) -> DatasetDescription:
    """Describe the dataset in a folder, and do what the options request.

    If --verify finds problems, the first ones are printed on stderr and pictures and index files are skipped.
    Raises UsageError if `videos` is less than 1 or given without `pictures`, and UserError if there is no dataset, none
    of its streams is complete, or a file is damaged."""
    videos, pictures = options.videos, options.pictures
    if videos is not None and pictures is None:
        raise UsageError("--videos is the number of videos that --pictures draws: give --pictures DIR as well")
    if videos is not None and videos < 1:
        raise UsageError(f"--videos must be 1 or more, not {videos}")
    dataset, rebuilt = open_dataset(root), None
    if options.rebuild_index:
        rebuilt = rebuild_indexes(dataset)
        dataset = open_dataset(root)
    result = replace(describe(dataset), rebuilt=rebuilt)
    if options.verify:
        result = replace(result, problems=verify_dataset(dataset, dataset.streams))
        for problem in (result.problems or [])[:MAX_SHOWN]:
            say(problem)
        if result.problems:
            return result
    if pictures is not None:
        result = replace(result, pictures=draw_videos(dataset, pictures, VIDEOS if videos is None else videos))
    if options.dali_index is not None:
        result = replace(result, dali_indexes=write_dali_indexes(dataset, options.dali_index))
    return result


def describe(dataset: Dataset) -> DatasetDescription:
    """Return classes, number of videos by split, rejected videos by reason, and each complete stream.

    Raises UserError if no stream is complete."""
    dataset.check_has_stream()
    videos, rejected = dataset.videos(), dataset.rejected()
    streams = {}
    for name in dataset.streams:
        index = Index(dataset, name)
        streams[name] = StreamDescription(
            videos=len(index),
            frames=int(index.lengths.sum(dtype="int64")),
            bytes=pc.sum(videos.column(f"{name}_bytes")).as_py() or 0,
            hash=index.spec.hash,
            spec=dict(index.spec.settings),
            saturated=pc.mean(videos.column("flow_saturated")).as_py() if name == "flow" else None,
        )
    unlabelled = videos.column("split").filter(videos.column("label").is_null())
    table = dataset.table_splits
    return DatasetDescription(
        dataset=dataset.storage.display(),
        classes=list(dataset.classes),
        videos=videos.num_rows,
        splits={**_count(videos.column("split")), **{name: each.videos for name, each in table.items()}},
        unlabelled={
            **_count(unlabelled),
            **{name: each.unlabelled for name, each in table.items() if each.unlabelled},
        },
        rejected=_count(rejected.column("reason")),
        streams=streams,
    )


def _count(texts: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each text occurs, in the order of first occurrence."""
    return {row["values"]: row["counts"] for row in pc.value_counts(texts).to_pylist()}


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
