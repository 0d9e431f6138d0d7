"""Commands as jobs of a running cluster: a head with a dashboard and one CPU, started as a user would start it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from lgd.clusters.submit import copy_code
from lgd.clusters.testbed.processes import free_port, run_lgd
from lgd.clusters.testbed.ray_nodes import Head
from tests.support.user_folder import write_modules


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file in which modules of the home folder and of an installed `lgd` leave a trace when they are executed."""
    return tmp_path_factory.mktemp("trace") / "trace"


@pytest.fixture(scope="module")
def head(trace: Path) -> Iterator[Head]:
    """A head whose home folder contains modules with the names of our dependencies, and which has an `lgd` installed:
    jobs must use none of them."""
    # Not pytest's temporary folder: the paths of Ray's sockets in it may be longer than the system allows.
    with tempfile.TemporaryDirectory(prefix="h", ignore_cleanup_errors=True) as folder:
        write_modules(Path(folder), trace)
        write_modules(Path(folder) / "installed", trace, names={"lgd"})
        head = Head(Path(folder), {"PYTHONPATH": f"{folder}/installed"})
        try:
            yield head
        finally:
            head.stop()


@pytest.fixture
def outsider(tmp_path: Path) -> dict[str, str]:
    """The environment of a process without the cluster's token."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}


def submit(head: Head, *words: object) -> subprocess.CompletedProcess[str]:
    return run_lgd("submit", "--address", head.dashboard, *words, env=head.env, timeout_s=120)


def test_a_command_has_the_output_that_it_has_here(head: Head, dataset_folder: Path):
    done = submit(head, "--", "inspect", dataset_folder, "--json")
    assert done.returncode == 0, done.stderr
    here = run_lgd("inspect", dataset_folder, "--json")
    assert json.loads(done.stdout) == json.loads(here.stdout)


def test_a_job_uses_the_shipped_package_and_no_module_of_the_home_folder(
    head: Head, videos: Path, trace: Path, tmp_path: Path
):
    """The command, its tasks on the workers, and the process that starts it."""
    done = submit(head, "--", "preprocess", videos, "--out", tmp_path / "data", "--short-side", 32, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["videos"] == 18
    assert not trace.exists(), trace.read_text()
    modules = {"PYTHONPATH": f"{head.env['HOME']}/installed"}
    subprocess.run([sys.executable, "-P", "-c", "import lgd"], env=head.env | modules, capture_output=True, check=False)
    assert trace.read_text().startswith("lgd: ")  # it would have left a trace
    trace.unlink()


def test_the_command_gets_its_words_unchanged_and_its_exit_code_is_returned(head: Head, tmp_path: Path):
    """A shell interprets the job's command line."""
    folder, proof = "/it's; not > there", tmp_path / "proof"
    done = submit(head, "--", "inspect", f"{folder} $(touch {proof})")
    assert done.returncode == 1
    assert f"lgd: dataset {folder} $(touch {proof}) does not exist" in done.stderr
    assert done.stdout == ""
    assert not proof.exists()


