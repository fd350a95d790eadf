from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import numpy as np
import pandas as pd
import pytest

from kt_cli.api.report import report
from kt_cli.report import page
from kt_cli.report.page import fields
from kt_cli.report.page.options import OPTIONS, images, references
from kt_cli.report.page.render import in_script
from kt_cli.report.page.rows import pack
from kt_cli.report.page.sweeps import provenance
from kt_cli.report.read import Results, read_results
from kt_cli.report.table import Column, Table
from kt_cli.rows import schema
from tests.report.conftest import Sweep
from tests.report.page_toys import HOSTILE, TABLE, drawn, pairs, results, transfers
from tests.report.records import sweep_tables

MB = 10**6
EMPTY = results(transfers(0))


def parse(text: str) -> Element:
    """The document; an error where it is no valid HTML."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    document: Element = parser.parse(text)
    return document


def text_of(element: Element | None) -> str:
    assert element is not None
    return "".join(element.itertext())


def find(document: Element, **attributes: str) -> Element:
    (found,) = [e for e in document.iter() if attributes.items() <= dict(e.attrib).items()]
    return found


def data(text: str) -> list[dict[str, Any]]:
    """What the page carries of each table's rows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert found
    parts: list[dict[str, Any]] = json.loads(found[1])
    return parts


