"""The order in which methods are shown."""

from __future__ import annotations

METHOD_ORDER = (
    "kl", "xekl", "kl-mcl", "xekl-mcl", "kl-dp", "kl-dp-u", "self", "flip-st", "flip-t",
    "flip-avg", "crd", "cd",
)  # fmt: skip


def method_rank(method: str) -> tuple[int, str]:
    """Sorts methods in the paper's order, each before its guarded one, then by name."""
    base = method.partition("+")[0]
    known = base in METHOD_ORDER
    return (METHOD_ORDER.index(base) if known else len(METHOD_ORDER), method)