def test_an_interrupted_terminal_leaves_the_job_running(head: Head, videos: Path, tmp_path: Path):
    words = ["--", "preprocess", videos, "--out", tmp_path / "data", "--short-side", 64]
    command = [sys.executable, "-m", "lgd", "submit", "--address", head.dashboard, *map(str, words)]
    terminal = subprocess.Popen(command, env=head.env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert terminal.stderr
    first = terminal.stderr.readline()
    while "joining the Ray cluster" not in (line := terminal.stderr.readline()):
        assert line, "the log ended before the command started"
    terminal.send_signal(signal.SIGINT)
    _, last = terminal.communicate(timeout=30)
    assert terminal.returncode == 130
    job = first.split()[0]
    assert f"lgd: {job} keeps running; `lgd submit --address {head.dashboard} --follow {job}` shows its log" in last
    assert "Traceback" not in last
    assert head.job_info(job)["status"] == "RUNNING"

    ended = submit(head, "--stop", job, "--json")
    assert json.loads(ended.stdout) == {"job": job, "status": "STOPPED"}
    again = submit(head, "--follow", job)
    assert "joining the Ray cluster" in again.stderr
    assert again.returncode == 1
    assert f"lgd: {job}: stopped" in again.stderr


def test_only_named_variables_are_shipped(head: Head):
    env = {**head.env, "NAMED": "shipped", "OTHER": "secret"}
    words = ("submit", "--address", head.dashboard, "--env", "NAMED", "--", "fuse", "none.parquet", "nothing.parquet")
    done = run_lgd(*words, env=env, timeout_s=120)
    assert done.returncode == 1
    job = done.stderr.split()[0]
    assert head.job_info(job)["runtime_env"]["env_vars"] == {"NAMED": "shipped"}
    missing = run_lgd("submit", "--address", head.dashboard, "--env", "NOT_SET", "--", "models", env=env)
    assert missing.returncode == 2
    assert "lgd: --env NOT_SET: not set in this environment" in missing.stderr


def test_only_our_code_is_shipped(tmp_path: Path):
    copy_code(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert {path.parts[0] for path in files} == {"lgd"}
    assert {path.parts[1] for path in files} == {
        "__init__.py", "__main__.py", "cli.py", "commands",
        "pipeline", "preprocessing", "training", "prediction", "clusters", "benchmarks",
    }  # fmt: skip
    assert {path.suffix for path in files} == {".py", ".html", ".css", ".js"}
    assert {path.parent for path in files if path.suffix != ".py"} == {Path("lgd/training/report")}
    assert Path("lgd/training/models/zoo.py") in files


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("--address", "{dashboard}"),
            2,
            "give --address URL and exactly one of: -- COMMAND ..., --follow ID, --stop ID",
        ),
        (("--", "models"), 2, "give --address URL and exactly one of"),
        (("--address", "{dashboard}", "--", "model"), 2, "unknown command model: choose from"),
        (("--address", "{dashboard}", "--", "submit"), 2, "unknown command submit: choose from"),
        (("--address", "{dashboard}", "--", "models", "--clases", "3"), 2, "--clases"),
        (("--address", "{dashboard}", "--follow", "nobody"), 1, "there is no such job at http://127.0.0.1:"),
        (("--address", "127.0.0.1:8265", "--", "models"), 2, "--address must be the URL of the cluster's dashboard"),
        (("--address", "http://127.0.0.1:{free}", "--", "models"), 1, "no job server responds at http://127.0.0.1:"),
    ],
)
def test_a_mistake_is_a_one_line_error(head: Head, words: tuple[str, ...], code: int, message: str):
    free = free_port()
    done = run_lgd("submit", *(word.format(dashboard=head.dashboard, free=free) for word in words), env=head.env)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_token_nothing_is_submitted(head: Head, outsider: dict[str, str], token: str | None):
    env = outsider | ({"RAY_AUTH_TOKEN": token} if token else {})
    done = run_lgd("submit", "--address", head.dashboard, "--", "models", env=env)
    assert done.returncode == 1
    assert done.stderr.startswith(f"lgd: the token of the cluster at {head.dashboard} is missing or wrong: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("token", [None, "wrong"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/jobs/"),
        ("POST", "/api/jobs/"),
        ("GET", "/api/v0/tasks"),
        ("GET", "/nodes?view=summary"),
        ("GET", "/api/v0/logs?node_ip=127.0.0.1"),
        ("PUT", "/api/packages/gcs/_ray_pkg_0.zip"),
    ],
)
def test_the_dashboard_refuses_requests_without_the_token(head: Head, method: str, path: str, token: str | None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {"entrypoint": "true"} if method == "POST" else None
    response = requests.request(method, head.dashboard + path, headers=headers, json=body, timeout=10)
    assert response.status_code in (401, 403)


@pytest.mark.parametrize("mode", ["disabled", "token"])
@pytest.mark.parametrize("token", [None, "wrong"])
def test_processes_without_the_token_cannot_join(head: Head, outsider: dict[str, str], mode: str, token: str | None):
    """As a driver, which would also read the head's key-value store."""
    program = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('joined', ray.nodes())"
    env = outsider | {"RAY_AUTH_MODE": mode, "RAY_NUM_REDIS_GET_RETRIES": "1", **head.loopback}
    env |= {"RAY_AUTH_TOKEN": token} if token else {}
    done = subprocess.run(
        [sys.executable, "-c", program, head.address], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "joined" not in done.stdout
    assert "uthenticat" in done.stderr or "token" in done.stderr
