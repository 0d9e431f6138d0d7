"""Evaluation as a user runs it: cut over workers and batches, killed, continued, refused; and what is in the table."""

import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lgd.clusters.testbed.processes import ProcessTree, kill, run_lgd, run_lgd_until
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import SCHEMA, Index, index_writer
from lgd.pipeline.loading.loader import uniform_loader
from lgd.pipeline.loading.reader import ClipReader
from lgd.pipeline.storage.storage import Storage
from lgd.training import checkpoint
from lgd.training.models.lgd import Network
from lgd.training.models.zoo import build
from lgd.training.recipes import TrainConfig, recipe_named
from lgd.training.run import Run, begin_run, open_run
from lgd.training.scoring.evaluate import count_chunks
from lgd.training.scoring.inference import VideoScores, load_checkpoint, load_network, score_rows
from lgd.training.scoring.protocol import ScoringResources, TestProtocol
from lgd.training.scoring.scores import read_scores, scores_writer, write_scores

CPU = torch.device("cpu")
CONFIG = dataclasses.replace(recipe_named("nano-rgb"), stride=1, test_clips=3)


def random_network(config: TrainConfig, seed: int) -> Network:
    """With random weights, and sure of itself."""
    torch.manual_seed(seed)
    network = build(config.model, 6, 3)
    for head in (network.local_head, network.global_head):
        if head is not None:
            torch.nn.init.normal_(head.weight, std=6.0)
    return network.eval()


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Its best checkpoint is the one after step 1, its last the one after step 2."""
    run = begin_run(str(tmp_path_factory.mktemp("evaluate") / "run"), "nano-rgb", CONFIG, dataset=dataset)
    writer = checkpoint.CheckpointWriter(run)
    for step, best in ((1, 0.5), (2, None)):
        network = random_network(CONFIG, step)
        writer.save(step, network, torch.optim.SGD(network.parameters(), lr=0.1), best_top1=best)
    writer.close()
    return run


def network_of(run: Run, which="last") -> Network:
    return load_network(run, load_checkpoint(run, which)["model"], CPU)


def here(run: Run, dataset: Dataset, split: str, protocol: TestProtocol, **more) -> list[VideoScores]:
    """What this process says, without a cluster."""
    return list(score_rows(network_of(run), run.config, dataset, split=split, protocol=protocol, device=CPU, **more))


@pytest.fixture(scope="module")
def undisturbed(run: Run, dataset: Dataset) -> np.ndarray:
    """Probabilities of the training split's 12 videos."""
    found = np.stack([video.probabilities for video in here(run, dataset, "train", TestProtocol(3))])
    assert np.abs(found - found[0]).max() > 0.05  # a mistake in the order of videos would show
    return found


def command(run: Run, data: object, out: object, *more: object) -> tuple[object, ...]:
    return ("evaluate", run.storage.root, "--data", data, "--out", out, *more)


