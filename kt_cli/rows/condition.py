"""Conditions on rows, such as `method == 'kl-dp' and teacher_acc < student_acc`.

Python's own grammar, of which only columns, numbers, texts, comparisons, arithmetic and
`and`, `or`, `not`, `in`, `is None` are understood. Nothing is ever run. Standard library only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal as Kinds

from kt_cli.errors import UsageError, unknown

Kind = Kinds["number", "text", "truth", "list", "null"]
KINDS: dict[str, Kind] = {"string": "text", "int64": "number", "double": "number", "bool": "truth"}
WHERE_COLUMNS_ARE = "docs/reports.md says what can be asked, results/README.md has all columns."


@dataclass(frozen=True)
class Name:
    """The value of a column."""

    column: str


@dataclass(frozen=True)
class Literal:
    value: str | int | float | bool


@dataclass(frozen=True)
class Call:
    """What `op` makes of its arguments.

    op: `and`, `or`, `not`; `==`, `!=`, `<`, `<=`, `>`, `>=`; `+`, `-`, `*`, `/`;
    `null` (is there no value); `in` (is the first one of the others); `contains` (is the second,
    a literal text, part of the first).
    """

    op: str
    arguments: tuple[Node, ...]


Node = Name | Literal | Call


def parse(text: str, kinds: Mapping[str, Kind]) -> Node:
    """The condition that `text` is.

    Args:
        kinds: the columns that there are, and what they hold.

    Raises:
        UnknownName: there is no such column; the tip names the nearest.
        UsageError: it is no condition, or not one that is understood; shows where.
    """
    text = re.sub(r"\s*\n\s*", " ", text.strip())
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise _refusal(
            text, max((error.offset or 1) - 1, 0), "not understood", _hint(text)
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _refusal(text, 0, "not understood") from error
    try:
        node, kind = _Reader(text, kinds).read(tree)
    except RecursionError:
        raise _refusal(text, 0, "nested too deeply") from None
    if kind != "truth":
        raise _refusal(text, 0, f"a {kind}, not a condition", "Compare it: delta > 0, for one.")
    if not columns_of(node):
        raise _refusal(text, 0, "it names no column", WHERE_COLUMNS_ARE)
    return node


def columns_of(node: Node) -> list[str]:
    """The columns that a condition needs, each once."""
    return list(dict.fromkeys(_names(node)))


def texts_of(node: Node) -> list[str]:
    """The texts that a condition compares with."""
    if isinstance(node, Literal):
        return [node.value] if isinstance(node.value, str) else []
    arguments = node.arguments if isinstance(node, Call) else ()
    return [text for argument in arguments for text in texts_of(argument)]


def conjuncts(node: Node) -> list[Node]:
    """Conditions that hold all together where `node` holds."""
    if isinstance(node, Call) and node.op == "and":
        return [part for argument in node.arguments for part in conjuncts(argument)]
    return [node]


def together(parts: Sequence[Node]) -> Node | None:
    """The condition that all of `parts` hold; None for none."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    return Call("and", tuple(parts))


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, Name):
        yield node.column
    elif isinstance(node, Call):
        for argument in node.arguments:
            yield from _names(argument)


def _hint(text: str) -> str:
    if "=" in text.replace("==", "").replace("!=", "").replace("<=", "").replace(">=", ""):
        return "Compare with ==."
    if "&&" in text or "||" in text:
        return "Join conditions with and, or, not."
    return "An example: method == 'kl-dp' and acc_diff < 0"


def _refusal(text: str, at: int, why: str, tip: str = "") -> UsageError:
    return UsageError(f"--where: {why}:\n    {text}\n    {' ' * at}^", tip)


COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
}  # fmt: skip
Typed = tuple[Node, Kind]


