"""Names of models: one for each, and two for two, since a retrained one may bear the old name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kt_cli.report.codes import Cells
from kt_cli.rows.scan import is_texts, texts_dtype
from kt_cli.settings.declared import digest

ROLES = (
    ("models", "model"),
    ("complementarity", "teacher"), ("complementarity", "student"),
    ("transfer", "teacher"), ("transfer", "student"),
)  # fmt: skip


def is_label(text: str) -> bool:
    """Whether a text may be a name that was made here."""
    return unlabelled(text) != text


def unlabelled(text: str) -> str:
    """A text without what is put behind names here."""
    return re.sub(r" \(.{1,8}\)$", "", text)


def labelled(frames: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables of one sweep, with one name for each model and one list of names for all."""
    labels = _labels(frames)
    named = [frames[table][role].cat.categories for table, role in ROLES]
    dtype = texts_dtype([*labels.values(), *(name for names in named for name in names)])
    keys = texts_dtype(
        key for table, role in ROLES for key in frames[table][f"{role}_key"].cat.categories
    )
    found = dict(frames)
    for table, role in ROLES:
        rows = found[table]
        names = _named(rows[role], rows[f"{role}_key"], labels, dtype)
        found[table] = rows.assign(**{role: names, f"{role}_key": rows[f"{role}_key"].astype(keys)})
    return found


def _labels(frames: dict[str, pd.DataFrame]) -> dict[str, str]:
    """The label of each identity: its name, with the end of the identity where two share it."""
    names: dict[str, str] = {}
    transfers = frames["transfer"]
    several = set(transfers["teacher_key"][transfers["teacher_keys"].notna()])
    for table, role in ROLES:
        rows = frames[table][[role, f"{role}_key"]].dropna()
        once = rows.iloc[Cells.of(rows, [*rows]).rows].astype(str)
        for name, identity in once.itertuples(index=False):
            names[identity] = min(name, names.get(identity, name))
    shared = pd.Series(names, dtype=object).duplicated(keep=False)
    # Of several teachers all count, not the last one alone.
    ends = {key: digest(key)[:8] if key in several else key[-8:] for key in names}
    return {key: f"{name} ({ends[key]})" if shared[key] else name for key, name in names.items()}


def _named(
    names: pd.Series[Any], keys: pd.Series[Any], labels: dict[str, str], dtype: pd.CategoricalDtype
) -> pd.Series[Any]:
    """The label of each row's identity; its name where that is unknown."""
    by_name = dtype.categories.get_indexer(names.cat.categories)
    called = [labels.get(key) for key in keys.cat.categories]
    by_key = dtype.categories.get_indexer(pd.Index(called, dtype=object))
    own = np.append(by_name, -1)[names.cat.codes]
    codes = np.append(by_key, -1)[keys.cat.codes]
    return pd.Series(
        pd.Categorical.from_codes(np.where(codes >= 0, codes, own), dtype=dtype), names.index
    )


def concat(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several sweeps; categories become those of all."""
    filled = [frame for frame in frames if len(frame)]
    if len(filled) < 2:
        return filled[0] if filled else frames[0]
    texts = {
        name: texts_dtype(text for frame in filled for text in frame[name].cat.categories)
        for name in filled[0]
        if is_texts(filled[0][name])
    }
    return pd.concat([frame.astype(texts) for frame in filled], ignore_index=True)
