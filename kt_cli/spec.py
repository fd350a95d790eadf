"""What is asked for, as small frozen values, and the identity of a run.

A `Run` is one unit of work. Its `id` is a hash over every field that can change its result and
over none that cannot: fields marked EXCLUDED (where a model lies, how it is called, on which
machine it runs) stay out of it, so moving a zoo to another folder keeps its finished runs, and
retraining a model does not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

from kt_cli.settings import NO_DATA, DataSpec, PairsSpec
from kt_cli.settings.declared import Settings, digest, signature

EXCLUDED = {"identity": False}
TOGETHER = " + "  # between the names of several teachers in a row
S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Model:
    """A model by what it is, where it comes from and how it is called."""

    # The timm or hub name with its tag; for weights of the user's own, a hash of their content.
    key: str
    # What `kt_cli.zoo.load.load` takes; see docs/guide.md (Models).
    ref: str = field(default="", metadata=EXCLUDED)
    name: str = field(default="", metadata=EXCLUDED)  # short and unique within a command

    @property
    def untrained(self) -> bool:
        """Whether it is randomly initialised: a baseline that only ever teaches."""
        return self.key.startswith("random:")


@dataclass(frozen=True)
class RunOf(Generic[S]):
    """One unit of work of a sweep."""

    kind: str  # a name of `kt_cli.runs.kinds.KINDS`
    # predict: the model; pairs: all of them; transfer: the teachers, then the student.
    models: tuple[Model, ...]
    # Fingerprint of the images that the run reads: evaluation and, where it trains, training
    # images after subsetting.
    data_id: str
    settings: S
    data: DataSpec = field(default=NO_DATA, metadata=EXCLUDED)  # where the images are
    out: str = field(default="", metadata=EXCLUDED)  # folder of the model that it saves
    attempt: int = field(default=1, metadata=EXCLUDED)  # this one, counted from 1

    @cached_property
    def id(self) -> str:
        return digest(signature(replace(self, settings=self.settings.identity)))[:16]

    def to_json(self) -> str:
        # As asdict, which copies each value: a stage may have 90,000 runs.
        return json.dumps(self, default=_fields, sort_keys=True)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


Run = RunOf[Any]  # of whichever kind


def pair_id(teacher: Model, student: Model, data_id: str, settings: PairsSpec) -> str:
    """Identity of one ordered pair's complementarity row."""
    return digest(["pair", teacher.key, student.key, data_id, settings.identity])[:16]
