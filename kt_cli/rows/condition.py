"""Conditions on rows, such as `method == 'kl-dp' and teacher_acc < student_acc`.

Python's own grammar, of which only columns, numbers, texts, comparisons, arithmetic and
`and`, `or`, `not`, `in`, `is None` are understood; pyarrow decides them. Nothing is ever run.
"""

from __future__ import annotations

import ast
import functools
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from kt_cli.errors import UsageError, unknown

Kind = Literal["number", "text", "truth", "list", "null"]
KINDS: dict[str, Kind] = {"string": "text", "int64": "number", "double": "number", "bool": "truth"}
LARGEST = 10**300  # of whole numbers: a float holds little more
ONLY_NULL = "lists can only be compared with None"
WHERE_COLUMNS_ARE = "docs/reports.md says what can be asked, results/README.md has all columns."


@dataclass(frozen=True)
class Condition:
    """What of a condition holds by itself, with the columns and texts that it names, in order."""

    expression: pc.Expression
    columns: tuple[str, ...]
    texts: tuple[str, ...]


def parse(text: str, kinds: Mapping[str, Kind]) -> list[Condition]:
    """The conditions that all hold where `text` does: the sides of its outermost `and`.

    Args:
        kinds: the columns that there are, and what they hold.

    Raises:
        UnknownName: there is no such column; the tip names the nearest.
        UsageError: it is no condition, or not one that is understood; shows where.
    """
    text = re.sub(r"\s*\n\s*", " ", text.strip())
    try:
        tree = ast.parse(text, mode="eval").body
        # What stands behind it is part of a condition that is put into brackets.
        ast.parse(f"({text})", mode="eval")
    except SyntaxError as error:
        at = max((error.offset or 1) - 1, 0)
        raise _refusal(text, at, "not understood", _hint(text)) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _refusal(text, 0, "not understood") from error
    reader = _Reader(text, kinds)
    try:
        _, kind = reader.read(tree)
        found = [_condition(part, reader) for part in _conjuncts(tree)]
    except RecursionError:
        raise _refusal(text, 0, "nested too deeply") from None
    if kind != "truth":
        raise _refusal(text, 0, f"a {kind}, not a condition", "Compare it: delta > 0, for one.")
    if not any(part.columns for part in found):
        raise _refusal(text, 0, "it names no column", WHERE_COLUMNS_ARE)
    return found


def columns_of(conditions: Iterable[Condition]) -> list[str]:
    """The columns that conditions name, each once."""
    return list(dict.fromkeys(name for one in conditions for name in one.columns))


def _conjuncts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        return [part for value in node.values for part in _conjuncts(value)]
    return [node]


def _condition(node: ast.expr, reader: _Reader) -> Condition:
    parts = [part for part in ast.walk(node) if isinstance(part, ast.expr)]
    parts.sort(key=lambda part: part.col_offset)
    columns = dict.fromkeys(part.id for part in parts if isinstance(part, ast.Name))
    values = [part.value for part in parts if isinstance(part, ast.Constant)]
    texts = tuple(value for value in values if isinstance(value, str))
    return Condition(reader.read(node)[0], tuple(columns), texts)


def _hint(text: str) -> str:
    if "=" in re.sub("[=!<>]=", "", text):
        return "Compare with ==."
    if "&&" in text or "||" in text:
        return "Join conditions with and, or, not."
    return "An example: method == 'kl-dp' and acc_diff < 0"


def _refusal(text: str, at: int, why: str, tip: str = "") -> UsageError:
    return UsageError(f"--where: {why}:\n    {text}\n    {' ' * at}^", tip)


def _divide(one: pc.Expression, other: pc.Expression) -> pc.Expression:
    """x / 0 is null, which fits no comparison."""
    nothing = pc.scalar(pa.scalar(None, pa.float64()))
    return pc.divide(one, pc.if_else(other == pc.scalar(0.0), nothing, other))


COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], pc.Expression]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], pc.Expression]] = {
    ast.Add: pc.add, ast.Sub: pc.subtract, ast.Mult: pc.multiply, ast.Div: _divide,
}  # fmt: skip


