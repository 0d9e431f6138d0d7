"""Commands in a user's folder that contains modules with the names of our folders and of our dependencies."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lgd.preprocessing.demo_videos import render_set
from tests.real.conftest import REAL_VIDEOS
from tests.support.user_folder import CONSOLE_SCRIPT, FOLDERS, PYTHON_M, UserFolder

IMPORT_NAMES = {  # of the requirements that are imported under a different name
    "nvidia-dali-cuda130": "nvidia",
    "nvidia-nvjpeg": "nvidia",
    "ffmpeg-python": "ffmpeg",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "opencv-contrib-python-headless": "cv2",
    "pillow": "PIL",
}

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 classes of 2 videos."""
    folder = tmp_path_factory.mktemp("small")
    render_set(folder, videos_per_class=2)
    return folder


@pytest.fixture
def user(tmp_path: Path) -> UserFolder:
    return UserFolder(tmp_path)


def test_the_folder_has_the_names_of_our_folders_and_dependencies_and_a_module_leaves_a_trace(user: UserFolder):
    """What the tests below rely on."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    requirements = {requirement.replace("[", ">").split(">")[0] for requirement in project["dependencies"]}
    assert {IMPORT_NAMES.get(name, name) for name in requirements} <= user.names
    assert {*FOLDERS} <= user.names
    done = subprocess.run([sys.executable, "-c", "import yaml"], cwd=user.folder, capture_output=True, check=False)
    assert done.returncode == 1
    assert user.trace.read_text().startswith("yaml: ")


def test_every_stage_works_in_the_embedded_cluster(user: UserFolder, small_videos: Path):
    """preprocess, train, evaluate, fuse and report, which `lgd demo` runs in turn.

    The demo on real videos, in tests/real/test_cli_real.py, runs in such a folder as well."""
    if REAL_VIDEOS.is_dir():
        pytest.skip("tests/real/test_cli_real.py shows the same with real videos")
    user.run(CONSOLE_SCRIPT, "demo", "--videos", small_videos, "--out", "out", "--epochs", 0.5)
    assert (user.folder / "out" / "report.html").exists()


@pytest.mark.usefixtures("joined")
def test_commands_work_on_a_running_cluster_and_without_one(user: UserFolder, small_videos: Path):
    def run(*words: object) -> str:
        return user.run(PYTHON_M, *words).stdout

    short = ("--transform.crop", 32, "--batch-size", 4, "--epochs", 0.5)
    run("preprocess", small_videos, "--out", "data", "--short-side", 32, "--streams", "rgb")
    run("train", "nano-rgb", "--data", "data", "--run", "rgb", "--num-workers", 1, *short)
    run("evaluate", "rgb", "--data", "data", "--out", "rgb.parquet", "--clips", 1)
    run("inspect", "data", "--verify", "--pictures", "pictures", "--videos", 1)
    run("predict", next(small_videos.rglob("*.mp4")), "--rgb", "rgb", "--render", "drawn.mp4")
    assert (user.folder / "drawn.mp4").exists()


@pytest.mark.parametrize("launcher", [CONSOLE_SCRIPT, PYTHON_M], ids=["lgd", "python -m lgd"])
def test_the_console_script_and_the_module_start_here(user: UserFolder, launcher: tuple[str, ...]):
    assert user.run(launcher, "recipes").stdout.count(os.linesep) > 5
