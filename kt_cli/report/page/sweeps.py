"""Where the numbers come from: each sweep's configuration, software, devices, dates, counts."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

import pandas as pd

from kt_cli.report.page.blocks import Section
from kt_cli.rows import store

# All configurations together: one that names thousands of models is no reading matter.
LONGEST = 500_000
RUNS = {"pretrain": "models trained", "models": "models evaluated", "complementarity": "pairs",
        "transfer": "transfers"}  # fmt: skip
SOFTWARE = {"kt_version": "kt", "torch_version": "torch", "timm_version": "timm",
            "git_commit": "commit"}  # fmt: skip


def sweeps_section(frames: Mapping[str, pd.DataFrame], folders: Mapping[str, Path]) -> Section:
    blocks = []
    longest = LONGEST // max(len(folders), 1)
    for i, (label, folder) in enumerate(folders.items(), 1):
        own = {table: _own(rows, label) for table, rows in frames.items() if len(rows)}
        facts = "".join(
            f"<div><dt>{escape(term)}</dt><dd>{escape(value)}</dd></div>"
            for term, value in provenance(own).items()
            if value
        )
        about = f"<dl>{facts}</dl>{_configuration(folder, longest)}"
        blocks.append(f'<article id="sweep-{i}"><h3>{escape(label)}</h3>{about}</article>')
    return Section("sweeps", "Sweeps", "\n".join(blocks))


def _own(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """The rows of one sweep, only the columns that `provenance` looks at: they may be millions."""
    columns = [c for c in ("status", "created", "device", *SOFTWARE) if c in rows]
    return rows.loc[rows["sweep"] == label, columns]


def provenance(frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """What the rows of one sweep say of themselves, as term and text."""
    rows = ", ".join(
        _counted(frames[table], what) for table, what in RUNS.items() if len(frames.get(table, ()))
    )
    versions = {
        name: ", ".join(sorted(_distinct(frames, column))) for column, name in SOFTWARE.items()
    }
    return {
        "rows": rows,
        "written": " to ".join(_dates(frames)),
        "software": "; ".join(f"{name} {said}" for name, said in versions.items() if said),
        "devices": ", ".join(sorted(_distinct(frames, "device"))),
    }


def _counted(rows: pd.DataFrame, what: str) -> str:
    failed = int((rows["status"] != store.OK).sum())
    return f"{len(rows) - failed:,} {what}" + (f" ({failed:,} failed)" if failed else "")


def _dates(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """The days of the first and of the last row, once where they are the same."""
    written = [rows["created"].dropna() for rows in frames.values() if "created" in rows]
    moments = [moment for known in written if len(known) for moment in (known.min(), known.max())]
    return list(dict.fromkeys([min(moments)[:10], max(moments)[:10]])) if moments else []


def _distinct(frames: Mapping[str, pd.DataFrame], column: str) -> set[str]:
    found = (rows[column].dropna().unique() for rows in frames.values() if column in rows)
    return {str(value) for values in found for value in values}


def _configuration(folder: Path, longest: int) -> str:
    try:
        text = (folder / "sweep.toml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return '<p class="caption">It has no sweep.toml: its rows come from single commands.</p>'
    if len(text) > longest:
        text = f"{text[:longest]}\n# … {len(text) - longest:,} characters more"
    return (
        f"<details><summary>Configuration (sweep.toml)</summary>"
        f'<div class="box" tabindex="0" role="region" aria-label="sweep.toml">'
        f"<pre>{escape(text)}</pre></div></details>"
    )