@pytest.mark.usefixtures("joined")
def test_any_workers_and_batch_give_the_scores_of_one_process(
    run: Run, dataset: Dataset, undisturbed: np.ndarray, tmp_path: Path
):
    for batch in (1, 5):
        found = here(run, dataset, "train", TestProtocol(3), batch=batch)
        np.testing.assert_allclose([video.probabilities for video in found], undisturbed, atol=1e-5)
    out = tmp_path / "new" / "rgb.parquet"
    words = command(run, dataset.storage.root, out, "--split", "train", "--workers", 2, "--batch", 5, "--json")
    done = run_lgd(*words)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["videos"], document["parts_made"], document["parts_there"]) == (12, 12, 0)
    assert 0 <= document["top1"] <= 1
    scores = read_scores(str(out))
    np.testing.assert_allclose(scores.probabilities, undisturbed, atol=1e-5)
    index = Index(dataset, "rgb")
    rows = index.rows("train")
    assert scores.keys == index.keys(rows)
    assert scores.labels.tolist() == index.labels[rows].tolist()
    assert scores.about == {
        "stream": "rgb",
        "model": "lgd3d_nano",
        "recipe": "nano-rgb",
        "run": run.storage.base,
        "step": 2,
        "checkpoint": "checkpoints/step-00000002.pt",
        "protocol": "3 uniform clips of 16 whole frames",
        "clips": 3,
        "crops": 1,
        "frames": 16,
        "precision": "float32",
        "data": dataset.storage.base,
        "data_recipe": dataset.spec("rgb").hash,
        "fingerprint": dataset.fingerprint,
    }
    assert [path.name for path in out.parent.iterdir()] == ["rgb.parquet"]

    before = out.stat()
    again = run_lgd(*command(run, dataset.storage.root, out, "--split", "train", "--batch", 2, "--json"))
    assert again.returncode == 0, again.stderr
    assert "is finished already: 3 uniform clips of 16 whole frames of 12 videos; nothing to do" in again.stderr
    assert (json.loads(again.stdout)["top1"], json.loads(again.stdout)["parts_made"]) == (document["top1"], 0)
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.cluster
def test_killed_in_the_middle_and_continued_only_what_is_missing_is_scored_and_the_table_is_the_same(
    run: Run, dataset: Dataset, undisturbed: np.ndarray, tmp_path: Path
):
    out, parts = tmp_path / "rgb.parquet", tmp_path / "rgb.parquet.parts"
    out.write_text("what was there before")
    words = command(run, dataset.storage.root, out, "--split", "train", "--workers", 1)

    def there() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in parts.glob("[0-9a-f]*.parquet")}

    def wait(ready: Callable[[], object], process: ProcessTree) -> None:
        deadline = time.monotonic() + 300
        while not ready():
            assert process.process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    run_lgd_until(lambda: len(there()) >= 3, *words, "--batch", 1)
    assert out.read_text() == "what was there before"
    kept = there()
    assert 3 <= len(kept) < 12
    (parts / ("0" * 16 + "-000000.parquet")).write_text("of another evaluation")
    (parts / "mine.txt").write_text("somebody's own")

    second = ProcessTree(sys.executable, "-m", "lgd", *words, "--json", log=tmp_path / "log")
    wait(lambda: len(there()) > len(kept) + 1 and second.pids("ray::score_chunk"), second)
    for pid in second.pids("ray::score_chunk"):
        kill(pid)
    then = there()
    assert len(then) < 12
    assert then.items() >= kept.items()  # the same files
    second.process.wait(timeout=300)
    log = (tmp_path / "log").read_text()
    assert second.process.returncode == 0, log
    assert f"{len(kept)} of 12 parts are there already" in log
    assert "1 parts of another evaluation" in log
    assert f'"parts_made": {12 - len(kept)}' in log
    np.testing.assert_allclose(read_scores(str(out)).probabilities, undisturbed, atol=1e-5)
    assert [path.name for path in parts.iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("joined")
def test_three_crops_and_what_is_kept_of_every_view(run: Run, dataset: Dataset, tmp_path: Path):
    out = tmp_path / "rgb.parquet"
    options = ("--clips", 2, "--crops", 3, "--keep", "clips", "features", "--checkpoint", "best", "--batch", 4)
    done = run_lgd(*command(run, dataset.storage.root, out, *options))
    assert done.returncode == 0, done.stderr
    assert "2 uniform clips of 16 frames, 3 square crops each" in done.stdout
    table, scores = pq.read_table(out), read_scores(str(out))
    assert scores.about["step"] == 1
    names = ("clip_probabilities", "local_features", "global_features")
    views = {name: np.array(table.column(name).to_pylist(), np.float32) for name in names}
    np.testing.assert_allclose(views["clip_probabilities"].mean(1), scores.probabilities, atol=1e-6)

    network, index = network_of(run, "best"), Index(dataset, "rgb")
    mean, std = np.array(CONFIG.transform.mean), np.array(CONFIG.transform.std)
    for number, row in enumerate(index.rows("val")[:2]):
        assert (index.heights[row], index.widths[row]) == (64, 80)
        crops = []
        for start in (0, index.lengths[row] - 16):
            jpegs = ClipReader(index).read(row, np.arange(start, start + 16))
            frames = [np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) for jpeg in jpegs]
            video = (np.stack(frames)[..., ::-1] - mean) / std  # T x H x W x C
            crops += [video[:, :, left : left + 64].transpose(3, 0, 1, 2) for left in (0, 8, 16)]
        with torch.inference_mode():
            output = network(torch.tensor(np.stack(crops), dtype=torch.float32))
        assert output.glob is not None
        expected = (network.probabilities(output), output.local.mean((2, 3, 4)), output.glob)
        for name, value in zip(names, expected, strict=True):
            assert views[name].shape == (6, 6, *value.shape[1:])
            # JPEG decoders differ a little; views of other crops or clips by a lot more.
            np.testing.assert_allclose(views[name][number], value, atol=0.03 * float(value.abs().max()), err_msg=name)
            assert np.abs(np.diff(views[name][number], axis=0)).max() > 0.03 * float(value.abs().max())


