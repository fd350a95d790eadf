"""Pieces of the page that several of its parts share."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; its `html` is finished markup."""

    anchor: str
    title: str
    html: str

    def markup(self) -> str:
        return (
            f'<section id="{self.anchor}" aria-labelledby="{self.anchor}-heading">'
            f'<h2 id="{self.anchor}-heading">{escape(self.title)}</h2>\n{self.html}</section>'
        )


def identifiers(names: Sequence[str]) -> list[str]:
    """An id for each of `names`, which may repeat."""
    return [f"{name}-{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def definitions(facts: Mapping[str, str]) -> str:
    """A list of terms and what they are; terms without a value are left out."""
    items = "".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(value)}</dd></div>"
        for term, value in facts.items()
        if value
    )
    return f"<dl>{items}</dl>"


def zipped(data: bytes) -> str:
    """What page.js unpacks: base64 of gzip, the same for the same data."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()
