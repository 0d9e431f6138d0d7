"""Annotations in lists without a header: `path label` of mmaction2 and SlowFast, and `path,label`."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.entries import Annotations, Entry
from lgd.preprocessing.annotations.formats import BARE, NUMBERED, several_labels
from lgd.preprocessing.annotations.named_files import LabelNames, locate, relative_path
from lgd.preprocessing.annotations.split_names import split_in_name
from lgd.preprocessing.annotations.text_files import open_text, read_lines
from lgd.preprocessing.video.files import VideoFiles


def read_video_list(files: VideoFiles, file: Path, classes: Path | None) -> Annotations:
    """Read a list of lines `path label`, with the number of the class as the label.

    Paths may contain spaces. The classes are those of `classes` (the file of --classes) or of the label map in the
    folder of the list; without them, the numbers are the classes. The split is the one that the name of the file says.
    Raises UserError for a line of a different form and a number that is not one of a class."""
    names = LabelNames.beside(file, classes)
    split = split_in_name(file.stem)
    entries = []
    for line, text in read_lines(file):
        where = f"{file} line {line}"
        match = NUMBERED.fullmatch(text)
        path, numbers = (match[1], match[3].split()) if match else (None, [])
        if not match and (bare := BARE.fullmatch(text)):
            path, numbers = bare[1], [bare[2]]
        if path is None:
            raise UserError(f"{where}: expected the path of a video and the number of its class, not {text!r}")
        if len(numbers) > 1:
            raise several_labels(file, line, numbers)
        entry = Entry(path, names.name(int(numbers[0]), where), file, line, split)
        entries.append(_located(files, entry))
    return Annotations(entries, names.names, names.source)


def read_csv_without_header(files: VideoFiles, file: Path, classes: Path | None) -> Annotations:
    """Read rows `path,label`. Labels are names; if all of them are numbers, they are read as those of a video list.

    Raises UserError for a row of a different form and a number that is not one of a class."""
    rows = list(read_rows(file, 2))
    split = split_in_name(file.stem)
    if not all(re.fullmatch("[0-9]{1,9}", label) for _, (_, label) in rows):
        entries = [_located(files, Entry(path, label, file, line, split)) for line, (path, label) in rows]
        return Annotations(entries)
    names = LabelNames.beside(file, classes)
    entries = [
        _located(files, Entry(path, names.name(int(label), f"{file} line {line}"), file, line, split))
        for line, (path, label) in rows
    ]
    return Annotations(entries, names.names, names.source)


def read_rows(file: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, values) of the rows of a CSV file without a header, without spaces around the values.

    Raises UserError for a row with another number of values or with an empty one."""
    with open_text(file) as text:
        reader = csv.reader(text, strict=True)
        try:
            for values in reader:
                row = [value.strip() for value in values]
                while len(row) > columns and not row[-1]:
                    row.pop()
                if not any(row):
                    continue
                if len(row) != columns or not all(row):
                    raise UserError(
                        f"{file} line {reader.line_num}: expected {columns} values separated by commas, as in line 1, "
                        f"not {','.join(values)!r} (a value that contains a comma must be in quotes)"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise UserError(f"{file} line {reader.line_num}: not a valid CSV file ({error})") from error


def _located(files: VideoFiles, entry: Entry) -> Entry:
    """Return the entry with the path of its file. Raises UserError if the path is outside the folder of videos."""
    inside = relative_path(files.folder, entry.path)
    if inside is None:
        raise UserError(f"{entry.where}: {entry.path} is outside {files.folder.display()}: give paths relative to it")
    found = locate(files, inside, entry.split)
    entry.path, entry.listed, entry.missing = found or inside, inside, found is None
    return entry
