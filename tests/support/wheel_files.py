"""Check the files of a wheel: `python tests/support/wheel_files.py lgd-*.whl` exits with 1 and a list of problems."""

import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

FOLDERS = ("pipeline", "preprocessing", "training", "prediction", "clusters", "benchmarks")
REQUIRED = (
    "lgd/cli.py",
    "lgd/__main__.py",
    "lgd/py.typed",
    "lgd/clusters/README.md",
    "lgd/clusters/cloud/aws.yaml",
    "lgd/clusters/docker/Dockerfile",
    "lgd/clusters/docker/Dockerfile.dockerignore",
    "lgd/clusters/kubernetes/cluster.yaml",
    "lgd/clusters/kubernetes/job.yaml",
    "lgd/clusters/slurm/lgd.sbatch",
    "lgd/training/report/template.html",
)


def problems(names: Iterable[str], root: Path) -> list[str]:
    """Return what is wrong with a wheel that contains the files `names`. root: the folder of the project.

    The wheel must contain every module except benchmarks/dev, the files in REQUIRED, and nothing outside lgd/ except
    its own metadata: no folder of ours at the top, where a user's modules would collide with it."""
    names = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    modules = {
        f"lgd/{path.relative_to(root)}"
        for folder in FOLDERS
        for path in (root / folder).rglob("*.py")
        if not path.is_relative_to(root / "benchmarks" / "dev")
    }
    required = modules | {str(path.relative_to(root)) for path in (root / "lgd").rglob("*.py")} | {*REQUIRED}
    return [
        *(f"missing: {name}" for name in sorted(required - names)),
        *(f"outside lgd/: {name}" for name in sorted(names) if not name.startswith("lgd/")),
        *(f"only for development: {name}" for name in sorted(names) if name.startswith("lgd/benchmarks/dev/")),
        *(f"not source: {name}" for name in sorted(names) if "__pycache__" in name or name.endswith(".pyc")),
    ]


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        found = problems(wheel.namelist(), Path(__file__).parents[2])
    sys.stderr.write("".join(f"{problem}\n" for problem in found))
    sys.exit(bool(found))
