"""Standard output and error that lack signs, as under latin-1 or C: others in their place."""

from __future__ import annotations

import codecs
import sys
import unicodedata

from kt_cli.files import escaped

PLAINER = "kt.plainer"
PLAIN = {
    "Δ": "D", "ρ": "rho", "κ": "kappa", "τ": "tau", "λ": "lambda", "→": "->", "–": "-", "—": "-",
    "−": "-", "×": "x", "·": "|", "±": "+-", "≥": ">=", "≤": "<=", "≠": "!=", "“": '"', "”": '"',
    "‘": "'", "’": "'",
}  # fmt: skip


def tolerate() -> None:
    """Replace what the streams cannot encode, rather than fail."""
    codecs.register_error(PLAINER, plainer)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=PLAINER)


def plainer(error: UnicodeError) -> tuple[str, int]:
    """Close signs of ASCII for those that could not be encoded, else ?; and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":  # of a file's name that is not UTF-8
        return escaped(sign)
    letter = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return PLAIN.get(sign) or letter or "?"