def test_features_are_those_of_a_direct_forward_and_networks_without_diffusion_have_no_global_ones(dataset: Dataset):
    plain = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, variant="none"))
    for config in (CONFIG, plain):
        network = random_network(config, 0)

        def score(protocol: TestProtocol, network: Network = network) -> list[VideoScores]:
            return list(
                score_rows(
                    network, CONFIG, dataset, split="val", protocol=protocol, device=CPU, batch=3, part=1, parts=3
                )
            )

        videos = score(TestProtocol(2, keep=("clips", "features")))
        loader = uniform_loader(dataset, "rgb", 2, sampling=CONFIG.sampling, max_clips=2, rank=1, workers=3)
        for video, batch in zip(videos, loader, strict=True):
            with torch.inference_mode():
                output = network(batch.video)
            assert video.local_features is not None
            assert video.clip_probabilities is not None
            np.testing.assert_allclose(video.local_features, output.local.mean((2, 3, 4)), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(video.clip_probabilities, network.probabilities(output), atol=1e-5)
            np.testing.assert_allclose(video.probabilities, network.probabilities(output).mean(0), atol=1e-5)
            assert (output.glob is None) == (config is plain)
            assert (video.global_features is None) == (config is plain)
            if output.glob is not None and video.global_features is not None:
                np.testing.assert_allclose(video.global_features, output.glob, rtol=1e-4, atol=1e-5)
    assert {video[2:] for video in score(TestProtocol(1))} == {(None, None, None)}


def test_lgd_2d_is_tested_on_triples(dataset: Dataset):
    recipe = recipe_named("kinetics400-rgb-r50-lgd2d")
    protocol = TestProtocol(recipe.test_clips, keep=("clips",))
    assert protocol.describe(recipe) == "10 uniform triples of whole frames"
    network, index = random_network(recipe, 0), Index(dataset, "rgb")
    (video,) = score_rows(network, recipe, dataset, split="val", protocol=protocol, device=CPU, part=1, parts=6)
    assert video.row == index.rows("val")[1]
    assert video.clip_probabilities is not None
    assert video.clip_probabilities.shape == (10, 6)
    length = int(index.lengths[video.row])
    numbers = [int((segment + (7 + 0.5) / 10) * length / 3) for segment in range(3)]
    jpegs = ClipReader(index).read(video.row, np.array(numbers))
    frames = np.stack([np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) for jpeg in jpegs])[..., ::-1]
    clip = ((frames - np.array(recipe.transform.mean)) / np.array(recipe.transform.std)).transpose(3, 0, 1, 2)
    with torch.inference_mode():
        expected = network.probabilities(network(torch.tensor(clip[None], dtype=torch.float32)))[0]
    np.testing.assert_allclose(video.clip_probabilities[7], expected, atol=0.05)


def test_protocols_in_words():
    paper, long = recipe_named("kinetics400-flow-r50"), recipe_named("kinetics400-rgb-r50-long")
    assert TestProtocol(15).describe(paper) == "15 uniform clips of 16 whole frames"
    assert TestProtocol().describe(paper) == "15 uniform clips of 16 whole frames"
    assert TestProtocol(10, 3).describe(paper) == "10 uniform clips of 16 frames, 3 square crops each"
    assert TestProtocol(15).describe(long) == "15 uniform clips of 128 whole frames"
    assert TestProtocol(1, 3).describe(recipe_named("nano-rgb")) == (
        "1 uniform clips of 16 frames 2 apart, 3 square crops each"
    )


def without_labels(dataset: Dataset, folder: Path) -> Path:
    shutil.copytree(dataset.storage.root, folder)
    with pa.ipc.open_file(folder / "rgb" / "index.arrow") as file:
        table = file.read_all()
    table = table.set_column(SCHEMA.get_field_index("label"), "label", pa.array([-1] * len(table), pa.int32()))
    with index_writer(Storage(folder), dataset.spec("rgb")) as write:
        write(table)
    return folder


@pytest.mark.cluster
def test_an_unlabelled_split_is_scored_into_a_store_without_metrics(
    run: Run, dataset: Dataset, tmp_path: Path, s3: str
):
    data, out = without_labels(dataset, tmp_path / "data"), f"{s3}/new/rgb.parquet"
    Storage(f"{s3}/new/rgb.parquet.parts").write("0" * 16 + "-000000.parquet", b"of another evaluation")
    done = run_lgd(*command(run, data, out, "--clips", 1, "--json"))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["videos"] == 6
    assert "top1" not in document
    assert set(read_scores(out).labels.tolist()) == {-1}
    assert Storage(s3).list_all() == ["new/rgb.parquet"]
    again = run_lgd(*command(run, data, out, "--clips", 1))
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr
    assert "6 of 6 videos have no label: no accuracy is given" in again.stdout