class _Reader:
    """Turns Python's tree into an expression of pyarrow, with what it is: number, text, truth."""

    def __init__(self, text: str, kinds: Mapping[str, Kind]) -> None:
        self._text, self._kinds = text, kinds

    def read(self, node: ast.expr) -> tuple[pc.Expression, Kind]:
        match node:
            case ast.Name():
                return self._column(node)
            case ast.Constant():
                return self._constant(node)
            case ast.BoolOp():
                join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
                return functools.reduce(join, (self._of(v, "truth") for v in node.values)), "truth"
            case ast.UnaryOp(op=ast.Not()):
                return ~self._of(node.operand, "truth"), "truth"
            case ast.UnaryOp(op=ast.USub()):
                return pc.negate(self._of(node.operand, "number")), "number"
            case ast.BinOp() if type(node.op) in ARITHMETIC:
                # As floating point: pyarrow's integers would round and overflow.
                sides = (self._of(v, "number").cast(pa.float64()) for v in (node.left, node.right))
                return ARITHMETIC[type(node.op)](*sides), "number"
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
                raise self._refuse(node, "not understood", "Join conditions with and, or, not.")
            case ast.Compare():
                operands = [node.left, *node.comparators]
                pairs = zip(operands, node.ops, operands[1:], strict=False)
                return functools.reduce(operator.and_, (self._compare(*p) for p in pairs)), "truth"
        why = "only columns, values, comparisons and arithmetic are understood"
        raise self._refuse(node, why, WHERE_COLUMNS_ARE)

    def _refuse(self, node: ast.expr, why: str, tip: str = "") -> UsageError:
        before = self._text.encode()[: node.col_offset].decode(errors="ignore")
        return _refusal(self._text, len(before), why, tip)

    def _of(self, node: ast.expr, wanted: Kind) -> pc.Expression:
        found, kind = self.read(node)
        if kind != wanted:
            what = "condition" if wanted == "truth" else wanted
            raise self._refuse(node, f"a {kind} where a {what} is needed")
        return found

    def _column(self, node: ast.Name) -> tuple[pc.Expression, Kind]:
        kind = self._kinds.get(node.id)
        if kind is None:
            quoted = f"Text stands in quotes: '{node.id}'. {WHERE_COLUMNS_ARE}"
            raise unknown("column", node.id, self._kinds, quoted)
        return pc.field(node.id), kind

    def _constant(self, node: ast.Constant) -> tuple[pc.Expression, Kind]:
        match node.value:
            case None:
                return pc.scalar(None), "null"
            case bool(value):
                return pc.scalar(value), "truth"
            case int(value) | float(value):
                if isinstance(value, int) and abs(value) > LARGEST:
                    raise self._refuse(node, "no number in rows is as large")
                return pc.scalar(value if abs(value) < 2**53 else float(value)), "number"
            case str(value):
                if any("\ud800" <= sign <= "\udfff" for sign in value):
                    raise self._refuse(node, "half a sign is no text")
                return pc.scalar(value), "text"
        raise self._refuse(node, "only numbers and texts can be values")

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        if isinstance(op, (ast.In, ast.NotIn)):
            found = self._member(left, right)
            return ~found if isinstance(op, ast.NotIn) else found
        (a, a_kind), (b, b_kind) = self.read(left), self.read(right)
        if "null" in (a_kind, b_kind):
            if not isinstance(op, (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
                raise self._refuse(right, "nothing is more or less than None")
            null = (b if a_kind == "null" else a).is_null(nan_is_null=True)
            return null if isinstance(op, (ast.Is, ast.Eq)) else ~null
        for side, kind in ((left, a_kind), (right, b_kind)):
            if kind == "list":
                raise self._refuse(side, ONLY_NULL)
        if type(op) not in COMPARISONS:
            raise self._refuse(right, "only None can follow is", "Compare with ==.")
        if a_kind != b_kind:
            raise self._refuse(right, f"a {a_kind} is compared with a {b_kind}")
        if a_kind == "truth" and not isinstance(op, (ast.Eq, ast.NotEq)):
            raise self._refuse(right, "conditions have no order")
        return COMPARISONS[type(op)](a, b)

    def _member(self, left: ast.expr, right: ast.expr) -> pc.Expression:
        item, kind = self.read(left)
        if kind == "list":
            raise self._refuse(left, ONLY_NULL)
        if isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            values = [self._of(value, kind) for value in right.elts]
            if not values:
                raise self._refuse(right, "the list is empty", "Name one value or more.")
            if any(isinstance(part, ast.Name) for part in ast.walk(right)):
                raise self._refuse(right, "a list of values is needed")
            # isin is never null, so that its opposite would hold of nulls.
            return functools.reduce(operator.or_, (item == value for value in values))
        text = self._of(right, "text")
        if not isinstance(left, ast.Constant) or kind != "text":
            tip = "method in ['kl', 'kl-dp'], or 'vit' in student, for one."
            raise self._refuse(right, "in needs a list of values, or a text before it", tip)
        return pc.match_substring(text.cast(pa.string()), left.value)
