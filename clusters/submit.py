"""A verb as a job of a running cluster, through Ray's job API: ships our code, shows the log, ends as the verb ends.

What the verb writes to its stdout comes out of ours and its progress out of our stderr, as if it ran here, although the
log that Ray keeps of a job is one: `clusters/job.py` marks the lines of the former."""

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
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import lgd
from lgd.clusters.job import ANSWER
from lgd.pipeline.console.command_line import Answer, Command, Commands, Defaults, dispatch
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import say

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CODE = (".py", ".html", ".css", ".js")  # besides Python, what the report's page is made of
CHATTY = (  # about what they pack and upload
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
CONNECT_S, END_S = 10.0, 30.0
INTERRUPTED = 130


def submitted(
    words: Sequence[str],
    address: str,
    variables: Sequence[str],
    *,
    follow: str | None,
    stop: str | None,
    as_json: bool,
    commands: Commands,
    defaults: Defaults,
) -> Answer:
    """What `lgd submit` does: submits `lgd WORDS`, or follows or stops a job; the job's exit code becomes ours.

    as_json: the answer is the verb's JSON document. Raises UsageError and UserError for what the user can mend."""
    if not address or [bool(words), follow is not None, stop is not None].count(True) != 1:
        raise UsageError("submit takes --address URL, and one of -- VERB ..., --follow ID and --stop ID")
    if stop is not None:
        status = stop_job(address, stop)
        return Answer({"job": stop, "status": status}, [f"{stop}: {status.lower()}"])
    as_json = as_json or "--json" in words
    answer: list[str] = []
    keep = answer.append if as_json else sys.stdout.write
    if follow is not None:
        code = follow_job(address, follow, keep)
    else:
        check_words([*words], commands, defaults)
        if as_json and "--json" not in words:
            words = (*words, "--json")
        code = run_job(address, words, variables, keep=keep)
    failed = f"the job ended with exit code {code}; its log is above" if code else ""
    if failed and not answer:
        error = UserError(failed)
        error.exit_code = code
        raise error
    return Answer(json.loads("".join(answer)) if answer else None, [], failed)


def check_words(words: Sequence[str], commands: Commands, defaults: Defaults) -> None:
    """Raises UsageError for the command line of a job that is wrong, and does nothing for one that is right."""

    def idle(command: Command) -> Command:
        @functools.wraps(command)
        def call(*values: Any, **named: Any) -> Answer:
            return Answer(None, [])

        return call

    checked: Commands = {
        name: {inner: idle(of) for inner, of in command.items()} if isinstance(command, Mapping) else idle(command)
        for name, command in commands.items()
        if name != "submit"
    }
    dispatch([*words], checked, defaults)


def run_job(address: str, words: Sequence[str], variables: Sequence[str], *, keep: Callable[[str], object]) -> int:
    """Submits `lgd WORDS` to the cluster whose dashboard is at `address` and follows it; returns its exit code.

    variables: names of environment variables that the job gets with the values that they have here; no others are sent.
    keep: called with every line that the verb writes to stdout.
    Raises UsageError and UserError for what the user can mend."""
    if missing := [name for name in variables if name not in os.environ]:
        raise UsageError(f"--env {' '.join(missing)}: not set here")
    client = connect(address)
    job = f"lgd-{words[0]}-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="lgd-submit-") as folder, _dashboard_errors(address):
        copy_code(Path(folder))
        client.submit_job(
            # Ray hands this to a shell.
            entrypoint=f"python -m lgd.clusters.job {shlex.join(words)}",
            submission_id=job,
            runtime_env={"working_dir": folder, "env_vars": {name: os.environ[name] for name in variables}},
        )
    say(f"{job} runs on {address}, whatever becomes of this terminal; {how_to_resume(address, job)}")
    return _follow(client, address, job, keep=keep)


def follow_job(address: str, job: str, keep: Callable[[str], object]) -> int:
    """Shows the log of a job from its beginning to its end; returns the exit code of its verb."""
    return _follow(connect(address), address, job, keep=keep)


def stop_job(address: str, job: str) -> str:
    """Ends a job, unless it has ended; returns its status, in Ray's words."""
    client = connect(address)
    with _dashboard_errors(address):
        client.stop_job(job)
        return _ended(client, job).status


def how_to_resume(address: str, job: str) -> str:
    command = f"lgd submit --address {shlex.quote(address)}"
    return f"`{command} --follow {job}` shows its log, `{command} --stop {job}` ends it"


def connect(address: str) -> "JobSubmissionClient":
    """The client of the dashboard at `address`, an http:// or https:// URL. Raises UserError where none answers, or
    where it refuses the token."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(
            f"--address is the URL of the cluster's dashboard, such as http://127.0.0.1:8265, not {address}"
        )
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Ray lets RAY_ADDRESS go before the address that is given, but not before this.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    if url.scheme == "http" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        say(f"the token and the log travel to {url.hostname} unencrypted; an SSH tunnel or https keeps them private")
    with _dashboard_errors(address):
        socket.create_connection((url.hostname, url.port or 80), CONNECT_S).close()  # Ray would wait without an end
        from ray.job_submission import JobSubmissionClient

        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        return JobSubmissionClient(address)


def copy_code(folder: Path) -> None:
    """Copies the files that the package `lgd` is made of, and nothing else, to `folder`/lgd."""
    package = Path(lgd.__file__).parent
    for path, _, files in os.walk(package, followlinks=True):
        for file in (Path(path) / name for name in files if name.endswith(CODE)):
            copy = folder / "lgd" / file.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _follow(client: "JobSubmissionClient", address: str, job: str, *, keep: Callable[[str], object]) -> int:
    try:
        with _dashboard_errors(address):
            client.get_job_info(job)  # an unknown job is said so by this alone
            asyncio.run(_show(client, job, keep))
            ended = _ended(client, job)
    except KeyboardInterrupt:
        interrupted = UserError(f"{job} goes on; {how_to_resume(address, job)}")
        interrupted.exit_code = INTERRUPTED
        raise interrupted from None
    if ended.driver_exit_code is None:  # it did not come to run, or was stopped
        raise UserError(f"{job}: {ended.status.lower()}: {' '.join((ended.message or '').split())}")
    return int(ended.driver_exit_code)


async def _show(client: "JobSubmissionClient", job: str, keep: Callable[[str], object]) -> None:
    """The log until its end: marked lines to `keep`, the others to stderr."""
    rest = ""
    async for text in client.tail_job_logs(job):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            _hand_on(line + "\n", keep)
    if rest:
        _hand_on(rest, keep)


def _hand_on(line: str, keep: Callable[[str], object]) -> None:
    before, mark, answer = line.partition(ANSWER)
    sys.stderr.write(before)
    sys.stderr.flush()
    if mark:
        keep(answer)


def _ended(client: "JobSubmissionClient", job: str) -> Any:
    """What Ray knows of a job when it has ended, which it may say a moment after the log has."""
    deadline = time.monotonic() + END_S
    while not (about := client.get_job_info(job)).status.is_terminal():
        if time.monotonic() > deadline:
            raise UserError(f"the log of {job} has ended, but not the job ({about.status}): follow it again")
        time.sleep(0.2)
    return about


@contextlib.contextmanager
def _dashboard_errors(address: str) -> Iterator[None]:
    """What goes wrong with the dashboard, as one line."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except UserError:
        raise
    except AuthenticationError as error:
        raise UserError(
            f"the cluster at {address} wants its token, and it is not here or another one is: put it into "
            "RAY_AUTH_TOKEN, into a file that RAY_AUTH_TOKEN_PATH names, or into ~/.ray/auth_token"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:  # requests' and Ray's other errors are such
        text = " ".join(str(error).split())
        if "status code 404" in text:
            raise UserError(f"{address} knows no such job (`ray job list` lists them)") from error
        raise UserError(f"no job server answers at {address} ({text[:300]}): see that the cluster runs") from error
