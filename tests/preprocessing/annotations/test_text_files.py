from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.text_files import and_more, read_lines
from tests.preprocessing.annotations.conftest import write_file


def test_lines_have_their_numbers_and_no_byte_order_mark(tmp_path: Path) -> None:
    assert read_lines(write_file(tmp_path, "\ufeffa\r\n\r\n b \n")) == [(1, "a"), (3, "b")]


def test_text_that_is_not_utf8_is_an_error_with_its_line(tmp_path: Path) -> None:
    text = "a\n" * 20_000 + "\u00e9\n" + "a\n" * 20_000
    with pytest.raises(UserError, match=r"list\.csv line 20001: not UTF-8 text .*: save the file as UTF-8"):
        read_lines(write_file(tmp_path, text.encode("latin-1")))


def test_a_folder_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_lines(tmp_path)


def test_a_message_counts_what_it_does_not_name() -> None:
    assert [and_more(count) for count in (1, 2, 5)] == ["", " (and 1 more)", " (and 4 more)"]
