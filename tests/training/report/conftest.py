"""Runs and score files for the tests of the report, written by the project's own functions."""

import dataclasses
import json

import numpy as np
import pytest

from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.training.fusion.fuse import fuse, make_rule
from lgd.training.fusion.join import join
from lgd.training.metrics_log import MetricsLog
from lgd.training.recipes import recipe_named
from lgd.training.run import begin_run
from lgd.training.scoring.scores import read_scores, write_scores
from tests.training.report.samples import random_scores


@pytest.fixture(scope="module")
def report_inputs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths of a finished run on rgb, an unfinished run on flow, the scores of both, and the fused scores."""
    folder = tmp_path_factory.mktemp("report")
    index = Index(dataset, "rgb")
    rows = index.rows("val")
    keys, labels = index.keys(rows), index.labels[rows].astype(np.int64)
    runs, scores = [], []
    for seed, (stream, skill) in enumerate((("rgb", 1.2), ("flow", 0.8))):
        config = recipe_named(f"nano-{stream}")
        address = str(folder / f"nano-{stream}")
        run = begin_run(address, f"nano-{stream}", config, dataset=dataset)
        for first, last in ((0, 20), (10, 30)):  # it resumed from the checkpoint after step 10
            log = MetricsLog(run, first)
            if not first:
                log.say("weights from nowhere")
            for step in range(first + 2, last + 1, 2):
                loss = {"loss_local": 3 / step, "loss_global": 2 / step, "loss": 5 / step}
                speed = {"step_s": 0.5, "top1": step / 30, "data_wait": 0.01, "clips_per_s": 32.0, "rate": 0.02 / step}
                log.write({"step": step, "epoch": step * 16 / 12, **loss, **speed, "workers": 1 + (step > 12)})
            log.write({"step": last, "val_top1": last / 40, "val_top5": 1.0, "val_videos": len(keys)})
            log.close()
        if stream == "rgb":
            run.storage.write("result.json", json.dumps({"steps": 30, "val_top1": 0.75}).encode())
        runs.append(address)
        predictions = random_scores(str(folder / f"{stream}-val.parquet"), keys, labels, dataset.classes, skill, seed)
        metadata = {"stream": stream, "run": address, "fingerprint": dataset.fingerprint}
        scores.append(dataclasses.replace(predictions, metadata={**metadata, "data": dataset.storage.address}))
        write_scores(predictions.name, scores[-1])
    fused = str(folder / "fused-val.parquet")
    write_scores(fused, fuse(join([read_scores(each.name) for each in scores]), make_rule(2)))
    return [*runs, *(each.name for each in scores), fused]
