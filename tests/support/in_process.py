"""Tasks without Ray, for tests that need a dataset but not a cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lgd.pipeline.storage.storage import Storage
from lgd.pipeline.tasks import Task
from lgd.preprocessing import job
from lgd.preprocessing.annotations.read import read_manifest
from lgd.preprocessing.job import PreprocessResult
from lgd.preprocessing.settings import PreprocessResources, Settings
from lgd.preprocessing.video.colors import UntaggedMatrix


def preprocess_in_process(
    videos: Path,
    out: Path,
    *,
    short_side: int,
    untagged_matrix: UntaggedMatrix | None = None,
    streams: Sequence[str] = ("rgb", "flow"),
    retry_rejected: bool = False,
    resources: PreprocessResources = PreprocessResources(),
    **annotations: Any,
) -> PreprocessResult:
    """Create a dataset as `lgd preprocess` does, with the same code except that this process runs the tasks of the job,
    one after another. annotations: arguments of `read_manifest`. Returns the result of the command."""

    def run_tasks(name: str, tasks: Sequence[Task], resources: Any, *, workers: int | None, total: Any) -> Any:
        for task in tasks:
            for counters in task.function(**task.arguments):
                total.add(counters)
        return total

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "run_tasks", run_tasks)
        return job.preprocess(
            Storage(videos),
            str(out),
            read_manifest(Storage(videos), **annotations),
            streams=streams,
            settings=Settings(short_side=short_side, untagged_matrix=untagged_matrix),
            retry_rejected=retry_rejected,
            resources=resources,
            start_cluster=lambda: None,
        )
