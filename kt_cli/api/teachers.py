"""Which of many models could make one student better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kt_cli.api import Reference
from kt_cli.errors import DataError, KtError, UsageError, counted, warn
from kt_cli.progress import Progress, silent
from kt_cli.settings import DataSpec, EvalSpec, TransferSpec
from kt_cli.settings.data import data_spec
from kt_cli.settings.declared import by_keyword, check, declared
from kt_cli.settings.values import plain, texts
from kt_cli.spec import Model

if TYPE_CHECKING:
    import pandas as pd

    from kt_cli.knowledge.predictions import Predictions
    from kt_cli.knowledge.teaching import Measured, Teaching

SHOWN = 20  # teachers of a ranking on the screen
METHOD = {True: "kl-dp", False: "kl-dp-u"}  # that is recommended, with labels and without


@dataclass(frozen=True)
class Ranking:
    """Teachers for a student, from the best to the worst.

    Attributes:
        student: the model. teachers: those that could be evaluated, ranked.
        teaching: what they say, and all that is computed of it, in the order of `teachers`.
        measured: what earlier transfers of the student by each came to; None where there are none.
        team: of teachers, as places in the ranking, the most useful first.
        data, size: the images, and at which size models saw them.
        alone: mean Δ in points of what moved the student with nobody teaching it, as far as earlier
            transfers tell: its running statistics estimated anew ("statistics"), `self` ("self").
        settings: of the earlier transfer by each teacher that moved the student up most, by the
            teacher's key.
    """

    student: Model
    teachers: tuple[Model, ...]
    teaching: Teaching
    measured: tuple[Measured | None, ...]
    team: tuple[int, ...]
    data: DataSpec
    size: str
    alone: Mapping[str, float]
    settings: Mapping[str, Mapping[str, Any]]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each teacher, ranked: its scores in percent, and Δ that was measured."""
        import pandas as pd

        return pd.DataFrame({
            "teacher": [model.name for model in self.teachers], **self.teaching.scores,
            "delta": [one.delta if one else None for one in self.measured],
            "transfers": [one.count if one else 0 for one in self.measured],
        })  # fmt: skip

    def __repr__(self) -> str:
        return f"{self._about}\n{self.table.round(2).to_string(index=False, max_rows=SHOWN)}"

    def _repr_html_(self) -> str:
        table = self.table.round(2).to_html(index=False, max_rows=SHOWN)
        return f"<p>{escape(self._about)}</p>{table}"

    @property
    def _about(self) -> str:
        worth = f"{len(self.worth)} of {counted(len(self.teachers), 'teacher')} worth a try"
        return f"{self.student.name}: {self.teaching.n:,} images, {worth}"

    @property
    def predictor(self) -> str:
        """The name of what they are ranked by."""
        from kt_cli.knowledge.teaching import RANKED_BY

        return RANKED_BY[self.teaching.labelled]

    @cached_property
    def worth(self) -> tuple[int, ...]:
        """Places of those that are worth a try.

        Those that helped before, none that harmed. Of the others with labels those of whom what
        they know within the student's reach would show, if all of it came over and nothing was
        lost; without, those that are ever ahead.
        """
        from kt_cli.knowledge.teaching import CONFIDENT, REACHABLE

        scores = self.teaching.scores[REACHABLE if self.teaching.labelled else CONFIDENT]
        signs = [0 if known is None else known.sign for known in self.measured]
        enough = self.teaching.visible if self.teaching.labelled else bool
        return tuple(
            i for i, (score, sign) in enumerate(zip(scores, signs, strict=True))
            if sign > 0 or (sign == 0 and enough(score))
        )  # fmt: skip

    def command(self) -> str:
        """What to run: the team where there is one, else the first that is worth a try; or "".

        What helped before is done as it was.
        """
        chosen = [i for i in self.team if i in self.worth] or list(self.worth[:1])
        if not chosen:
            return ""
        from kt_cli.runs.command import taught

        first, known = self.teachers[chosen[0]], self.measured[chosen[0]]
        before = self.settings.get(first.key, {}) if known and known.sign > 0 else {}
        how = TransferSpec(**{
            **before, "together": "parallel" if len(chosen) > 1 else "single",
            "eval_size": self.size, "method": METHOD[self.teaching.labelled],
        })  # fmt: skip
        return taught([*(self.teachers[i] for i in chosen), self.student], self.data, how)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {
            "student": self.student.name,
            "accuracy": self.teaching.student.accuracy if self.teaching.labelled else None,
            "n": self.teaching.n, "predictor": self.predictor, "teachers": rows,
            "alone": dict(self.alone),
            "worth": [self.teachers[i].name for i in self.worth],
            "team": [self.teachers[i].name for i in self.team], "command": self.command(),
        }  # fmt: skip


