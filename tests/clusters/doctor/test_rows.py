"""Rows: speeds, and errors of a check as a row."""

import pytest
import torch

from lgd.clusters.doctor.rows import ABSENT, NODE, OK, SLOW, WRONG, Row, attempt, number, speed


def test_a_speed_below_what_is_expected_is_slow_and_says_what_to_do():
    assert speed(NODE, "copy", 2.5, unit="GB/s", least=2.0, advice="check it") == Row(
        NODE, "copy", "2.5 GB/s", OK, "", 2.5, "GB/s"
    )
    slow = speed(NODE, "copy", 1.5, unit="GB/s", least=2000, advice="check it")
    assert (slow.figure, slow.verdict, slow.advice) == ("1.5 GB/s, expected at least 2,000", SLOW, "check it")


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (12.345, "12.3"), (999.4, "999"), (12345.6, "12,346")]
)
def test_numbers_have_three_digits(value: float, text: str):
    assert number(value) == text


@pytest.mark.parametrize(
    ("error", "figure", "verdict"),
    [
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED\nmore"),
            "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_",
            WRONG,
        ),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "torch is not installed", ABSENT),
        (MemoryError(), "not enough free memory", ABSENT),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough free GPU memory: another program uses it", ABSENT),
        (ValueError(), "ValueError", WRONG),
        (OSError("x" * 1000), "OSError: xxx", WRONG),
    ],
)
def test_an_error_of_a_check_is_a_row_with_its_reason(error: Exception, figure: str, verdict: str):
    def check() -> Row:
        raise error

    (row,) = attempt(NODE, "name", check, advice="do this")
    assert (row.section, row.name, row.verdict) == (NODE, "name", verdict)
    assert row.figure.startswith(figure)
    assert len(row.figure) < 200
    assert row.advice == ("do this" if verdict == WRONG else "")


def test_the_rows_of_a_check_are_returned():
    row = Row(NODE, "name", "figure")
    assert attempt(NODE, "name", lambda: row) == [row]
    assert attempt(NODE, "name", lambda: iter([row, row])) == [row, row]
