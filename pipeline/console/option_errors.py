"""The errors of tyro, which parses the options, as one line of plain English."""

import difflib
import re
from collections.abc import Sequence

from lgd.pipeline.console.option_values import count_values

SUGGESTIONS, SIMILARITY = 3, 0.7  # maximum number of suggested options, and their minimum similarity


def error_line(box: str, options: Sequence[str]) -> str:
    """Return the message in the box that tyro draws around an error, in one plain line.

    options: the names of all options of the command, for suggestions."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:
        text = re.sub(r"^[│╰] ?|\s*[│╯]$", "", line)
        if re.fullmatch(r"─*", text):
            sections.append([])
        else:
            sections[-1].append(text)
    messages = [" ".join(text.strip() for text in section) for section in sections]
    for message in messages:
        if unknown := re.match(r"Unrecognized options: (.*)", message):
            return _unknown(re.split(r",? ", unknown[1]), options)
    message = messages[0]
    if message.startswith("Missing from"):
        return "missing " + " and ".join(text.strip() for text in sections[0] if re.match(r" {4}\S", text))
    if missing := re.match(r"Missing value for argument '(.+?)'\. Expected (\d+) values", message):
        return f"{missing[1]} needs {count_values(int(missing[2]))}"
    if wrong := re.match(r"Error parsing (.+?): (.*)", message):
        return f"{wrong[1]} {wrong[2]}" if wrong[2].startswith(("must be ", "needs ")) else f"{wrong[1]}: {wrong[2]}"
    return message


def _unknown(words: Sequence[str], options: Sequence[str]) -> str:
    """Describe words that are no options of the command, with the nearest options."""
    names = [word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)]
    if not names:
        return f"unexpected argument {words[0]!r}"
    described = [name + _suggestion(name, options) for name in names]
    return f"unknown option{'s' if len(names) > 1 else ''} {', '.join(described)}"


def _suggestion(name: str, options: Sequence[str]) -> str:
    """The options whose names are nearest, with or without the group before the last dot."""
    found = [option for option in options if option.rpartition(".")[2].lstrip("-") == name.lstrip("-")]
    for part in (str, lambda option: option.rpartition(".")[2]):
        by_part = {part(option).lstrip("-"): option for option in options}
        near = difflib.get_close_matches(part(name).lstrip("-"), by_part, n=SUGGESTIONS, cutoff=SIMILARITY)
        found += [by_part[one] for one in near]
    return f" (did you mean {' or '.join(dict.fromkeys(found))}?)" if found else ""
