"""Columns that rows do not have but that follow from them: families, kinds, sizes, who is stronger.

kt report accepts them wherever it takes a column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from kt_cli.rows.condition import Kind
from kt_cli.rows.scan import texts_dtype
from kt_cli.zoo.imagenet_facts import fact, facts

EQUAL_WITHIN = 0.5  # percentage points
STRONGER = pd.CategoricalDtype(["stronger", "equal", "weaker"], ordered=True)
# Derived column: what it holds, and the stored columns that it follows from.
KINDS: dict[str, Kind] = {
    "teacher_family": "text", "student_family": "text",
    "teacher_type": "text", "student_type": "text",
    "stronger": "text",
    "teacher_params_m": "number", "student_params_m": "number",
}  # fmt: skip
MODEL_NEEDS = {"teacher_params_m": ("params_m",), "student_params_m": ("params_m",)}

# What stands before the family in timm's names.
MAKERS = (
    "tf", "gluon", "legacy", "ig", "swsl", "ssl", "wide", "dm", "ese", "eca", "test", "nf", "adv",
)  # fmt: skip
OWN_SPELLING = re.compile(r"(res2ne[x]?t|cs3[a-z]+|tiny_vit|halo2botnet|lamhalobotnet)")
TRANSFORMERS = frozenset((
    "beit", "cait", "coat", "crossvit", "davit", "deit", "eva", "flexivit", "gcvit", "hiera",
    "mvit", "naflexvit", "nest", "pit", "pvt", "swin", "tnt", "twins", "vit", "vitamin", "volo",
    "xcit",
))  # fmt: skip
MLPS = frozenset(("gmixer", "gmlp", "mixer", "resmlp"))
HYBRIDS = frozenset((
    "botnet", "caformer", "coatnet", "coatnext", "convit", "edgenext", "efficientformer",
    "efficientvit", "fastvit", "halo2botnet", "halonet", "lamhalobotnet", "levit", "maxvit",
    "maxxvit", "mobilevit", "nextvit", "sebotnet", "sehalonet", "sequencer", "shvit",
    "swiftformer", "tiny_vit", "visformer",
))  # fmt: skip


def family(name: str) -> str:
    """The architecture's family: `resnet` of wide_resnet50_2, `vit` of vit_base_patch16_224."""
    reference = name.lower().partition("@")[0].rpartition(":")[2].rpartition("/")[2]
    name = re.split(r"[#. ]", reference)[0]
    rest = re.sub(rf"^(?:{'|'.join(MAKERS)})_", "", name)
    special = OWN_SPELLING.match(rest)
    if special:
        return special.group(1)
    stem = re.match(r"([a-z]+?)(?:v?\d.*|_.*|-.*)?$", rest)
    return stem.group(1) if stem else rest


def architecture_type(name: str) -> str | None:
    """`cnn`, `transformer`, `mlp` or `hybrid` (convolution and attention); None if unknown."""
    of = family(name)
    for families, type_ in ((TRANSFORMERS, "transformer"), (MLPS, "mlp"), (HYBRIDS, "hybrid")):
        if of in families:
            return type_
    return "cnn" if of in _published_families() else None


@lru_cache(maxsize=1)
def _published_families() -> frozenset[str]:
    return frozenset(family(published.model) for published in facts())


def derived(rows: pd.DataFrame, names: Iterable[str], models: pd.DataFrame) -> pd.DataFrame:
    """Rows of pairs or transfers with those of `names` added that are derived columns.

    Several teachers have their common family and type, or `mixed`; their parameters are summed.

    Args:
        models: rows of models, for parameters; those of timm's models are known without.
    """
    return rows.assign(**{name: _column(rows, name, models) for name in names if name in KINDS})


def _column(rows: pd.DataFrame, name: str, models: pd.DataFrame) -> pd.Series:
    if name == "stronger":
        difference = rows["acc_diff"].to_numpy(dtype=float)
        sides = [difference > EQUAL_WITHIN, difference < -EQUAL_WITHIN, ~np.isnan(difference)]
        codes = np.select(sides, [0, 2, 1], -1).astype(np.int8)
        return pd.Series(pd.Categorical.from_codes(codes, dtype=STRONGER), rows.index)
    role, _, what = name.partition("_")
    if what == "params_m":
        of, text = _parameters(models), f"{role}_key"
        return _numbers(rows[text], lambda keys: sum(map(of, keys)), members(rows, text))
    of_name = family if what == "family" else architecture_type
    return _by_value(rows[role], lambda names: _common(map(of_name, names)), members(rows, role))


def members(rows: pd.DataFrame, text: str) -> Mapping[str, Sequence[str]]:
    """The teachers behind each text of a column that stands for several of them."""
    listed = {"teacher": "teacher_names", "teacher_key": "teacher_keys"}.get(text)
    if listed is None or listed not in rows:
        return {}
    several = rows[[text, listed]].dropna().drop_duplicates(text)
    return dict(zip(several[text].astype(str), several[listed], strict=True))


def _common(values: Iterable[str | None]) -> str | None:
    found = set(values)
    return found.pop() if len(found) == 1 else "mixed"


def _parameters(models: pd.DataFrame) -> Callable[[str], float]:
    """Millions of parameters of the model with this identity."""
    known: dict[str, float] = {}
    if "params_m" in models:
        once = models.dropna(subset=["params_m"]).drop_duplicates("model_key")
        known = dict(zip(once["model_key"].astype(str), once["params_m"], strict=True))

    def one(key: str) -> float:
        if key in known:
            return float(known[key])
        published = fact(key)
        return published.params_m if published else float("nan")

    return one


def _by_value(
    values: pd.Series,
    of: Callable[[Sequence[str]], str | None],
    members: Mapping[str, Sequence[str]],
) -> pd.Series:
    """`of` the members of each value, itself where it has none; asked once for each that occurs."""
    codes, occurring = pd.factorize(values)
    found = [of(members.get(value, [value])) for value in map(str, occurring)]
    dtype = texts_dtype(value for value in found if value is not None)
    places = np.append(dtype.categories.get_indexer(pd.Index(found, dtype=object)), -1)
    return pd.Series(pd.Categorical.from_codes(places[codes], dtype=dtype), values.index)


def _numbers(
    values: pd.Series,
    of: Callable[[Sequence[str]], float],
    members: Mapping[str, Sequence[str]],
) -> pd.Series:
    """As `_by_value`, of numbers."""
    codes, occurring = pd.factorize(values)
    found = np.array([*(of(members.get(v, [v])) for v in map(str, occurring)), np.nan])
    return pd.Series(found[codes], values.index)
