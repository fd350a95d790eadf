"""Pieces of the page that several of its parts share."""

from __future__ import annotations

import base64
import gzip
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


def zipped(data: bytes) -> str:
    """What page.js unpacks: base64 of gzip, the same for the same data."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()