@pytest.mark.usefixtures("joined")
def test_a_damaged_frame_is_named(run: Run, dataset: Dataset, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(dataset.storage.root, data)
    index = Index(dataset, "rgb")
    row = int(index.rows("val")[0])
    shard, first = data / index.shard(row), int(index.frames(row, np.array([0])).start[0])
    content = bytearray(shard.read_bytes())
    content[first + 500] ^= 1
    shard.write_bytes(content)
    done = run_lgd(*command(run, data, tmp_path / "x.parquet", "--clips", 2, "--workers", 1))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lgd: ")]
    assert f"frame 0 of {index.key(row)} is damaged ({shard}, from byte {first})" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--crops", 2), 2, "--crops is 1 (whole frames) or 3 (squares along the longer side), not 2"),
        (("--keep", "frames"), 2, "invalid choice 'frames'"),
        (("--split", "test"), 1, "has no split 'test': it has train, val"),
    ],
)
def test_a_mistake_is_one_line(
    run: Run, dataset: Dataset, tmp_path: Path, options: tuple[object, ...], code: int, message: str
):
    done = run_lgd(*command(run, dataset.storage.root, tmp_path / "x.parquet", *options))
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TestProtocol(0), "--clips must be 1 or more, not 0"),
        (lambda: ScoringResources(workers=0), "--workers must be 1 or more, not 0"),
        (lambda: ScoringResources(cpus_per_task=0), "--cpus-per-task must be more than 0, not 0"),
        (lambda: ScoringResources(batch=0), "--batch must be 1 or more, not 0"),
    ],
)
def test_numbers_that_are_too_small_are_refused(make: Callable[[], object], message: str):
    with pytest.raises(UsageError, match=message):
        make()


def test_an_output_that_is_a_folder_is_refused_before_anything_is_scored(run: Run, dataset: Dataset, tmp_path: Path):
    (tmp_path / "x.parquet").mkdir()
    done = run_lgd(*command(run, dataset.storage.root, tmp_path / "x.parquet"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is a folder" in done.stderr


def test_checkpoints_that_are_missing_foreign_or_damaged_are_said_by_name(
    run: Run, dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    copy = tmp_path / "run"
    shutil.copytree(run.storage.root, copy)
    opened = open_run(str(copy))
    best, last = (copy / checkpoint.checkpoint_name(step) for step in (1, 2))
    assert load_checkpoint(opened, "best")["step"] == 1
    assert load_checkpoint(opened)["step"] == 2
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    assert load_checkpoint(opened)["step"] == 1
    assert f"{last} is damaged" in capfd.readouterr().err
    best.write_bytes(b"no checkpoint")
    for which in ("best", "last"):
        with pytest.raises(UserError, match=str(best) if which == "best" else "no sound checkpoint yet"):
            load_checkpoint(opened, which)
    best.unlink()
    with pytest.raises(UserError, match=f"{best}, the best checkpoint, is gone: use --checkpoint last"):
        load_checkpoint(opened, "best")
    (copy / "best.json").write_text("{")
    with pytest.raises(UserError, match=r"best\.json does not name a checkpoint"):
        load_checkpoint(opened, "best")
    (copy / "best.json").unlink()
    with pytest.raises(UserError, match="has no best checkpoint, since nothing was validated: use --checkpoint last"):
        load_checkpoint(opened, "best")
    with pytest.raises(UserError, match="x does not fit the network that"):
        load_network(run, {"stem": torch.zeros(1)}, CPU, shown="x")
    with pytest.raises(UsageError, match="--checkpoint is last or best"):
        load_checkpoint(opened, "first")  # type: ignore[arg-type]


def test_the_split_alone_decides_the_parts():
    assert [count_chunks(videos) for videos in (1, 6, 16, 500, 1024, 1025, 19_800, 60_000)] == [
        1,
        6,
        16,
        16,
        16,
        17,
        310,
        938,
    ]


def test_scores_are_read_without_their_views(tmp_path: Path):
    path = str(tmp_path / "s.parquet")
    table = pa.table({"key": ["a"], "label": pa.array([0], pa.int32())})
    probabilities = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0], pa.float32()), 2)
    with scores_writer(path, ("x", "y"), "val", about={"stream": "rgb"}) as write:
        write(table.append_column("probabilities", probabilities).append_column("other", pa.array(["anything"])))
    scores = read_scores(path)
    assert scores.probabilities.tolist() == [[1.0, 0.0]]
    write_scores(path, scores)
    assert pq.read_table(path).column_names == ["key", "label", "probabilities"]
