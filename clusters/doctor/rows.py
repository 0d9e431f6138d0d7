"""A row of the table: what was checked, the figure, the verdict, and what to do."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

OK, SLOW, WARNING, WRONG, ABSENT = "ok", "slow", "warning", "wrong", "not available"
CLUSTER, NODE, GPU = "cluster", "node", "GPU"  # sections of the table
REASON_LETTERS = 160  # of the message of an error


class Row(NamedTuple):
    """section: of the table. name: of the check. advice: what to do; empty if the verdict is ok.

    value: of a measured speed, in `unit`; higher is better, and nodes are compared with each other."""

    section: str
    name: str
    figure: str
    verdict: str = OK
    advice: str = ""
    value: float | None = None
    unit: str = ""


def speed(section: str, name: str, value: float, *, unit: str, least: float = 0.0, advice: str = "") -> Row:
    """Return the row of a measured speed, slow if it is less than `least`."""
    slow = value < least
    figure = f"{number(value)} {unit}"
    if slow:
        figure += f", expected at least {number(least)}"
    return Row(section, name, figure, SLOW if slow else OK, advice if slow else "", value, unit)


def number(value: float) -> str:
    """Return a number with three digits, or with all of those before the decimal point."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def attempt(section: str, name: str, check: Callable[[], Row | Iterable[Row]], *, advice: str = "") -> list[Row]:
    """Return the rows of a check, or one row with the reason if it raises an error. advice: if it does."""
    try:
        found = check()
        return [found] if isinstance(found, Row) else list(found)
    except ModuleNotFoundError as error:
        return [Row(section, name, f"{error.name} is not installed", ABSENT)]
    except MemoryError:
        return [Row(section, name, "not enough free memory", ABSENT)]
    except Exception as error:  # the other checks go on, whatever a library raises
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which this module does not import
            return [Row(section, name, "not enough free GPU memory: another program uses it", ABSENT)]
        return [Row(section, name, reason_of(error), WRONG, advice)]


def reason_of(error: BaseException) -> str:
    """Return the class and the first line of the message of an error."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= REASON_LETTERS else f"{text[:REASON_LETTERS]}..."
