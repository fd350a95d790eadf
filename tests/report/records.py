"""Tables as tests read them."""

from __future__ import annotations

from typing import Any

from kt_cli.report.table import Table


def records(table: Table) -> list[dict[str, Any]]:
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]
