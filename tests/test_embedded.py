"""Which cluster a command works on."""

from pathlib import Path

import pytest

from tests.processes import free_port, run_lgd


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:{port}", "cannot join the cluster at 127.0.0.1:{port} ([Errno 111] Connection refused)"),
        ("nonsense", "cannot join the cluster at nonsense (Invalid address format: nonsense)"),
        ("ray://127.0.0.1:{port}", "run the command on a node of the cluster"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_line(videos: Path, tmp_path: Path, address: str, message: str):
    port = free_port()
    words = ("--out", tmp_path / "data", "--short-side", 32, "--address", address.format(port=port))
    done = run_lgd("preprocess", videos, *words, timeout_s=60)
    assert done.returncode == 1
    assert message.format(port=port) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cpus-per-task", 4, "--workers", 1), None),
        (("--cpus-per-task", 0), "--cpus-per-task must be more than 0"),
        (("--workers", 0), "--workers must be 1 or more"),
        (("--gpus-per-task", 0.5), "--gpus-per-task goes with --backend torch --device cuda"),
        (
            ("--backend", "torch", "--device", "cuda", "--gpus-per-task", 1.5),
            "must be a fraction of 1 or a whole number",
        ),
        (("--device", "cuda"), "--device cuda goes with --backend torch"),
    ],
)
def test_what_a_task_takes_is_checked(videos: Path, tmp_path: Path, options: tuple[object, ...], message: str | None):
    """A worker may take more CPUs than the machine has: the embedded cluster then offers as many."""
    done = run_lgd("preprocess", videos, "--out", tmp_path / "data", "--streams", "rgb", "--short-side", 32, *options)
    assert done.returncode == (2 if message else 0), done.stderr
    assert message is None or message in done.stderr
