"""A page as a browser reads it, and the checks of its safety."""

import base64
import hashlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text outside style and script."""

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.raw: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, "some elements are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            self.raw[self._open[-1]] = self.raw.get(self._open[-1], "") + data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def read_page(path: Path | str) -> Page:
    return Page(Path(path).read_text(encoding="utf-8"))


def decoded_picture(uri: str) -> np.ndarray:
    """Return the picture in a data URI, decoded by OpenCV."""
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    return decoded


def link_targets(page: Page) -> Iterator[str]:
    """Yield the values of all attributes that can load something."""
    for _, attributes in page.elements:
        yield from (attributes[name] for name in ("src", "href", "srcset", "xlink:href", "data") if name in attributes)


def check_loads_nothing(page: Page) -> None:
    """Check that a page loads nothing and runs only its own script."""
    assert all(value.startswith(("data:", "#")) for value in link_targets(page))
    content = " ".join([page.raw["style"], *(" ".join(attributes.values()) for _, attributes in page.elements)])
    assert "://" not in content
    assert "@import" not in content
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    script = base64.b64encode(hashlib.sha256(page.raw["script"].encode()).digest()).decode()
    expected = ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{script}'")
    assert [rule.strip() for rule in policy.split(";")][:4] == list(expected)
    assert len(page.all("script")) == 1
