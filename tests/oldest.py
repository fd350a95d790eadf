"""The oldest versions that pyproject.toml allows, as requirements for pip: `make oldest` has them.

python -m tests.oldest
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
TOOLS = ("pytest", "pytest-xdist", "hypothesis", "selenium", "html5lib")  # as new as they come


def requirements() -> list[str]:
    """`name==version; marker` of what the package and its extras need, and what tests need."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["clip"], *extras["hf"]]
    return [re.sub(r"\s*>=\s*", "==", one) for one in needed] + list(TOOLS)


if __name__ == "__main__":
    print("\n".join(requirements()))
