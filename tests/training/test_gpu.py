"""A GPU that Ray counts and PyTorch cannot use."""

import pytest
import torch
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import ControllerError

from lgd.pipeline.console.errors import UserError
from lgd.training import trainer
from lgd.training.elastic import _user_error
from lgd.training.gpu import check_gpu

TOO_OLD = "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver.\nMore"


@pytest.mark.parametrize(
    ("build", "problem", "reason"),
    [
        (None, None, "it was built without CUDA"),
        ("13.0", RuntimeError(TOO_OLD), "too old (found version 12020); CUDA 13.0 needs a driver that supports it"),
        ("13.0", RuntimeError("No CUDA GPUs are available"), "No CUDA GPUs are available; CUDA 13.0"),
        ("13.0", None, "it finds no GPU"),
    ],
)
def test_the_reason_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, build: str | None, problem: Exception | None, reason: str
):
    def init() -> None:
        if problem:
            raise problem

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(UserError) as caught:
        check_gpu()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot use the GPU of"):  # before the worker joins the others
        trainer._join("nccl", "127.0.0.1", 1, number=0, workers=1)


def test_a_usable_gpu_is_accepted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_gpu()


def test_an_error_of_the_user_that_stopped_the_controller_is_printed_as_it_is():
    cause = UserError("install a PyTorch with CUDA")
    stopped = ControllerError(RayTaskError("_join", "Traceback ...", cause))
    found = _user_error(stopped)
    assert str(found) == "install a PyTorch with CUDA"
    assert _user_error(ControllerError(RuntimeError("other"))) is None
    assert _user_error(ControllerError(RayTaskError("_join", "Traceback ...", ValueError("other")))) is None