def unzip(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def decode(column: dict[str, Any]) -> list[Any]:
    """A column of the page, read as its format says and by other means than the page's."""
    planes = np.frombuffer(unzip(column["numbers"]), dtype=np.uint8).reshape(column["width"], -1)
    whole = sum(plane.astype(np.int64) * 256**i for i, plane in enumerate(planes))
    assert isinstance(whole, np.ndarray)
    if column["values"]:
        values = [None, *json.loads(unzip(column["values"]))]
        return [values[i] for i in whole]
    return [(column["low"] + i - 1) / column["scale"] if i else None for i in whole]


def assert_rows_survive(part: dict[str, Any], rows: pd.DataFrame) -> None:
    assert part["count"] == len(rows)
    for column in part["columns"]:
        wanted = rows[column["key"]]
        got = decode(column)
        if column["kind"] == "text":
            assert got == [None if pd.isna(v) else v for v in wanted], column["key"]
            continue
        exact = {"rtol": 6e-3} if column["kind"] == "p" else {"atol": 0.051, "rtol": 0}
        if column["key"] in ("delta", "gain", "loss", "teacher_acc", "acc_diff", "seed", "lr"):
            exact = {"atol": 1e-9, "rtol": 0}
        np.testing.assert_allclose(
            np.array(got, dtype=float), wanted.to_numpy(dtype=float), err_msg=column["key"], **exact
        )


def test_the_page_is_valid_html_whatever_the_names_are() -> None:
    rows = transfers(40)
    rows.loc[3, "teacher"] = HOSTILE
    made = results(rows, pairs(20))
    text = page.render_page(made, [TABLE, TABLE], [drawn("one"), drawn("two", 6.75)])
    document = parse(text)
    assert text.count("<script") == 2 and 'onmouseover="' not in text
    cell = next(e for e in document.iter("td") if text_of(e).startswith("</script>"))
    assert text_of(cell) == HOSTILE and not list(cell)
    assert HOSTILE in text_of(find(document, id="summary-1"))
    assert HOSTILE in decode(data(text)[0]["columns"][0])
    ids = [e.attrib["id"] for e in document.iter() if "id" in e.attrib]
    assert len(ids) == len(set(ids))
    anchors = [e.attrib["href"] for e in document.iter("a")]
    assert {a[1:] for a in anchors} <= set(ids)
    labels = {e.attrib["aria-labelledby"] for e in document.iter() if "aria-labelledby" in e.attrib}
    assert labels <= set(ids)


def test_data_cannot_end_its_script_element() -> None:
    text = in_script([HOSTILE])
    assert "<" not in text and json.loads(text) == [HOSTILE]


def test_the_page_loads_nothing_and_runs_only_its_own_script() -> None:
    text = page.render_page(results(transfers(9)), [TABLE], [drawn("one")])
    document = parse(text)
    policy = find(document, **{"http-equiv": "Content-Security-Policy"}).attrib["content"]
    script = list(document.iter("script"))[-1]
    digest = base64.b64encode(hashlib.sha256(text_of(script).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    outside = [
        value for e in document.iter() for name, value in e.attrib.items()
        if str(name).split("}")[-1] in ("src", "href", "action", "srcset", "data")
        and not value.startswith(("#", "data:"))
    ]  # fmt: skip
    assert not outside
    styles = "".join(text_of(e) for e in document.iter() if str(e.tag).endswith("style"))
    assert "@import" not in styles and not re.search(r"url\((?!#)", styles)


def test_rows_come_back_as_they_were() -> None:
    rows, pair = transfers(3000), pairs(500)
    rows.loc[5, ["method", "transfer_p", "delta"]] = [None, np.nan, np.inf]
    parts = data(page.render_page(results(rows, pair), [], []))
    rows.loc[5, "delta"] = np.nan
    for part, wanted in zip(parts, (rows, pair), strict=True):
        assert_rows_survive(part, wanted)
    keys = {column["key"] for column in parts[0]["columns"]}
    assert keys == {c for c in rows if rows[c].notna().any() and c != "sweep"} | {"sweep"}


@pytest.mark.parametrize(
    ("values", "back"),
    [
        ([0.1234, -5.0, None], [0.123, -5.0, None]),
        ([1e12, 0.0, None], [1e12, 0.0, None]),
        ([None, None, 7.0], [None, None, 7.0]),
    ],
)
def test_numbers_of_any_size(values: list[float | None], back: list[float | None]) -> None:
    rows = transfers(3).assign(delta=values)
    (part,) = pack({"transfer": [rows]}, MB)
    (column,) = [c for c in part.as_json()["columns"] if c["key"] == "delta"]
    assert decode(column) == back


def test_small_p_values_keep_five_digits() -> None:
    values = [1.23456e-36, 5e-324, 0.0, 0.04567, None]
    (part,) = pack({"transfer": [transfers(5).assign(transfer_p=values)]}, MB)
    (column,) = [c for c in part.as_json()["columns"] if c["key"] == "transfer_p"]
    got = decode(column)
    assert got[0] == pytest.approx(1.2346e-36, rel=1e-12, abs=0) and got[2:] == [0.0, 0.04567, None]
    assert got[1] == pytest.approx(0.0, abs=1e-300)


def test_lists_and_truth_values_are_text() -> None:
    curves = [np.array([1.5, np.nan]), [2.25], None]
    rows = transfers(3).assign(curve_loss=curves, reference_compat=[True, False, None])
    (part,) = pack({"transfer": [rows]}, MB)
    found = {c["key"]: decode(c) for c in part.as_json()["columns"]}
    assert found["curve_loss"] == ["1.5, –", "2.25", None]
    assert found["reference_compat"] == ["true", "false", None]


def test_classes_that_changed_most_are_in_a_row(sweep: Sweep) -> None:
    gain, loss = [1, 0, 9, 2, 0, 0, 3, 1, 0, 0], [1, 4, 1, 0, 0, 1, 0, 0, 1, 0]
    sweep.write("transfer", [
        sweep.transfer("a", "b", gain_by_class=gain, loss_by_class=loss), sweep.transfer("b", "a"),
    ])  # fmt: skip
    (part,) = data(report(sweep.folder, format="html", plot=["success"]).text())
    found = {column["key"]: decode(column) for column in part["columns"]}
    assert found["moved"] == ["2: +9 −1, 1: +0 −4, 6: +3 −0, 3: +2 −0, 5: +0 −1, 7: +1 −0", None]


def test_several_teachers_are_rows_like_others(sweep: Sweep) -> None:
    sweep.write("transfer", [sweep.team(("resnet50", "a"), "b"), sweep.transfer("a", "b")])
    (part,) = data(page.render_page(read_results([sweep.folder]), [], []))
    found = {column["key"]: decode(column) for column in part["columns"]}
    assert found["teacher_names"] == ["resnet50, a", None]
    assert found["teacher_accs"] == ["85, 70", None]


def test_rows_that_find_no_room_are_named() -> None:
    rows = transfers(2000)
    (part,) = pack({"transfer": [rows]}, 60_000)
    packed = part.as_json()["columns"]
    assert sum(len(c["numbers"]) + len(c["values"]) for c in packed) <= 60_000
    assert {"created"} <= set(part.dropped) and not set(part.dropped) & set(part.columns)
    assert {"teacher", "student", "method", "delta"} <= {c["key"] for c in packed}
    (part,) = pack({"transfer": [rows]}, 1000)
    assert part.refused and not part.columns


@pytest.mark.parametrize("count", [100_000, 100_001, 1_000_000])
def test_the_page_is_below_ten_megabytes(count: int) -> None:
    small = transfers(min(count, 100_001))
    rows = small if len(small) == count else pd.concat([small] * 10, ignore_index=True)[:count]
    text = page.render_page(results(rows, pairs(1000)), [TABLE], [drawn("one")])
    assert len(text.encode()) < 10 * MB
    parts = {part["table"]: part["count"] for part in data(text)}
    assert parts == {"complementarity": 1000} | ({"transfer": count} if count <= 100_000 else {})
    refusal = f"The {count:,} transfers are not in this page"
    assert (refusal in text) == (count > 100_000)
    if count > 100_000:
        assert "kt report --where" in text


def test_large_tables_show_their_first_rows() -> None:
    columns = (Column("student", "student", "text"), Column("delta", "Δ", "signed"))
    rows = tuple((f"model{i}", i / 7) for i in range(30_000))
    wide = Table("students", "By student", columns, rows)
    many = Table(
        "matrix", "Matrix", tuple(Column(f"c{i}") for i in range(400)),
        tuple(tuple(map(float, range(400))) for _ in range(900)),
    )  # fmt: skip
    text = page.render_page(EMPTY, [wide, many, many], [])
    assert len(text.encode()) < 10 * MB
    assert "The first 2,000 of 30,000 rows; all are in kt report --table students" in text
    assert re.search(r"The first \d+ of 900 rows; all are in kt report --table matrix", text)


def test_plots_that_are_many_are_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    plots = [drawn(f"plot{i}") for i in range(4)]
    plain = page.render_page(EMPTY, [], plots)
    assert plain.count("<svg") == 4 and 'data-svg="' not in plain
    monkeypatch.setattr("kt_cli.report.page.plots.PLAIN", 20_000)
    text = page.render_page(EMPTY, [], plots)
    packed = re.findall(r'data-svg="([^"]+)"', text)
    assert 0 < len(packed) < 4 and text.count("<svg") + len(packed) == 4
    shown = [unzip(svg).decode() for svg in packed]
    assert all(svg in plain for svg in shown)


def test_plots_that_find_no_room_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kt_cli.report.page.render.PLOTS", 20_000)
    text = page.render_page(EMPTY, [], [drawn(f"plot{i}") for i in range(4)])
    assert 0 < text.count("<figure") < 4
    assert "Not in this page for its size: " in text and "plot3. kt report --plots" in text


def test_columns_go_by_importance_and_size_in_both_tables() -> None:
    rows, pair = transfers(2000), pairs(2000)
    every = pack({"transfer": [rows], "complementarity": [pair]}, MB)
    full = sum(column.size for part in every for column in part.columns.values())
    parts = pack({"transfer": [rows], "complementarity": [pair]}, full - 2000)
    dropped = {part.table: set(part.dropped) for part in parts}
    assert "created" in dropped["transfer"] | dropped["complementarity"]
    assert all("eval_data" in part.columns and "n" in part.columns for part in parts)


def test_a_sweep_says_where_it_comes_from(filled: Sweep) -> None:
    (filled.folder / "sweep.toml").write_text('name = "demo <&>"\n', encoding="utf-8")
    software = {"kt_version": "1.2", "torch_version": "2.9.0", "device": "cpu"}
    late = filled.transfer("resnet50", "convnext_tiny", created="2026-03-04T05:06:07", **software)
    filled.write("transfer", [late, filled.failed("transfer", "no memory")])
    found = read_results([filled.folder])
    facts = provenance(found.frames)
    assert facts["rows"] == ("4 models evaluated, 12 pairs, 121 transfers (1 failed)")
    assert facts["written"] == "2025-01-01 to 2026-03-04"
    assert facts["software"] == "kt 1.2; torch 2.9.0" and facts["devices"] == "cpu"
    document = parse(page.render_page(found, [], []))
    assert 'name = "demo <&>"' in text_of(next(document.iter("pre")))
    sweep = text_of(find(document, id="sweep-1"))
    assert "121 transfers (1 failed)" in sweep and "kt 1.2" in sweep


def test_tables_of_a_sweep_are_on_the_page(filled: Sweep) -> None:
    tables = sweep_tables([filled.folder])
    text = page.render_page(read_results([filled.folder]), tables, [])
    document = parse(text)
    for table, element in zip(tables, document.iter("table"), strict=True):
        head = [text_of(th) for th in element.iter("th") if "hidden" not in th.attrib]
        assert head == [column.header for column in table.shown]
        body = [
            [text_of(td) for td in tr.iter("td") if "hidden" not in td.attrib]
            for tr in element.iter("tr")
        ]
        assert body[1:] == table.texts()
    assert text == page.render_page(read_results([filled.folder]), tables, [])


def test_failed_transfers_are_rows_with_their_reason(filled: Sweep) -> None:
    filled.write("transfer", [filled.failed("transfer", "no memory")])
    found = read_results([filled.folder])
    (part, _) = data(page.render_page(found, [], []))
    columns = {column["key"]: column for column in part["columns"]}
    assert decode(columns["error"]).count("no memory") == 1 and columns["status"]["first"]
    assert part["count"] == 121


def test_results_without_rows_are_a_page_as_well(filled: Sweep) -> None:
    document = parse(page.render_page(EMPTY, [], []))
    assert "no rows" in text_of(next(document.iter("header")))
    only = results(transfers(1).assign(delta=np.nan, gain=np.nan))
    parse(page.render_page(only, [], []))


def test_rows_that_where_left_out_are_counted() -> None:
    made = results(transfers(5))
    filtered = Results(made.frames, made.skipped, {"transfer": 1234}, made.folders)
    assert "--where left out 1,234 more." in page.render_page(filtered, [], [])


def test_what_the_page_needs() -> None:
    small, large = page.needs({}), page.needs({"transfer": page.MAX_ROWS + 1})
    assert {"delta", "gain_entropy", "seconds", "curve_loss"} <= set(small["transfer"])
    by_class = {"gain_by_class", "loss_by_class"}
    assert {c for c in small["transfer"] if c.endswith("_by_class")} == by_class
    assert not by_class & set(page.needs({"transfer": 2001})["transfer"])
    assert set(large["transfer"]) <= set(schema.PROVENANCE) and "kt_version" in large["transfer"]
    assert large["complementarity"] == small["complementarity"]
    for table, columns in small.items():
        assert set(columns) <= set(schema.TABLES[table])


def test_the_folder_of_a_sweep_may_lack_its_configuration(tmp_path: Path) -> None:
    text = page.render_page(results(transfers(2), folder=tmp_path), [], [])
    assert "It has no sweep.toml" in text


def test_lists_are_there_in_short_whatever_they_hold(sweep: Sweep) -> None:
    """As of several teachers: their names, and numbers of which one may be missing."""
    sweep.write("transfer", [
        sweep.team(["vit", "resnet50"], "mine", teacher_rates=[1.25, None], curve_acc=[60.0]),
        sweep.transfer("vit", "mine"),
    ])  # fmt: skip
    (part,) = data(page.render_page(read_results([sweep.folder]), [], []))
    found = {column["key"]: decode(column) for column in part["columns"]}
    assert found["teacher_names"] == ["vit, resnet50", None]
    assert found["teacher_rates"] == ["1.25, –", None] and found["curve_acc"] == ["60", None]


def test_models_of_one_s_own_are_called_as_the_sweep_calls_them(tmp_path: Path) -> None:
    (tmp_path / "zoo" / "vit").mkdir(parents=True)
    models = ["resnet50", "local-dir:/models/mine", "test_vit@/old/mine.pth"]
    (tmp_path / "sweep.toml").write_text(f"models = {json.dumps(models)}")
    found = references({"a": tmp_path, "b": tmp_path / "none"})
    assert found == {"a": {
        "mine": "local-dir:/models/mine", "mine.pth": "test_vit@/old/mine.pth",
        "vit": str(tmp_path / "zoo" / "vit"),
    }}  # fmt: skip


def test_what_rows_do_not_say_of_images_is_that_of_their_sweep(tmp_path: Path) -> None:
    data = 'source = "hfds/x"\nval_split = "test"\nguard = 0.1\nskip_broken = true\nroot = "/d"\n'
    (tmp_path / "sweep.toml").write_text(f"[data]\n{data}")
    found = images({"a": tmp_path, "b": tmp_path / "none"})
    assert found == {"a": ["--data-dir", "/d", "--val-split", "test", "--skip-broken"]}


def test_each_setting_of_a_row_has_its_option() -> None:
    options = {column: (option, usual) for column, option, usual in OPTIONS}
    assert options["lr"] == ("--lr", 1e-4) and options["guard_share"] == ("--guard-share", 0.0)
    assert options["data"] == ("--data", "") and options["subtract_drift"][1] is False
    assert set(options) <= set(schema.TABLES["transfer"])


def test_the_page_compares_methods_on_the_same_pairs(
    filled: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> list[str]:
        return [table.name for table in report(filled.folder, format="html").tables]

    assert names().count("compare") == 1
    monkeypatch.setattr(page, "MAX_ROWS", 119)
    assert "compare" not in names() and "summary" in names()


def test_of_many_rows_those_that_meet_the_condition_keep_their_columns(
    filled: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "MAX_ROWS", 20)
    for where, whole in (("", False), ("method == 'kl' and seed == 1", True)):
        made = report(filled.folder, format="html", where=where)
        assert ("gain_entropy" in made.results.ok("transfer")) == whole
