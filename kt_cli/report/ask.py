"""Questions to the rows of a report, answered from the Parquet by a process of its own.

What takes too long or too much memory ends that process, not the report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd

from kt_cli.errors import KtError, UsageError, first_line, unknown
from kt_cli.report.groups import native
from kt_cli.report.page.fields import FIRST, TITLES, fields, scalars
from kt_cli.report.page.options import OPTIONS
from kt_cli.report.page.rows import SHOWN, listed, with_texts
from kt_cli.report.query import Query, all_of
from kt_cli.report.read import find_sweeps, read_results
from kt_cli.rows.condition import columns_of
from kt_cli.rows.parts import list_parts

SECONDS, MEMORY = 60.0, 4 << 30  # of one question; beyond what the process has at its start
LONGEST, LARGEST, CSV = 4000, 500, 100_000  # letters of a condition, rows of an answer, of a CSV
TOLD = [column for column, *_ in OPTIONS]  # by the command that repeats a row
OUTCOME = {"status", "error"}  # who asks of these wants failed runs too


class Refused(KtError):
    """A question that is not answered. status: HTTP's."""

    def __init__(self, status: int, message: str, tip: str = "") -> None:
        super().__init__(message, tip)
        self.status = status


@dataclass(frozen=True)
class Question:
    """Which rows of a table (`transfer`, `complementarity`), in which order, from where on.

    sort: a column; with a minus before it from high to low. csv: all that is found, as text.
    """

    table: str
    where: str = ""
    sort: str = ""
    offset: int = 0
    limit: int = 50
    csv: bool = False

    def __post_init__(self) -> None:
        if len(self.where) > LONGEST:
            raise Refused(413, f"a condition has at most {LONGEST:,} letters")
        if self.table not in TITLES:
            raise unknown("table", self.table, TITLES)
        if self.offset < 0 or not 0 < self.limit <= LARGEST:
            raise UsageError(f"offset is zero or more, limit 1 to {LARGEST}")


class Rows:
    """The rows of sweeps, read for each condition anew; the last answer is kept for its pages."""

    def __init__(self, paths: Sequence[Path], query: Query) -> None:
        self._paths, self._query = paths, query
        self._asked: tuple[object, ...] = ()
        self._found, self._order, self._sort = pd.DataFrame(), np.arange(0), ""

    def answer(self, question: Question) -> Any:
        """What `page/ask.js` reads, or CSV.

        Raises:
            KtError: the condition is not understood, or more is wanted than can be had.
        """
        rows, order = self._chosen(question)
        if question.csv:
            if len(rows) > CSV:
                raise Refused(413, f"{len(rows):,} rows are more than the {CSV:,} of a CSV")
            whole = self._whole(rows.iloc[order], question, self._condition(question))
            return whole.apply(with_texts).to_csv(index=False)
        page = rows.iloc[order[question.offset : question.offset + question.limit]]
        page = self._whole(page, question, f"run_id in {list(map(str, page['run_id']))}")
        first = FIRST[question.table]
        known = [replace(f, first=f.key in first) for f in fields(question.table, page)]
        known.sort(key=lambda f: first.index(f.key) if f.first else len(first))
        columns = [list(map(_cell, page[f.key])) for f in known]
        return {
            "count": len(rows),
            "csv": len(rows) <= CSV,
            "columns": [{name: getattr(f, name) for name in SHOWN} for f in known],
            "rows": list(zip(*columns, strict=True)),
        }

    def _chosen(self, question: Question) -> tuple[pd.DataFrame, np.ndarray]:
        """The rows that are found, and their places in the order wanted."""
        folders = [folder for path in self._paths for folder in find_sweeps(path)]
        parts = [part.name for f in folders for part in list_parts(f / question.table)]
        asked = (question.table, question.where, parts)
        key = question.sort.removeprefix("-")
        if asked != self._asked or key in scalars(question.table).keys() - {*self._found}:
            self._asked, self._found = (), pd.DataFrame()  # no two of them at once
            self._found, self._asked = self._read(question), asked
            self._order, self._sort = np.arange(len(self._found)), ""
        if question.sort != self._sort:
            if key and key not in self._found:
                raise unknown("column", key, map(str, self._found))
            values = self._found[key] if key else self._found.index.to_series()
            up = not question.sort.startswith("-")
            try:
                places = values.sort_values(ascending=up, kind="stable").index
            except (TypeError, ValueError, NotImplementedError) as error:
                raise UsageError(f"{key} holds lists, which have no order") from error
            self._order, self._sort = places.to_numpy(), question.sort
        return self._found, self._order

    def _read(self, question: Question) -> pd.DataFrame:
        table, asked = question.table, Query(where=question.where)
        if lacks := asked.lacks(table):
            raise UsageError(f"{TITLES[table].lower()} have no {' and no '.join(lacks)}")
        query = Query(where=self._condition(question), all_rows=self._query.all_rows)
        needed = (*FIRST[table], *TOLD, "run_id", question.sort.removeprefix("-"))
        results = read_results(self._paths, {table: needed}, query)
        failed_too = table == "transfer" and OUTCOME & set(columns_of(asked.conditions()))
        rows = results.frames[table] if failed_too else results.ok(table)
        return rows.reset_index(drop=True)

    def _condition(self, question: Question) -> str:
        """Of the question and of the report."""
        given = "" if self._query.lacks(question.table) else self._query.where
        return all_of(given, question.where)

    def _whole(self, rows: pd.DataFrame, question: Question, where: str) -> pd.DataFrame:
        """Some of the rows that are found with all their columns, where `where` holds for them."""
        more = [name for name in scalars(question.table) if name not in rows]
        if rows.empty:
            return rows
        query = Query(where=where, all_rows=self._query.all_rows)
        found = read_results(self._paths, {question.table: ("run_id", *more)}, query)
        who = ["sweep", "run_id"]
        others = found.frames[question.table].astype(dict.fromkeys(who, str)).set_index(who)
        places = others.index.get_indexer(pd.MultiIndex.from_frame(rows[who].astype(str)))
        beside = others[more].take(places[places >= 0]).set_axis(rows.index[places >= 0])
        return rows.join(beside)


