"""The private parts of Ray that the fast trainer needs."""

import pytest

from lgd.training import private_parts


@pytest.mark.parametrize(("module", "name"), private_parts.PRIVATE_PARTS)
def test_the_installed_ray_has_every_private_part(module: str, name: str, monkeypatch: pytest.MonkeyPatch):
    """If this fails for a new version of Ray: training still works, but starts more slowly. Find what replaces the part
    before you raise the cap on Ray."""
    monkeypatch.setattr(private_parts, "PRIVATE_PARTS", ((module, name),))
    assert private_parts.missing_private_parts() == []


def test_missing_private_parts_are_named(monkeypatch: pytest.MonkeyPatch):
    parts = (
        ("ray.train.no_such_module", "Callback"),
        ("ray.train", "ScalingConfig"),
        ("ray.train", "ScalingConfig.no_such_method"),
        ("ray.train", "no_such_name.method"),
    )
    monkeypatch.setattr(private_parts, "PRIVATE_PARTS", parts)
    assert private_parts.missing_private_parts() == [
        "ray.train.no_such_module.Callback",
        "ray.train.ScalingConfig.no_such_method",
        "ray.train.no_such_name.method",
    ]
