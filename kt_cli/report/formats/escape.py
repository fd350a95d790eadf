"""Text for LaTeX."""

from __future__ import annotations

import re

ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "`": r"\textasciigrave{}",
    "ρ⁺": r"$\rho^{+}$", "ρ⁻": r"$\rho^{-}$", "ρ": r"$\rho$", "Δ": r"$\Delta$", "κ": r"$\kappa$",
    "λ": r"$\lambda$", "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "·": r"$\cdot$", "–": "--", "—": "---", "’": "'", "‘": "`",
    "“": "``", "”": "''", "…": r"\ldots{}", "-": "-{}", "\n": " ", "\t": " ", "\u00a0": "~",
}  # fmt: skip
# What OT1 fonts can set besides ASCII.
LATIN = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ"
SPECIAL = "|".join(re.escape(key) for key in ESCAPES if key != "-")
PATTERN = re.compile(rf"{SPECIAL}|-(?=-)|[^ -~{LATIN}]")


def escape(text: str) -> str:
    """`text` as LaTeX that sets exactly it; a character without a glyph is named by its code."""

    def replacement(match: re.Match[str]) -> str:
        found = match.group()
        return ESCAPES.get(found) or rf"\texttt{{U+{ord(found):04X}}}"

    return PATTERN.sub(replacement, text)


def breakable(text: str) -> str:
    """Escaped text that may be broken inside paths and long names."""
    return re.sub(r"(?<=\S)(/|\\_|(?<=[a-z])\.(?=[a-z]))(?=\S)", r"\1\\allowbreak{}", escape(text))
