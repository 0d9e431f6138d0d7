"""A GPU that Ray counts and PyTorch cannot use."""

import itertools
import os
import platform
from typing import Any

import pytest
import ray
import torch
from ray.air._internal.device_manager.nvidia_gpu import CUDATorchDeviceManager
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import ControllerError

from lgd.pipeline.console.errors import UserError
from lgd.training import gpu, trainer
from lgd.training.elastic import _user_error
from lgd.training.gpu import best_device, check_gpu

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
        trainer._join("nccl", "127.0.0.1", 1, number=0, workers=1, on_gpu=True)


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


@pytest.mark.parametrize(
    ("usable", "visible", "build", "driver", "name"),
    [
        (True, None, "13.0", "580.65", "NVIDIA H100"),
        (True, "1", "13.0", "580.65", "NVIDIA H100"),
        (False, "", "13.0", "550.54", "the CPU"),  # the user hides it
        (False, "-1", "13.0", "550.54", "the CPU"),
        (False, None, None, None, "the CPU"),  # there is none
        (False, None, "13.0", None, "the CPU"),
        (
            False,
            None,
            "13.0",
            "550.54",
            f"the CPU: PyTorch {torch.__version__} cannot use the GPU of {platform.node()} (the NVIDIA driver 550.54 "
            "is too old; CUDA 13.0 needs driver 580 or later): update the driver to 580 or later",
        ),
        (
            False,
            None,
            None,
            "580.65",
            f"the CPU: PyTorch {torch.__version__} cannot use the GPU of {platform.node()} (it was built without CUDA; "
            "the NVIDIA driver is 580.65): install a PyTorch with CUDA",
        ),
    ],
)
def test_a_command_of_one_process_uses_the_gpu_or_says_why_not(
    monkeypatch: pytest.MonkeyPatch, usable: bool, visible: str | None, build: str | None, driver: str | None, name: str
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(gpu, "driver_version", lambda: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert best_device() == (torch.device("cuda" if usable else "cpu"), name)


def test_a_gpu_that_is_too_old_is_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    monkeypatch.setattr(gpu, "driver_version", lambda: "580.65")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device, name = best_device()
    assert device.type == "cpu"
    assert "7.5 is required: use a newer GPU" in name
    assert "or use CPUs only" not in name


def test_an_error_of_the_user_that_stopped_the_controller_is_printed_as_it_is():
    cause = UserError("install a PyTorch with CUDA")
    stopped = ControllerError(RayTaskError("_join", "Traceback ...", cause))
    found = _user_error(stopped)
    assert str(found) == "install a PyTorch with CUDA"
    assert _user_error(ControllerError(RuntimeError("other"))) is None
    assert _user_error(ControllerError(RayTaskError("_join", "Traceback ...", ValueError("other")))) is None


class Group:
    """A worker group of Ray Train whose workers run in this process, each with GPUs and an environment of its own.

    As Ray Train does, every worker first sees the GPUs of all workers, which are on one node."""

    def __init__(self, gpus: list[list[str]], monkeypatch: pytest.MonkeyPatch):
        self._gpus, self._monkeypatch = gpus, monkeypatch
        self.visible = [",".join(sorted(itertools.chain.from_iterable(gpus)))] * len(gpus)
        self.joined: list[tuple[str, bool]] = []

    def __len__(self) -> int:
        return len(self._gpus)

    def get_resources_per_worker(self) -> dict[str, float]:
        return {"GPU": 1.0} if any(self._gpus) else {"CPU": 1.0}

    def execute(self, function: Any) -> list[Any]:
        return [self.execute_single(number, function) for number in range(len(self))]

    def execute_single(self, number: int, function: Any) -> Any:
        self._monkeypatch.setenv("CUDA_VISIBLE_DEVICES", self.visible[number])
        self._monkeypatch.setattr(ray, "get_gpu_ids", lambda: self._gpus[number])
        result = function()
        self.visible[number] = os.environ["CUDA_VISIBLE_DEVICES"]
        return result

    def execute_single_async(
        self, rank: int, join: Any, backend: str, *address: Any, on_gpu: bool, **others: Any
    ) -> None:
        assert join is trainer._join
        self.joined.append((backend, on_gpu))


@pytest.mark.parametrize(
    ("gpus", "visible", "backend"),
    [
        ([["MIG-b"], ["MIG-a"]], ["MIG-b", "MIG-a"], "gloo"),
        ([["MIG-a"]], ["MIG-a"], "gloo"),
        ([["1"], ["0"]], ["0,1", "0,1"], "nccl"),
        ([["GPU-b"], ["GPU-a"]], ["GPU-a,GPU-b", "GPU-a,GPU-b"], "nccl"),
        ([[], []], ["", ""], "gloo"),
    ],
)
def test_each_worker_on_a_part_of_a_gpu_sees_this_part_alone(
    gpus: list[list[str]], visible: list[str], backend: str, monkeypatch: pytest.MonkeyPatch
):
    group = Group(gpus, monkeypatch)
    monkeypatch.setattr(trainer, "_serve_store", lambda: ("127.0.0.1", 1))
    monkeypatch.setattr(ray, "get", lambda waiting: waiting)
    trainer.WorkerGroupBackend().on_start(group, trainer.WorkerGroupConfig())
    assert group.visible == visible
    assert group.joined == [(backend, any(gpus))] * len(gpus)
    for own, seen in zip(gpus, group.visible, strict=True):  # the device that Ray Train gives to the training
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        monkeypatch.setattr(ray, "get_gpu_ids", lambda own=own: own)
        number = CUDATorchDeviceManager().get_devices()[0].index
        assert not own or (seen.split(",")[number] == own[0] and (number == 0 or backend == "nccl"))