def _cell(value: Any) -> Any:
    if isinstance(value, (list, np.ndarray)):
        return listed(list(value))
    cell = native(value)
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


class Asker:
    """Asks the process that has the rows, one question at a time.

    Attributes:
        seconds, memory: bounds of a question; bytes beyond what the process has at its start.
    """

    def __init__(
        self, paths: Sequence[Path], query: Query, seconds: float = SECONDS, memory: int = MEMORY
    ) -> None:
        self._about = (list(paths), query)
        self.seconds, self.memory = seconds, memory
        self._turn = Lock()
        self._process: BaseProcess | None = None
        self._line: Connection

    def ask(self, question: Question) -> Any:
        """The answer of `Rows.answer`.

        Raises:
            Refused: with the reason, whatever it was.
        """
        if not self._turn.acquire(timeout=self.seconds):
            raise Refused(503, "other questions are being answered", "Ask again.")
        try:
            return self._ask(question)
        finally:
            self._turn.release()

    def _ask(self, question: Question) -> Any:
        if self._process is None or not self._process.is_alive():
            self._start()
        try:
            self._line.send(question)
            if not self._line.poll(self.seconds):
                self.close()
                tip = "Ask for fewer rows, or with another condition."
                raise Refused(504, f"no answer within {self.seconds:g} seconds", tip)
            status, answer = self._line.recv()
        except (EOFError, OSError):
            self.close()
            status, answer = 503, ("the process that answers has ended", "Ask for fewer rows.")
        if status != 200:
            raise Refused(status, *answer)
        return answer

    def _start(self) -> None:
        context = get_context("spawn")
        self._line, theirs = context.Pipe()
        arguments = (theirs, *self._about, self.memory)
        self._process = context.Process(target=_answer_all, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the process; the next question starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._line.close()
        self._process = None


def _answer_all(line: Connection, paths: Sequence[Path], query: Query, memory: int) -> None:
    """What the process does: answers until nobody asks."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the one who asks
    _bound(memory)
    rows = Rows(paths, query)
    with suppress(EOFError, OSError):
        while True:
            line.send(_answered(rows, line.recv()))


def _answered(rows: Rows, question: Question) -> tuple[int, Any]:
    try:
        return 200, rows.answer(question)
    except KtError as error:
        status = error.status if isinstance(error, Refused) else 400
        return status, (error.message, error.tip)
    except MemoryError:
        return 503, ("the answer takes too much memory", "Ask for fewer rows.")
    except Exception as error:
        return 500, (f"unexpected {first_line(error)}", "This is a fault of kt: please report it.")


def _bound(memory: int) -> None:
    """Give the process so many bytes more than it has, where the system knows such a bound."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