class _Reader:
    """Turns Python's tree into nodes, with what each of them is: number, text, truth, null."""

    def __init__(self, text: str, kinds: Mapping[str, Kind]) -> None:
        self._text, self._kinds = text, kinds

    def read(self, node: ast.expr) -> Typed:
        match node:
            case ast.Name():
                return self._column(node)
            case ast.Constant():
                return self._constant(node)
            case ast.BoolOp():
                parts = tuple(self._of_kind(value, "truth") for value in node.values)
                return Call("and" if isinstance(node.op, ast.And) else "or", parts), "truth"
            case ast.UnaryOp(op=ast.Not()):
                return Call("not", (self._of_kind(node.operand, "truth"),)), "truth"
            case ast.UnaryOp(op=ast.USub()):
                return self._negative(self._of_kind(node.operand, "number")), "number"
            case ast.BinOp() if type(node.op) in ARITHMETIC:
                sides = tuple(self._of_kind(side, "number") for side in (node.left, node.right))
                return Call(ARITHMETIC[type(node.op)], sides), "number"
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()):
                raise self._refuse(node, "not understood", "Join conditions with and, or, not.")
            case ast.Compare():
                return self._chain(node), "truth"
        raise self._refuse(
            node, "only columns, values, comparisons and arithmetic are understood",
            WHERE_COLUMNS_ARE,
        )  # fmt: skip

    def _refuse(self, node: ast.expr, why: str, tip: str = "") -> UsageError:
        before = self._text.encode()[: node.col_offset].decode(errors="ignore")
        return _refusal(self._text, len(before), why, tip)

    def _of_kind(self, node: ast.expr, wanted: Kind) -> Node:
        found, kind = self.read(node)
        if kind != wanted:
            what = "condition" if wanted == "truth" else wanted
            raise self._refuse(node, f"a {kind} where a {what} is needed")
        return found

    def _column(self, node: ast.Name) -> Typed:
        kind = self._kinds.get(node.id)
        if kind is None:
            raise unknown("column", node.id, self._kinds, WHERE_COLUMNS_ARE)
        if kind == "list":
            raise self._refuse(node, f"{node.id} holds lists, which cannot be compared")
        return Name(node.id), kind

    def _constant(self, node: ast.Constant) -> Typed:
        value = node.value
        if value is None:
            return Literal(False), "null"
        if isinstance(value, bool):
            return Literal(value), "truth"
        if isinstance(value, (int, float)):
            return Literal(value if abs(value) < 2**63 else float(value)), "number"
        if isinstance(value, str):
            return Literal(value), "text"
        raise self._refuse(node, "only numbers and texts can be values")

    @staticmethod
    def _negative(node: Node) -> Node:
        if isinstance(node, Literal) and isinstance(node.value, (int, float)):
            return Literal(-node.value)
        return Call("-", (Literal(0), node))

    def _chain(self, node: ast.Compare) -> Node:
        sides = [node.left, *node.comparators]
        pairs = zip(sides, node.ops, sides[1:], strict=False)
        parts = [self._compare(left, op, right) for left, op, right in pairs]
        return parts[0] if len(parts) == 1 else Call("and", tuple(parts))

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Node:
        if isinstance(op, (ast.In, ast.NotIn)):
            found = self._member(left, right)
            return Call("not", (found,)) if isinstance(op, ast.NotIn) else found
        (a, a_kind), (b, b_kind) = self.read(left), self.read(right)
        if "null" in (a_kind, b_kind):
            return self._null(op, right, b if a_kind == "null" else a)
        if type(op) not in COMPARISONS:
            raise self._refuse(right, "only None can follow is", "Compare with ==.")
        if a_kind != b_kind:
            raise self._refuse(right, f"a {a_kind} is compared with a {b_kind}")
        if a_kind == "truth" and not isinstance(op, (ast.Eq, ast.NotEq)):
            raise self._refuse(right, "conditions have no order")
        return Call(COMPARISONS[type(op)], (a, b))

    def _null(self, op: ast.cmpop, at: ast.expr, node: Node) -> Node:
        if not isinstance(op, (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
            raise self._refuse(at, "nothing is more or less than None")
        null = Call("null", (node,))
        return null if isinstance(op, (ast.Is, ast.Eq)) else Call("not", (null,))

    def _member(self, left: ast.expr, right: ast.expr) -> Node:
        item, kind = self.read(left)
        if not isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            text = self._of_kind(right, "text")
            if not isinstance(item, Literal) or kind != "text":
                tip = "method in ['kl', 'kl-dp'], or 'vit' in student, for one."
                raise self._refuse(right, "in needs a list of values, or a text before it", tip)
            return Call("contains", (text, item))
        values = tuple(self._of_kind(value, kind) for value in right.elts)
        if not values or not all(isinstance(value, Literal) for value in values):
            raise self._refuse(right, "a list of values is needed")
        return Call("in", (item, *values))
