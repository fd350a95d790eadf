"""The worked example of CONTRIBUTING.md works."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kt_cli.distillation import methods, partition
from kt_cli.distillation.methods import LossInputs
from kt_cli.distillation.partition import SampleStats
from kt_cli.errors import UsageError
from kt_cli.settings import TransferSpec


def logits(seed: int) -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def example(repository: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example's method is in the table; gives the namespace with the example's test."""
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    function, entry, test = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    names = dict(vars(partition))
    exec(function, names)
    monkeypatch.setattr(partition, "where_right", names["where_right"], raising=False)
    for name, method in eval(f"{{{entry}}}", dict(vars(methods))).items():
        monkeypatch.setitem(methods.METHODS, name, method)
    (path,) = (repository / "tests" / "distillation").glob("test_partition.py")
    namespace = runpy.run_path(str(path))
    exec(test, namespace)
    return namespace


def test_the_example_passes_its_own_test(example: dict[str, Any]) -> None:
    example["test_the_teacher_teaches_what_it_has_right"]()


def test_the_example_is_a_method(example: dict[str, Any]) -> None:
    spec = TransferSpec(method="kl-right+guard")
    method = methods.find(spec.method)
    assert method is methods.METHODS["kl-right"] and methods.needs_frozen(spec)
    methods.require_possible(spec, 1, labelled=True)
    with pytest.raises(UsageError, match="needs labels"):
        methods.require_possible(spec, 1, labelled=False)
    labels, student, frozen, teacher = torch.arange(8) % 4, logits(0), logits(1), logits(2)
    said = [SampleStats.of(frozen, labels), SampleStats.of(teacher, labels)]
    weights, left_out = method.sources(spec, said)
    assert left_out is None and 0 < int(weights[:, 1].sum()) < 8
    target = torch.where(said[1].right[:, None], teacher, frozen)
    found = method.loss(LossInputs(student, target, None, labels, torch.arange(8)), spec)
    p, q = student.softmax(dim=1), target.softmax(dim=1)
    assert float(found) == pytest.approx(float((q * (q / p).log()).sum(dim=1).mean()), rel=1e-5)
