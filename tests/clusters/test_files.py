"""The files in clusters/ for AWS, Kubernetes and Docker, as far as they can be checked without a cloud or Docker."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "clusters"
IGNORE = (FOLDER / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
MANIFESTS = sorted((FOLDER / "kubernetes").glob("*.yaml"))


def cluster_of(path: Path) -> dict[str, Any]:
    spec = yaml.safe_load(path.read_text())["spec"]
    return dict(spec.get("rayClusterSpec", spec))


def pods(path: Path) -> Iterator[dict[str, Any]]:
    cluster = cluster_of(path)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def test_ray_accepts_the_cloud_configuration():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((FOLDER / "cloud" / "aws.yaml").read_text())
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    with pytest.raises(Exception, match="bogus"):
        validate_config({**prepared, "bogus": 1})


def test_the_cloud_cluster_requires_its_token_and_opens_only_ssh():
    config = yaml.safe_load((FOLDER / "cloud" / "aws.yaml").read_text())
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = config[commands][-1]
        assert start.index("RAY_AUTH_MODE=token") < start.index("ray start")
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    (rule,) = config["provider"]["security_group"]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
    assert all(span["CidrIp"] != "0.0.0.0/0" for span in rule["IpRanges"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_clusters_on_kubernetes_require_their_token_and_run_unprivileged(path: Path):
    assert cluster_of(path)["authOptions"] == {"mode": "token"}
    assert cluster_of(path)["headGroupSpec"]["serviceType"] == "ClusterIP"
    for pod in pods(path):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "env" not in container


def test_the_image_contains_every_package_and_runs_as_a_user():
    lines = (FOLDER / "docker" / "Dockerfile").read_text().splitlines()
    for path in (FOLDER.parent / "lgd", *(FOLDER.parent / "lgd").iterdir()):
        if path.is_symlink() or path.name == "lgd":
            assert f"COPY --chown=lgd:lgd {path.name} {path.name}" in lines
            assert f"!{path.name}" in IGNORE
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]
    assert any("RAY_AUTH_MODE=token" in line for line in lines)


def test_the_files_that_the_image_copies_exist_and_are_sent_to_the_builder():
    copies = [line for line in (FOLDER / "docker" / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    names = [name for line in copies for name in line.split()[2:-1]]
    assert "pyproject.toml" in names
    for name in names:
        assert (FOLDER.parent / name).exists()
        assert f"!{name}" in IGNORE


def test_the_links_of_the_package_are_relative():
    """They must also work in the image, in a clone and in a source archive."""
    links = [path for path in (FOLDER.parent / "lgd").iterdir() if path.is_symlink()]
    assert len(links) == 6
    assert all(str(link.readlink()) == f"../{link.name}" for link in links)
