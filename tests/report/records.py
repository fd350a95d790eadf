"""Tables as tests read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kt_cli.report.query import Query
from kt_cli.report.read import read_results
from kt_cli.report.table import DEFAULT_NAMES, Table
from kt_cli.report.tables import build, needs


def sweep_tables(
    paths: Iterable[Path], names: Sequence[str] | None = None, query: Query = Query()
) -> list[Table]:
    """The tables `names`, or those shown by default, of the sweeps in `paths`."""
    return build(read_results(paths, needs(names or DEFAULT_NAMES, query), query), names, query)


def records(table: Table) -> list[dict[str, Any]]:
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]
