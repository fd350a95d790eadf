"""Find the knowledge that pretrained models do not share, and move it: docs/python.md.

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kt_cli.version import __version__

if TYPE_CHECKING:
    from kt_cli.api.complementarity import complementarity
    from kt_cli.api.explain import explain
    from kt_cli.api.pretrain import pretrain
    from kt_cli.api.results import results
    from kt_cli.api.sweep import sweep
    from kt_cli.api.teachers import teachers
    from kt_cli.api.transfer import transfer
    from kt_cli.api.transfer_both import transfer_both
    from kt_cli.errors import KtError, KtWarning

__all__ = [
    "KtError", "KtWarning", "__version__", "complementarity", "explain", "pretrain", "results",
    "sweep", "teachers", "transfer", "transfer_both",
]  # fmt: skip
ERRORS = ("KtError", "KtWarning")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kt_cli.{'errors' if name in ERRORS else f'api.{name}'}"), name)


def __dir__() -> list[str]:
    return __all__
