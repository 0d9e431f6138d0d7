"""Rejections and their reasons."""

import pickle

import pytest

from lgd.preprocessing.video.rejections import Rejected


def test_a_rejection_can_be_pickled() -> None:
    rejected = pickle.loads(pickle.dumps(Rejected("truncated", "half of the file")))
    assert (rejected.reason, rejected.detail) == ("truncated", "half of the file")
    assert str(rejected) == "truncated: half of the file"


def test_an_unknown_reason_is_an_error() -> None:
    with pytest.raises(ValueError, match="is not one of"):
        Rejected("because", "x")
