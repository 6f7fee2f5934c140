"""Reading Prometheus's text format, as Envoy writes it."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_SAMPLE: Final = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")


class Sample(NamedTuple):
    """One series' value."""

    name: str
    labels: dict[str, str]
    value: float


def read_samples(text: str) -> Iterator[Sample]:
    """Every sample of a page."""
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match is not None:
            labels = {name: _ESCAPED.sub(_plain, value) for name, value in _LABEL.findall(match["labels"] or "")}
            yield Sample(match["name"], labels, float(match["value"]))


def _plain(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
