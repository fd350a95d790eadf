"""Columns of rows that several kinds of runs have, or that take some work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kt_cli.data.sources import open_data
from kt_cli.distillation.train import Curve
from kt_cli.rows import schema
from kt_cli.settings import DataSpec, EvalSpec
from kt_cli.spec import TOGETHER, Model

Row = dict[str, Any]


def setting_columns(settings: Any, table: str) -> Row:
    return {name: v for name, v in asdict(settings).items() if name in schema.TABLES[table]}


def data_columns(data: DataSpec, how: EvalSpec) -> Row:
    images = open_data(data).eval
    return {
        "data": data.source,
        "eval_data": images.fingerprint,
        "eval_size": how.size,
        "eval_amp": how.amp,
        "limit": data.limit,
        "n": len(images),
        "skipped": images.skipped,
        "num_classes": len(images.classes),
    }


def pair_columns(models: Sequence[Model]) -> Row:
    """Names and identities of the teachers and, last, the student."""
    *taught_by, student = models
    names, keys = [model.name for model in taught_by], [model.key for model in taught_by]
    return {
        "teacher": TOGETHER.join(names),
        "student": student.name,
        "teacher_key": TOGETHER.join(keys),
        "student_key": student.key,
        "teacher_names": names if len(names) > 1 else None,
        "teacher_keys": keys if len(keys) > 1 else None,
    }


def course_columns(curves: Sequence[Curve], order: Sequence[int], labelled: bool) -> Row:
    """Who taught how much, by teacher as they were named, and the curves one after the other."""
    losses = [loss for curve in curves for loss in curve.losses]
    shares = [float(np.mean(share)) for curve in curves for share in curve.shares]
    taught = [shares[order.index(i)] for i in range(len(order))]
    return {
        "share_taught": sum(taught) / len(curves),
        "teacher_shares": taught,
        "final_loss": losses[-1],
        "curve_loss": losses,
        "curve_acc": [a for curve in curves for a in curve.accuracies] if labelled else None,
        "curve_taught": [sum(at) for curve in curves for at in zip(*curve.shares, strict=True)],
        "waiting_share": sum(curve.waiting for curve in curves) / len(curves),
    }
