"""A GPU that Ray counts and PyTorch cannot use."""

import pytest
import torch
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import ControllerError

from lgd.pipeline.console.errors import UserError
from lgd.training import gpu, trainer
from lgd.training.elastic import _user_error
from lgd.training.gpu import check_gpu

TOO_OLD = "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver.\nMore"
UPDATE = "update the driver to 580 or later, or use CPUs only"


@pytest.mark.parametrize(
    ("build", "driver", "problem", "reason"),
    [
        (None, None, None, "(it was built without CUDA; no NVIDIA driver): install a PyTorch with CUDA and driver 580"),
        (
            None,
            "550.54",
            None,
            "(it was built without CUDA; the NVIDIA driver is 550.54): install a PyTorch with CUDA and",
        ),
        (
            None,
            "580.65",
            None,
            "(it was built without CUDA; the NVIDIA driver is 580.65): install a PyTorch with CUDA, or",
        ),
        ("13.0", None, None, "(there is no NVIDIA driver; CUDA 13.0 needs driver 580 or later): install driver 580"),
        (
            "13.0",
            "550.54",
            RuntimeError(TOO_OLD),
            f"(the NVIDIA driver 550.54 is too old; CUDA 13.0 needs driver 580 or later): {UPDATE}",
        ),
        ("12.8", "470.1", None, "driver 470.1 is too old; CUDA 12.8 needs driver 525.60 or later"),
        (
            "13.0",
            "580.65",
            RuntimeError("No CUDA GPUs are available"),
            "(No CUDA GPUs are available; driver 580.65, CUDA 13.0",
        ),
        ("13.0", "580.65", None, "(it finds no GPU; driver 580.65, CUDA 13.0): check CUDA_VISIBLE_DEVICES"),
    ],
)
def test_the_reason_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, build: str | None, driver: str | None, problem: Exception | None, reason: str
):
    def init() -> None:
        if problem:
            raise problem

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(gpu, "driver_version", lambda: driver)
    with pytest.raises(UserError) as caught:
        check_gpu()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot use the GPU of"):  # before the worker joins the others
        trainer._join("nccl", "127.0.0.1", 1, number=0, workers=1)


@pytest.mark.parametrize(("capability", "usable"), [((9, 0), True), ((7, 5), True), ((7, 0), False), ((12, 1), True)])
def test_a_gpu_that_is_older_than_the_build_is_named(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], usable: bool
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90a", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu, "driver_version", lambda: "580.65")
    if usable:
        check_gpu()
        return
    with pytest.raises(
        UserError, match=r"CUDA 13.0, driver 580.65\) cannot use the Tesla V100 .* is 7.0, and 7.5 is req"
    ):
        check_gpu()


def test_an_error_of_the_user_that_stopped_the_controller_is_printed_as_it_is():
    cause = UserError("install a PyTorch with CUDA")
    stopped = ControllerError(RayTaskError("_join", "Traceback ...", cause))
    found = _user_error(stopped)
    assert str(found) == "install a PyTorch with CUDA"
    assert _user_error(ControllerError(RuntimeError("other"))) is None
    assert _user_error(ControllerError(RayTaskError("_join", "Traceback ...", ValueError("other")))) is None
