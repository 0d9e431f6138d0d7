"""Child process of `lgd.benchmarks.gpu`: describes the GPU (`probe`), or measures one part.

python -m lgd.benchmarks.gpu.child probe
python -m lgd.benchmarks.gpu.child PART MEASURED

Prints one JSON document; {"error": one line} if something failed."""

import json
import os
import sys
from typing import Any

from lgd.benchmarks.gpu.card import probe
from lgd.benchmarks.gpu.parts import part_named
from lgd.benchmarks.gpu.rows import measured_of


def answer(words: list[str]) -> dict[str, Any]:
    """Return the document for the words of a command line."""
    try:
        if words[0] == "probe":
            return probe()
        part, measured = part_named(words[0]), measured_of(json.loads(words[1]))
        return {"rows": [row.document() for row in part.measure(measured)]}
    except Exception as error:  # one part that fails must not end the others
        return {"error": reason_of(error)}


def reason_of(error: Exception) -> str:
    """Return one line that says what failed."""
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is not installed"
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    if name in ("UserError", "UsageError") and lines:
        return lines[0]
    return f"{name}: {lines[0]}" if lines else name


if __name__ == "__main__":
    # What libraries print goes to stderr.
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)
        json.dump(answer(sys.argv[1:]), output)