def teachers(
    student: Reference,
    among: Sequence[Reference] | Reference,
    *,
    team: int = 1,
    labels: bool = True,
    results: Sequence[Reference] | Reference | None = None,
    cached_only: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> Ranking:
    """Rank models by what they could teach a student, from predictions; docs/teachers.md.

    Args:
        student, among: models as on the command line; the student itself is left out.
        team: teachers of the team that covers the most, with labels.
        labels: whether the labels of the images may be used.
        results: folders with earlier transfers, by default results where it is there; [] for none.
        cached_only: predict nothing: take what the cache has.
        settings: as the options of `kt teachers` (docs/settings.md): data=…, limit=…

    Raises:
        UsageError: the models, the settings and the data do not go together.
        KtError: the student cannot be evaluated.
    """
    how, given = by_keyword(settings, EvalSpec, DataSpec)
    check(spec := EvalSpec(**how))
    if team > 1 and not labels:
        raise UsageError("a team is chosen by labels", "Leave out --team, or --no-labels.")
    taught, others = _resolved(texts(student), texts(among))
    from kt_cli.api.complementarity import images_of
    from kt_cli.knowledge import predict
    from kt_cli.knowledge.teaching import Teaching, by_teacher, ranked

    mode = predict.CACHED_ONLY if cached_only else predict.REUSE
    asked = predict.How(spec, mode=mode, top5=False)
    images = images_of([taught, *others], given, asked)
    if labels and not images.labelled:
        raise UsageError("the images have no labels", "Add --no-labels.")
    own, *said = predict.predict_all([taught, *others], images, asked, progress)
    if isinstance(own, Exception):
        raise own
    usable = _usable(others, said)
    found = Teaching(own, [one for _, one in usable], labels)
    data = data_spec(given)
    earlier = _earlier(taught, data.source, results)
    taught_so = None if earlier is None else earlier[earlier["method"] == METHOD[labels]]
    measured = by_teacher(_by_teacher(taught_so), [m.key for m, _ in usable])
    order = ranked(found.ranking, measured)
    sorted_ = Teaching(own, [usable[i][1] for i in order], labels)
    chosen = sorted_.team(team) if labels and team > 1 else []
    return Ranking(
        taught, tuple(usable[i][0] for i in order), sorted_, tuple(measured[i] for i in order),
        tuple(chosen), data, spec.size, _alone(earlier), _settings(taught_so),
    )  # fmt: skip


def _usable(
    models: Sequence[Model], said: Sequence[Predictions | Exception]
) -> list[tuple[Model, Predictions]]:
    usable = []
    for model, found in zip(models, said, strict=True):
        if isinstance(found, Exception):
            warn(f"{model.name} is left out: {found}")
        else:
            usable.append((model, found))
    if not usable:
        raise DataError("none of the teachers could be evaluated", "The notes above say why.")
    return usable


def _resolved(student: Sequence[str], among: Sequence[str]) -> tuple[Model, list[Model]]:
    from kt_cli.zoo import names

    names.single(student[0])  # refuses several
    # Each once, with names that tell apart.
    taught, *others = names.resolve([*student, *among], needed=2)
    names.refuse_predictions([taught, *others], "kt teachers")
    if not others:
        raise UsageError(f"{taught.name} alone has no teacher", "Name others with --among.")
    return taught, others


def _earlier(
    student: Model, data: str, results: Sequence[Reference] | Reference | None
) -> pd.DataFrame | None:
    """Rows of transfers into the student on the data, in result folders; None for no folders."""
    from kt_cli.api.results import RESULTS
    from kt_cli.api.results import results as read

    folders = [RESULTS] if results is None else [Path(one) for one in texts(results)]
    if not folders or (results is None and not RESULTS.is_dir()):
        return None
    try:
        rows = read(*folders, all_rows=True).rows("transfer")
    except KtError:
        if results is not None:
            raise
        return None  # nothing was transferred there yet
    same = (rows["student_key"] == student.key) & (rows["data"] == data)
    return rows[same & rows["delta"].notna()]


def _by_teacher(rows: pd.DataFrame | None) -> list[tuple[str, float, float]]:
    if rows is None:
        return []
    columns = (rows[name] for name in ("teacher_key", "delta", "transfer_p"))
    return [(str(key), float(d), float(p)) for key, d, p in zip(*columns, strict=True)]


def _settings(rows: pd.DataFrame | None) -> dict[str, dict[str, Any]]:
    """By teacher, the settings of the transfer with the largest Δ, as far as its row has them."""
    if rows is None:
        return {}
    best = rows.sort_values("delta").drop_duplicates("teacher_key", keep="last")
    fields = {name: one for name, one in declared(TransferSpec).items() if name in best}
    return {
        str(key): {
            # A column with nulls has whole numbers as floats.
            name: int(v) if int in one.types and isinstance(v, float) else plain(v)
            for (name, one), v in zip(fields.items(), row, strict=True) if v is not None and v == v
        }
        for key, *row in best[["teacher_key", *fields]].astype(object).itertuples(index=False)
    }  # fmt: skip


def _alone(rows: pd.DataFrame | None) -> dict[str, float]:
    """What moved the student with nobody teaching it: mean Δ in points, of what is known."""
    if rows is None:
        return {}
    itself = rows["delta"][rows["method"] == "self"]
    known = {"statistics": rows["delta_control"].dropna(), "self": itself}
    return {name: float(values.mean()) for name, values in known.items() if len(values)}
