"""Run the command of a command line, and print its result on stdout, or an error of one line on stderr."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Annotated, Any, ClassVar

from rich.console import Console
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, arg

from lgd import __version__
from lgd.pipeline.console import signals
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.option_parser import parse_command
from lgd.pipeline.console.progress import console as progress_console
from lgd.pipeline.console.progress import say

Json = Annotated[bool, FlagCreatePairsOff, arg(help="Print the result as one JSON document on stdout.")]

Line = str | Table  # what a command prints: a line of text, or a table

# Metadata of the fields of a result whose `document` does not have them as keys; docs/json.md is written from it.
IS_THE_DOCUMENT: Mapping[str, str] = {"json_place": "document"}  # the value of the field is the document
AT_TOP_LEVEL: Mapping[str, str] = {"json_place": "top level"}  # the keys of the field's value are at the top level


def with_json_key(key: str) -> dict[str, str]:
    """Return the metadata of a field that has a different key in the document."""
    return {"json_key": key}


class CommandResult(ABC):
    """What a command returns: a frozen dataclass derived from this class.

    Its fields are the JSON document of `--json`; `lines` is what a person reads."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    """Fields that the document leaves out if they are None."""

    @abstractmethod
    def lines(self) -> list[Line]:
        """Lines and tables for a person, on stdout."""

    def document(self) -> Any:
        """The JSON document: the fields, unless a subclass says otherwise."""
        fields: dict[str, Any] = dataclasses.asdict(self)  # type: ignore[call-overload]  # subclasses are dataclasses
        return {name: value for name, value in fields.items() if value is not None or name not in self.OPTIONAL}

    @property
    def failed(self) -> str:
        """One line about what failed, printed last, with exit code 1; empty if the command succeeded."""
        return ""


Command = Callable[..., CommandResult]
Commands = Mapping[str, Command | Mapping[str, Command]]  # a mapping is a group of commands: `lgd bench flow`
Defaults = Callable[[str, list[str]], dict[str, Any]]  # (command, the words after it) -> values by parameter


def overview(commands: Commands, program: str) -> str:
    """Return the list of the commands of `program` (`lgd` or `lgd bench`), with a summary of each."""
    width = min(shutil.get_terminal_size().columns, 120)
    column = max(map(len, commands)) + 4
    lines = [f"usage: {program} COMMAND [OPTIONS]", ""]
    if program == "lgd":
        lines = [*lines, "Two-stream video action recognition: videos to shards, training, evaluation, fusion.", ""]
    for name, command in commands.items():
        summary = f"Run one of: {', '.join(command)}" if isinstance(command, Mapping) else _summary(command)
        lines += textwrap.wrap(summary, width, initial_indent=f"  {name}".ljust(column), subsequent_indent=" " * column)
    return "\n".join([*lines, "", f"`{program} COMMAND --help` explains the options of a command.", ""])


def _summary(command: Command) -> str:
    """The first sentence of a command's docstring."""
    paragraph = " ".join((command.__doc__ or "").strip().partition("\n\n")[0].split())
    return re.split(r"\.(?= [A-Z`]|$)", paragraph, maxsplit=1)[0]


def dispatch(words: list[str], commands: Commands, defaults: Defaults, *, group: tuple[str, ...] = ()) -> CommandResult:
    """Run the command that a command line (without its `lgd`) names.

    group: the names of the groups of commands that `commands` belong to, outermost first.
    Raises UsageError if the command line is wrong."""
    program = " ".join(["lgd", *group])
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(overview(commands, program))
        raise SystemExit(0 if words else 2)
    if words[0] == "--version" and not group:
        sys.stdout.write(f"lgd {__version__}\n")
        raise SystemExit(0)
    name, *rest = words
    path = " ".join([*group, name])
    if name not in commands:
        raise UsageError(f"unknown command {path}: choose from {', '.join(commands)}")
    command = commands[name]
    if isinstance(command, Mapping):
        return dispatch(rest, command, defaults, group=(*group, name))
    return parse_command(command, rest, f"lgd {path}", defaults=defaults(path, rest))()


class CommandSequence:
    """Commands that run one after the other, each as if a user had entered it.

    seconds: the time that each stage took, by the name of the stage."""

    def __init__(self, commands: Commands, defaults: Defaults) -> None:
        self.seconds: dict[str, float] = {}
        self._commands, self._defaults = commands, defaults

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the time of a block as that of a stage."""
        start = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - start

    def do(self, stage: str, *words: object) -> Any:
        """Run the command of these words, print its lines on stderr, and return its JSON document."""
        command = [str(word) for word in words]
        say(f"\n$ lgd {shlex.join(command)}")
        with self.timed(stage):
            result = dispatch(command, self._commands, self._defaults)
        for line in result.lines():
            say(line) if isinstance(line, str) else progress_console.print(line)
        return result.document()


@contextlib.contextmanager
def stdout_for_result(alone: bool) -> Iterator[IO[str]]:
    """Yield the standard output. With `alone`, everything else that the block prints to it goes to stderr."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        if alone:
            os.dup2(2, 1)
        try:
            yield output
        finally:
            sys.stdout.flush()
            os.dup2(output.fileno(), 1)


def run_command_line(words: list[str], commands: Commands, defaults: Defaults) -> None:
    """Run `lgd WORDS` and exit as `run_and_print` does."""
    run_and_print(words, lambda: dispatch(words, commands, defaults))


def run_and_print(words: list[str], call: Callable[[], CommandResult]) -> None:
    """Make the call that the words ask for and print its result: as one JSON document if `--json` is among the words.

    Exits with 1 if the command failed, with 2 if the command line is wrong, and with 128 + the number of the signal
    that stopped it: 130 after Ctrl-C."""
    try:
        with signals.interruptible():
            _run_and_print(call, as_json="--json" in words)
    except KeyboardInterrupt:
        say(signals.last_line())
        sys.exit(signals.exit_code())


def _run_and_print(call: Callable[[], CommandResult], as_json: bool) -> None:
    try:
        with stdout_for_result(alone=as_json) as output:
            result = call()
            if as_json:
                output.write(json.dumps(result.document(), indent=2, ensure_ascii=False) + "\n")
            else:
                console = Console(file=output, highlight=False)
                for line in result.lines():
                    console.print(line, soft_wrap=isinstance(line, str), markup=False)
        if result.failed:
            raise UserError(result.failed)
    except UserError as error:
        say(f"lgd: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
