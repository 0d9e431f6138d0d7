"""What the files under clusters/ for AWS, Kubernetes and Docker promise, as far as that can be read from them."""

import copy
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "clusters"
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


def test_the_cloud_cluster_wants_its_token_and_opens_ssh_alone():
    config = yaml.safe_load((FOLDER / "cloud" / "aws.yaml").read_text())
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = config[commands][-1]
        assert start.index("RAY_AUTH_MODE=token") < start.index("ray start")
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    (rule,) = config["provider"]["security_group"]["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
    assert all(span["CidrIp"] != "0.0.0.0/0" for span in rule["IpRanges"])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_clusters_on_kubernetes_want_their_token_and_run_unprivileged(path: Path):
    assert cluster_of(path)["authOptions"] == {"mode": "token"}
    assert cluster_of(path)["headGroupSpec"]["serviceType"] == "ClusterIP"
    for pod in pods(path):
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "env" not in container


def test_the_image_holds_every_package_and_runs_as_a_user():
    lines = (FOLDER / "docker" / "Dockerfile").read_text().splitlines()
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())
    for package in project["tool"]["setuptools"]["packages"]:
        assert any(line.endswith(f" {package} {package}") for line in lines) or "." in package
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000"]
    assert any("RAY_AUTH_MODE=token" in line for line in lines)
