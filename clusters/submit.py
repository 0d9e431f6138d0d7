"""Submit a command as a job to a running cluster through Ray's job API: ship this package, print the job's log, and
return the exit code of the command.

The command's stdout goes to our stdout and its stderr to our stderr, as if it ran here. Ray keeps only one log per job,
so `clusters/job.py` marks the lines of stdout."""

import asyncio
import contextlib
import functools
import json
import logging
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import lgd
from lgd.clusters.job import STDOUT_MARK
from lgd.clusters.options import SubmitOptions
from lgd.pipeline.console import signals
from lgd.pipeline.console.command_line import Command, CommandResult, Commands, Defaults, Line, dispatch
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import say

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SHIPPED_SUFFIXES = (".py", ".html", ".css", ".js")  # Python, and the template of the report
VERBOSE_LOGGERS = (  # they log what they pack and upload
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
CONNECT_S, END_S = 10.0, 30.0


@dataclass(frozen=True)
class StoppedJob(CommandResult):
    """Result of `lgd submit --stop`."""

    job: str
    """ID of the job."""
    status: str
    """State of the job in Ray's words: STOPPED, or how the job had ended before."""

    def lines(self) -> list[Line]:
        return [f"{self.job}: {self.status.lower()}"]


@dataclass(frozen=True)
class FinishedJob(CommandResult):
    """The result of a job that was followed to its end. output: the JSON document that the command printed, which is
    also the document of this result; None without --json, where its lines have been printed already."""

    output: Any
    exit_code: int

    def lines(self) -> list[Line]:
        return []

    def document(self) -> Any:
        return self.output

    @property
    def failed(self) -> str:
        return _failure(self.exit_code) if self.exit_code else ""


def _failure(exit_code: int) -> str:
    return f"the job failed with exit code {exit_code}; see its log above"


def submit_or_follow(
    words: Sequence[str],
    options: SubmitOptions,
    *,
    as_json: bool,
    commands: Commands,
    defaults: Defaults,
) -> StoppedJob | FinishedJob:
    """Submit `lgd WORDS`, or follow or stop a job: the command `lgd submit`.

    as_json: the result's document is the JSON document of the job's command.
    Raises UsageError for wrong options, and UserError with the job's exit code if the job failed without output."""
    address, follow, stop = options.address, options.follow, options.stop
    if not address or [bool(words), follow is not None, stop is not None].count(True) != 1:
        raise UsageError("give --address URL and exactly one of: -- COMMAND ..., --follow ID, --stop ID")
    if stop is not None:
        return StoppedJob(stop, stop_job(address, stop))
    as_json = as_json or "--json" in words
    output: list[str] = []
    keep = output.append if as_json else sys.stdout.write
    if follow is not None:
        code = follow_job(address, follow, keep)
    else:
        check_words([*words], commands, defaults)
        if as_json and "--json" not in words:
            words = (*words, "--json")
        code = run_job(address, words, options.env, keep=keep)
    if code and not output:
        error = UserError(_failure(code))
        error.exit_code = code
        raise error
    return FinishedJob(json.loads("".join(output)) if output else None, code)


def check_words(words: Sequence[str], commands: Commands, defaults: Defaults) -> None:
    """Parse the command line of a job without running it. Raises UsageError if it is wrong."""

    def without_effect(command: Command) -> Command:
        @functools.wraps(command)
        def call(*values: Any, **named: Any) -> CommandResult:
            return FinishedJob(None, 0)

        return call

    checked: Commands = {
        name: (
            {inner: without_effect(each) for inner, each in command.items()}
            if isinstance(command, Mapping)
            else without_effect(command)
        )
        for name, command in commands.items()
        if name != "submit"
    }
    dispatch([*words], checked, defaults)


def run_job(address: str, words: Sequence[str], variables: Sequence[str], *, keep: Callable[[str], object]) -> int:
    """Submit `lgd WORDS` to the cluster whose dashboard is at `address`, follow it, and return its exit code.

    variables: names of local environment variables passed to the job; no others are sent.
    keep: called with every line that the command writes to stdout.
    Raises UsageError if a variable is not set, and UserError if the cluster refuses the job or is unreachable."""
    if missing := [name for name in variables if name not in os.environ]:
        raise UsageError(f"--env {' '.join(missing)}: not set in this environment")
    client = connect(address)
    job = f"lgd-{words[0]}-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="lgd-submit-") as folder, _dashboard_errors(address):
        signals.remove_if_killed(folder)
        copy_code(Path(folder))
        with _keeps_running(address, job), signals.deferred():  # a signal must not hide that the job was submitted
            client.submit_job(
                # Ray passes this to a shell.
                entrypoint=f"python -m lgd.clusters.job {shlex.join(words)}",
                submission_id=job,
                runtime_env={"working_dir": folder, "env_vars": {name: os.environ[name] for name in variables}},
            )
    with _keeps_running(address, job):
        say(f"{job} runs on {address}, even if this terminal closes; {how_to_follow(address, job)}")
    return _follow(client, address, job, keep=keep)


def follow_job(address: str, job: str, keep: Callable[[str], object]) -> int:
    """Print the log of a job from its beginning to its end; return the exit code of its command."""
    return _follow(connect(address), address, job, keep=keep)


def stop_job(address: str, job: str) -> str:
    """Stop a job unless it has ended; return its status in Ray's words."""
    client = connect(address)
    with _dashboard_errors(address):
        client.stop_job(job)
        return str(_wait_for_end(client, job).status)


def how_to_follow(address: str, job: str) -> str:
    """Return the commands that follow and stop the job, for messages."""
    command = f"lgd submit --address {shlex.quote(address)}"
    return f"`{command} --follow {job}` shows its log, `{command} --stop {job}` stops it"


def connect(address: str) -> "JobSubmissionClient":
    """Return a client of the dashboard at `address`, an http:// or https:// URL.

    Raises UsageError for a different URL, and UserError if no dashboard responds or it refuses the token."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(
            f"--address must be the URL of the cluster's dashboard, such as http://127.0.0.1:8265, not {address}"
        )
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Ray prefers RAY_ADDRESS to the given address, and this variable to both.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    if url.scheme == "http" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        say(f"the token and the log are sent to {url.hostname} unencrypted; use an SSH tunnel or https to protect them")
    with _dashboard_errors(address):
        socket.create_connection((url.hostname, url.port or 80), CONNECT_S).close()  # Ray would wait forever
        from ray.job_submission import JobSubmissionClient

        for name in VERBOSE_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        return JobSubmissionClient(address)


def copy_code(folder: Path) -> None:
    """Copy the files of the package `lgd` that jobs need, and nothing else, to `folder`/lgd."""
    package = Path(lgd.__file__).parent
    for path, _, files in os.walk(package, followlinks=True):
        for file in (Path(path) / name for name in files if name.endswith(SHIPPED_SUFFIXES)):
            copy = folder / "lgd" / file.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _follow(client: "JobSubmissionClient", address: str, job: str, *, keep: Callable[[str], object]) -> int:
    with _keeps_running(address, job), _dashboard_errors(address):
        client.get_job_info(job)  # the only call that reports an unknown job
        asyncio.run(_print_log(client, job, keep))
        ended = _wait_for_end(client, job)
    if ended.driver_exit_code is None:  # it did not start, or it was stopped
        raise UserError(f"{job}: {ended.status.lower()}: {' '.join((ended.message or '').split())}")
    return int(ended.driver_exit_code)


async def _print_log(client: "JobSubmissionClient", job: str, keep: Callable[[str], object]) -> None:
    """Pass the log on until its end: marked lines to `keep`, the others to stderr."""
    rest = ""
    async for text in client.tail_job_logs(job):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            _pass_on(line + "\n", keep)
    if rest:
        _pass_on(rest, keep)


def _pass_on(line: str, keep: Callable[[str], object]) -> None:
    stderr, mark, stdout = line.partition(STDOUT_MARK)
    sys.stderr.write(stderr)
    sys.stderr.flush()
    if mark:
        keep(stdout)


def _wait_for_end(client: "JobSubmissionClient", job: str) -> Any:
    """Return Ray's information about a job that has ended. Ray may report the end a moment after the log ends.

    Raises UserError if Ray does not report the end within END_S seconds."""
    deadline = time.monotonic() + END_S
    while not (info := client.get_job_info(job)).status.is_terminal():
        if time.monotonic() > deadline:
            raise UserError(f"the log of {job} has ended, but its status is still {info.status}: follow it again")
        time.sleep(0.2)
    return info


@contextlib.contextmanager
def _keeps_running(address: str, job: str) -> Iterator[None]:
    """Turn a signal into a UserError that says how the job, which keeps running, is followed and stopped."""
    try:
        yield
    except KeyboardInterrupt:
        interrupted = UserError(f"{job} keeps running; {how_to_follow(address, job)}")
        interrupted.exit_code = signals.exit_code()
        raise interrupted from None


@contextlib.contextmanager
def _dashboard_errors(address: str) -> Iterator[None]:
    """Turn errors of the dashboard into a UserError with one line."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except UserError:
        raise
    except AuthenticationError as error:
        raise UserError(
            f"the token of the cluster at {address} is missing or wrong: set RAY_AUTH_TOKEN, set RAY_AUTH_TOKEN_PATH "
            "to a file that contains it, or write it to ~/.ray/auth_token"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:  # base classes of Ray's other errors and those of requests
        text = " ".join(str(error).split())
        if "status code 404" in text:
            raise UserError(f"there is no such job at {address} (`ray job list` lists them)") from error
        raise UserError(
            f"no job server responds at {address} ({text[:300]}): check that the cluster is running"
        ) from error
