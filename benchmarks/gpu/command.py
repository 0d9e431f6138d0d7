"""Everything about a GPU in one command: python -m lgd.benchmarks.gpu --out gpu.json

card       speed of its memory and of bfloat16 matrix products
train      clips per second of the training step of kinetics400-rgb-r50, 16 x 112 x 112, bfloat16, by variant, with 64
           and with 8 clips
TV-L1      pairs of frames per second at 160 x 120 and 340 x 256
decoding   difference of JPEGs that the GPU decodes from those that the CPU decodes; frames per second, which must be
           twice what the training step takes
loader     clips per second of the loader's graph at both sizes, with the same requirement
copy       time of the copy of a batch into PyTorch's memory, which must be at most 2 % of a step

Prints every figure beside its bound and its goal, with a verdict, and writes all of it and the versions to --out, again
after each part: a run that was killed keeps what it has, and a rerun measures what is missing. Each part runs in a
child process; one that fails, crashes or takes too long is a row that says so. Takes less than 10 minutes.

Needs PyTorch and rich. Figures that need other packages, such as DALI, say so if these are missing; nothing needs Ray.
Exits with 1 without a GPU that PyTorch can use, and if a goal was missed or a figure could not be measured.
"""

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from lgd.benchmarks.gpu.parts import PARTS, Part
from lgd.benchmarks.gpu.rows import Measured, Row, row_of
from lgd.benchmarks.isolated import run_isolated
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import say

CHILD = "lgd.benchmarks.gpu.child"
PROBE_LIMIT_S = 60.0
LIMIT_S = 570.0  # of the complete command
LEAST_S = 5.0  # a part does not start with less time left
NOT_IN_TIME = "not measured in the time of the command: rerun it to resume"
DIGITS = 3  # of the figures in the table

Probe = Callable[[], dict[str, Any]]
Measure = Callable[[Part, Measured, float], dict[str, Any]]


def probe_gpu() -> dict[str, Any]:
    """Return the name of the GPU and versions. Raises UserError if PyTorch cannot use a GPU."""
    machine: dict[str, Any] = run_isolated(CHILD, "probe", name="the GPU", timeout_s=PROBE_LIMIT_S)
    if "error" in machine:
        raise UserError(machine["error"])
    return machine


def measure_part(part: Part, measured: Measured, limit_s: float) -> dict[str, Any]:
    """Return the rows of a part, or its error."""
    document: dict[str, Any] = run_isolated(
        CHILD, part.name, json.dumps(measured.document()), name=part.name, timeout_s=limit_s
    )
    return document


def run(
    out: Path,
    *,
    parts: Sequence[Part] = PARTS,
    limit_s: float = LIMIT_S,
    probe: Probe = probe_gpu,
    measure: Measure = measure_part,
) -> dict[str, Any]:
    """Measure the parts that `out` lacks, write `out` after each, and return its content.

    Raises UserError without a usable GPU, for an `out` that cannot be written and for one that is a different file."""
    started = time.monotonic()
    earlier = _read(out)
    machine = probe()
    done: dict[str, Any] = {}
    if earlier and not earlier["complete"] and earlier["machine"] == machine:
        # Parts that failed are measured again.
        done = {name: part for name, part in earlier["parts"].items() if "rows" in part}
        say(f"{out} has {len(done)} of {len(parts)} parts: measuring the others")
    document: dict[str, Any] = {"complete": False, "machine": machine, "parts": done}
    _write(out, document)
    for part in parts:
        if part.name in done:
            continue
        left = limit_s - (time.monotonic() - started)
        begin = time.monotonic()
        if left < LEAST_S:
            found = {"error": NOT_IN_TIME}
        else:
            say(f"measuring: {part.name}")
            try:
                found = measure(part, Measured(machine["card"], rows_of(done)), min(part.limit_s, left))
            except UserError as error:
                found = {"error": str(error)}
        document["parts"][part.name] = {**found, "seconds": round(time.monotonic() - begin, 1)}
        _write(out, document)
    document["complete"] = all(part.get("error") != NOT_IN_TIME for part in done.values())
    _write(out, document)
    return document


def rows_of(parts: dict[str, Any]) -> list[Row]:
    """Return the rows of all parts, in order; a part that failed is a row without a figure."""
    rows = list[Row]()
    for name, part in parts.items():
        rows += [Row(name, None, "", note=part["error"])] if "error" in part else map(row_of, part["rows"])
    return rows


def _read(out: Path) -> dict[str, Any] | None:
    """Return the content of an earlier run; None without one.

    Raises UserError for a file that is none: it would be overwritten."""
    try:
        document = json.loads(out.read_bytes())
        if {"complete", "machine", "parts"} <= document.keys() and all(
            "error" in part or [row_of(row) for row in part["rows"]] for part in document["parts"].values()
        ):
            return dict(document)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"--out {out} cannot be read ({error.strerror}): give the name of a file") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"--out {out} is a different file, not figures of a GPU: give another name, or delete it")


def _write(out: Path, document: dict[str, Any]) -> None:
    """Replace the file by a new one, complete at any time."""
    new = out.with_name(f"{out.name}.new")
    try:
        new.write_text(json.dumps(document, indent=2) + "\n")
        os.replace(new, out)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise UserError(f"--out {out} cannot be written ({error.strerror}): give the name of a file") from error


def table_of(rows: Sequence[Row]) -> Table:
    """Return every figure beside its bound, its goal and its verdict."""
    table = Table(
        "name", *(Column(name, justify="right") for name in ("figure", "bound", "of bound", "goal")), "verdict"
    )
    for row in rows:
        share = row.figure / row.bound if row.figure is not None and row.bound and not row.lower_is_better else None
        limit = "at most " if row.lower_is_better else ""
        table.add_row(
            row.name,
            "" if row.figure is None else f"{_shown(row.figure)} {row.unit}",
            "" if row.bound is None else _shown(row.bound),
            "" if share is None else f"{share:.0%}",
            "" if row.goal is None else limit + _shown(row.goal),
            f"{row.verdict}: {row.note}" if row.note else row.verdict,
        )
    return table


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10**DIGITS else f"{value:.{DIGITS}g}"


def machine_line(machine: dict[str, Any]) -> str:
    """Return the GPU and the versions in one line."""
    versions = ("driver", "torch", "cuda", "cudnn", "dali", "nvjpeg", "triton", "python")
    named = [f"{name} {machine[name] or 'missing'}" for name in versions if name in machine]
    return f"{machine['card']}: {', '.join(named)}"


def problems(rows: Sequence[Row]) -> str:
    """Return one line about the goals that were missed and the figures that are missing; empty if there are none."""
    found = []
    for verdict, words in (("missed", "goals missed"), ("not measured", "not measured")):
        if names := [row.name for row in rows if row.verdict == verdict]:
            found.append(f"{words}: {'; '.join(names)}")
    return ". ".join(found)


def main(words: list[str]) -> int:
    """Run the command line and return the exit code."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m lgd.benchmarks.gpu",
        description=f"{summary}\n\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    out: Path = parser.parse_args(words).out
    try:
        if out.is_dir():
            raise UsageError(f"--out {out} is a folder: give the name of a file in it")
        document = run(out)
        rows = rows_of(document["parts"])
        console = Console(highlight=False)
        console.print(machine_line(document["machine"]), soft_wrap=True, markup=False)
        console.print(table_of(rows))
        if failed := problems(rows):
            raise UserError(failed)
    except UserError as error:
        say(f"lgd: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say(f"lgd: stopped; rerun to resume from what {out} has")
        return 130
    return 0
