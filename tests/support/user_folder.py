"""A user's folder whose modules have the names of our folders and of all our dependencies: none may be executed."""

import importlib.metadata
from collections.abc import Set
from pathlib import Path

FOLDERS = (
    "pipeline",
    "preprocessing",
    "training",
    "prediction",
    "detection",
    "clusters",
    "benchmarks",
    "tests",
    "docs",
)
MODULES = ("cli", "triton", "torchvision", "psutil", "scipy", "skimage", "decord", "wandb", "tqdm", "utils", "models")


def write_modules(folder: Path, trace: Path, names: Set[str] | None = None) -> Set[str]:
    """Write modules to `folder` and return their names, by default those of our folders and dependencies.

    A module that is executed appends its name and the command line of its process to the file `trace`, then raises:
    the trace remains even where the exception is caught. `pipeline` is a package, the others are files."""
    if names is None:
        installed = {name for name in importlib.metadata.packages_distributions() if name.isidentifier()}
        names = (installed | {*FOLDERS, *MODULES}) - {"lgd"}
    code = (
        "import sys\n"
        f"with open({str(trace)!r}, 'a') as trace:\n"
        "    trace.write(f'{__name__}: {sys.argv}\\n')\n"
        "raise RuntimeError(f'{__file__} was executed')\n"
    )
    for name in names:
        path = folder / name / "__init__.py" if name == "pipeline" else folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return names
