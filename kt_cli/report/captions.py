"""What stands around a table or a plot: which rows it is about, and what these leave out."""

from __future__ import annotations

from kt_cli.errors import counted
from kt_cli.report.groups import JOINED, Group
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Cell

# Rows of each table: what one is called, and a run of it that failed.
NOUNS = {
    "transfer": ("transfer", "transfer"),
    "complementarity": ("ordered pair", "run"),
    "models": ("model", "model"),
}


def caption(group: Group) -> str:
    about = group.about
    what = f"{_number(about['images'])} evaluation images"
    if "settings" in about:
        what = f"{_number(about['images'])} evaluation and {_number(group.first('n_train'))}"
        what += f" transfer images, settings {about['settings']}"
    differs = f"; {group.differs}" if group.differs else ""
    return f"Sweep {about['sweep']} on {about['data']} ({what}{differs})"


def _number(count: Cell) -> str:
    """Rows of another version may not tell."""
    return f"{int(count):,}" if isinstance(count, (int, float)) else "unknown"


def general_notes(group: Group, results: Results, query: Query, table: str) -> list[str]:
    """What the group's rows of `table` leave out: failed runs, by --limit or --where, unread."""
    notes = _failed_note(group, results, table)
    limit = group.about["limit"]
    if limit is not None:
        notes.append(
            f"Evaluated with --limit {limit}, on {_number(group.about['images'])} images only: "
            "not comparable with results on all of them."
        )
    if query.where and (lacking := query.lacks(table)):
        lacks = " and no ".join(lacking)
        notes.append(f"Not chosen by {query.where}: these rows have no {lacks}.")
    elif query.where:
        count = counted(results.filtered.get(table, 0), NOUNS[table][0])
        notes.append(f"Only where {query.where}, which leaves out {count} of all that were read.")
    if results.skipped:
        files = counted(len(results.skipped), "file")
        notes.append(f"Left out: the rows of {files} that cannot be read.")
    return notes


def _failed_note(group: Group, results: Results, table: str) -> list[str]:
    """How many runs failed in the group's sweep and, where rows have them, settings and method."""
    about, failed = group.about, results.failed(table)
    failed = failed[failed["sweep"] == about["sweep"]]
    where = "of this sweep"
    if "settings" in about:
        failed = failed[failed["settings"].isin(str(about["settings"]).split(JOINED))]
        where = "with these settings"
    if "method" in about:
        failed = failed[failed["method"] == about["method"]]
    if failed.empty:
        return []
    return [f"Left out: {counted(len(failed), f'failed {NOUNS[table][1]}')} {where}."]
