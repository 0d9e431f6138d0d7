from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.class_list import read_classes
from tests.preprocessing.annotations.conftest import write_file


@pytest.mark.parametrize(
    "text",
    [
        "walk\nhigh jump\n",
        "1 walk\n2 high jump\n",
        "\n0 walk\r\n1 high jump",
        "high jump,1\nwalk,0\n",
        "walk, 1\nhigh jump, 2\n",
    ],
)
def test_classes_are_in_the_order_of_the_lines_or_of_their_numbers(tmp_path: Path, text: str) -> None:
    assert read_classes(write_file(tmp_path, text)) == ("walk", "high jump")


def test_names_that_start_with_a_number_are_kept_unless_all_lines_are_numbered_in_order(tmp_path: Path) -> None:
    assert read_classes(write_file(tmp_path, "2 steps\n3 steps\n")) == ("2 steps", "3 steps")
    assert read_classes(write_file(tmp_path, "run,5\nwalk\n")) == ("run,5", "walk")


def test_a_repeated_class_and_an_empty_list_are_errors_that_name_the_file_and_the_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list\.csv line 4: class run is already listed in line 1"):
        read_classes(write_file(tmp_path, "run\nwalk\n\nrun\n"))
    with pytest.raises(UserError, match=r"list\.csv lists no classes"):
        read_classes(write_file(tmp_path, "\n"))
