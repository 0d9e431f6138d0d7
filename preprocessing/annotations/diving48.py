"""Annotations of Diving48: Diving48_V2_train.json and Diving48_V2_test.json, with Diving48_vocab.json."""

from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.entries import Annotations, Entry, safe_key
from lgd.preprocessing.annotations.formats import load_json
from lgd.preprocessing.annotations.named_files import LabelNames
from lgd.preprocessing.annotations.split_names import split_in_name
from lgd.preprocessing.video.files import VideoFiles, stem_of

VOCABULARY = "Diving48_vocab.json"


def read_diving48(files: VideoFiles, file: Path, classes: Path | None) -> Annotations:
    """Read `[{"vid_name": ..., "label": ..., "start_frame": ..., "end_frame": ...}]`.

    The videos are `{vid_name}.*`. They are already trimmed, so the frames are not used. The classes are those of
    `classes` (the file of --classes), of Diving48_vocab.json or of a label map in the folder of the list; without them,
    the numbers are the classes. The split is the one that the name of the file says.
    Raises UserError for other structures and a number that is not one of a class."""
    vocabulary = file.parent / VOCABULARY
    if classes is None and vocabulary.exists():
        names = LabelNames(vocabulary, _read_vocabulary(vocabulary))
    else:
        names = LabelNames.beside(file, classes)
    split = split_in_name(file.stem)
    entries = []
    for number, video in enumerate(load_json(file), 1):
        where = f"{file}: entry {number}"
        match video:
            case {"vid_name": str(name), "label": int(label)} if name.strip():
                class_name = names.name(label, where)
            case _:
                raise UserError(f'{where}: expected {{"vid_name": name, "label": number}}, not {video!r}')
        stem = stem_of(name.strip())
        path = files.find(stem, class_name, split)
        entries.append(Entry(path or f"{stem}.mp4", class_name, where, 0, split, safe_key(stem), missing=path is None))
    return Annotations(entries, names.names, names.source)


def _read_vocabulary(file: Path) -> tuple[str, ...]:
    """Return the class names, such as `Back+15som+05Twis+FREE`, of a list of lists of their parts."""
    content = load_json(file)
    if not isinstance(content, list) or not content:
        raise UserError(f"{file}: expected a list of classes, each a list of its parts")
    names = []
    for parts in content:
        match parts:
            case [*words] if words and all(isinstance(word, str) for word in words):
                names.append("+".join(words))
            case _:
                raise UserError(f"{file}: expected the parts of the name of a class, not {parts!r}")
    if len(set(names)) < len(names):
        raise UserError(f"{file} lists a class twice")
    return tuple(names)
