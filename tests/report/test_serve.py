"""`kt report --serve`: who gets an answer, which rows it has, and what a question may cost."""

from __future__ import annotations

import csv
import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from kt_cli.api.report import report
from kt_cli.errors import UsageError
from kt_cli.report.ask import LONGEST, Asker, Question, Refused, Rows
from kt_cli.report.query import Query
from kt_cli.report.serve import Server
from tests.report.conftest import Sweep

TEACHERS = ("resnet50", "vit_base_patch16_224", "convnext_tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = Sweep(tmp_path_factory.mktemp("served") / "demo")
    rows = [
        sweep.transfer(teacher, "mixer_50%_b16", method=method, seed=seed)
        for teacher in TEACHERS
        for method in ("kl", "kl-dp")
        for seed in range(15)
    ]
    failed = {**rows[0], **sweep.outcome(status="failed", error="out of memory", seed=99)}
    sweep.write("transfer", [*rows, {**failed, "delta": None}])
    return sweep.folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    served = Server("<p>the page</p>", Asker([folder], Query()))
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def ask(
    server: Server, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text; `path` follows the token unless it begins with /."""
    line = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    line.request(method, path if path.startswith("/") else f"/{server.token}/{path}", None, headers)
    answer = line.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


def rows(server: Server, name: str = "rows", **question: Any) -> tuple[int, Any]:
    status, _, text = ask(server, f"{name}?{urlencode({'table': 'transfer', **question})}")
    return status, json.loads(text) if name == "rows" or status != 200 else text


def column(answer: Any, key: str) -> list[Any]:
    place = [c["key"] for c in answer["columns"]].index(key)
    return [row[place] for row in answer["rows"]]


def by_pyarrow(folder: Path, where: pc.Expression) -> list[dict[str, Any]]:
    found = ds.dataset(folder / "transfer").filter(where & (pc.field("status") == "ok"))
    return list(found.to_table().to_pylist())


def test_the_page_at_its_address_and_nowhere_else(server: Server) -> None:
    status, headers, text = ask(server, "")
    assert (status, text) == (200, "<p>the page</p>")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
    assert server.address == f"http://127.0.0.1:{server.server_address[1]}/{server.token}/"
    assert server.socket.getsockname()[0] == "127.0.0.1"
    for path in ("/", "/rows?table=transfer", f"/{server.token[:-1]}x/", "//", "/http://[/"):
        assert ask(server, path)[0] == 403, path
    for path in ("../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..", "rows/", "rows.json"):
        assert ask(server, path)[0] == 404, path


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Host": "127.0.0.1"},
     {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "https://localhost"}],
)  # fmt: skip
def test_other_names_and_pages_are_refused(server: Server, headers: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        assert ask(server, "", method, **headers)[0] == 403


def test_its_own_names_are_not(server: Server) -> None:
    host = f"LocalHost:{server.server_address[1]}"
    assert ask(server, "", Host=host, Origin=f"http://{host}")[0] == 200


def test_a_browser_leaves_the_port_of_all_pages_out() -> None:
    served = SimpleNamespace(server_address=("127.0.0.1", 80))
    assert {"127.0.0.1", "localhost:80"} < Server.hosts.fget(served)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_nothing_but_get(server: Server, method: str) -> None:
    status, headers, _ = ask(server, "rows", method)
    assert status == 405 and headers["Allow"] == "GET"


def test_a_question_without_a_host_is_refused(server: Server) -> None:
    with socket.create_connection(server.server_address, timeout=10) as line:  # type: ignore[arg-type]
        line.sendall(f"GET /{server.token}/ HTTP/1.0\r\n\r\n".encode())
        assert b" 403 " in line.recv(100)


def test_who_leaves_before_the_answer_is_no_news(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "page", bytes(50_000_000))  # more than the system takes at once
    ended, close = threading.Event(), server.shutdown_request

    def closed(request: Any) -> None:
        close(request)
        ended.set()

    monkeypatch.setattr(server, "shutdown_request", closed)
    with socket.create_connection(server.server_address[:2]) as line:
        line.sendall(f"GET /{server.token}/ HTTP/1.1\r\nHost: {min(server.hosts)}\r\n\r\n".encode())
        assert line.recv(12) == b"HTTP/1.0 200"
    assert ended.wait(60)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(server, "asker", None)  # other faults are shown
    with pytest.raises(http.client.RemoteDisconnected):
        rows(server)
    assert "AttributeError" in capsys.readouterr().err


def test_rows_are_those_of_pyarrows_own_filter(server: Server, folder: Path) -> None:
    delta, method = pc.field("delta"), pc.field("method")
    wanted = by_pyarrow(folder, (delta > 0) & (method == "kl-dp"))
    assert 5 < len(wanted) < 45
    where, found = "delta > 0 and method == 'kl-dp'", []
    for offset in range(0, len(wanted) + 7, 7):
        status, answer = rows(server, where=where, sort="-delta", offset=offset, limit=7)
        assert (status, answer["count"]) == (200, len(wanted))
        if answer["rows"]:
            keys = ("teacher", "seed", "delta", "gain")
            found += list(zip(*(column(answer, key) for key in keys), strict=True))
    best = sorted(wanted, key=lambda row: -row["delta"])  # stable, as the server's order
    assert found == [(r["teacher"], r["seed"], r["delta"], r["gain"]) for r in best]
    status, text = rows(server, "rows.csv", where=where)
    table = list(csv.DictReader(io.StringIO(text)))
    assert [float(r["delta"]) for r in table] == [r["delta"] for r in wanted]


def test_all_columns_sort_and_are_in_the_answer(server: Server, folder: Path) -> None:
    wanted = by_pyarrow(folder, pc.field("seed") == 3)
    answer = rows(server, where="seed == 3", sort="acc_diff", limit=500)[1]
    assert column(answer, "acc_diff") == sorted(row["acc_diff"] for row in wanted)
    found = zip(*(column(answer, c) for c in ("run_id", "share_taught", "n")), strict=True)
    assert set(found) == {(r["run_id"], r["share_taught"], r["n"]) for r in wanted}
    table = csv.DictReader(io.StringIO(rows(server, "rows.csv", where="seed == 3")[1]))
    assert [row["share_taught"] for row in table] == [str(row["share_taught"]) for row in wanted]


def test_lists_are_texts_in_a_csv(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "teams")
    sweep.write("transfer", [sweep.team(TEACHERS[:2], "mixer_50%_b16", teacher_rates=[1.5, 2.0])])
    text = Rows((sweep.folder,), Query()).answer(Question("transfer", csv=True))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["teacher_names"] == ", ".join(TEACHERS[:2]) and row["teacher_rates"] == "1.5, 2"


def test_derived_columns_and_failed_runs_as_in_reports(server: Server) -> None:
    assert rows(server)[1]["count"] == 90
    assert rows(server, where="teacher_family == 'vit'")[1]["count"] == 30
    assert rows(server, where="delta > -1000")[1]["count"] == 90
    failed = rows(server, where="status == 'failed'")[1]
    assert column(failed, "status") == ["failed"] and column(failed, "seed") == [99]


def test_only_rows_of_the_report_are_found(folder: Path) -> None:
    narrow = Rows([folder], Query(where="method == 'kl'"))
    assert narrow.answer(Question("transfer"))["count"] == 45
    assert narrow.answer(Question("transfer", "method == 'kl-dp'"))["count"] == 0
    assert narrow.answer(Question("transfer", "seed < 3 or delta is None"))["count"] == 9


@pytest.mark.parametrize(
    ("question", "status", "said"),
    [
        ({"where": "delta > " + "1" * LONGEST}, 413, "4,000 letters"),
        ({"where": "delta >"}, 400, "not understood"),
        ({"where": "delta > 0 # or so"}, 400, "not understood"),
        ({"where": "nonsense > 1"}, 400, "nonsense"),
        ({"where": "__import__('os').system('true')"}, 400, "only columns"),
        ({"where": "(" * 2000 + "delta" + ")" * 1900}, 400, "not understood"),
        ({"where": " - " * 1200 + "delta > 0"}, 400, ""),
        ({"where": "agreement > 1"}, 400, "no agreement"),
        ({"sort": "nonsense"}, 400, "nonsense"),
        ({"limit": 10**9}, 400, "limit"),
        ({"limit": "many"}, 400, "question"),
        ({"offset": -1}, 400, "offset"),
        ({"table": "../transfer"}, 400, "unknown table"),
        ({"file": "/etc/passwd"}, 400, "question"),
        ({f"x{i}": "" for i in range(12)}, 400, "question"),
    ],
)
def test_what_cannot_be_answered(
    server: Server, question: dict[str, Any], status: int, said: str
) -> None:
    found, answer = rows(server, **question)
    assert found == status and said in answer["error"]
    assert rows(server, where="seed == 1")[1]["count"] == 6  # others are


def test_a_question_is_bounded_in_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(server)
    process = server.asker._process
    with monkeypatch.context() as bounded:
        bounded.setattr(server.asker, "seconds", 0)
        status, answer = rows(server, where="delta > 0.25")
    assert status == 504 and "within 0 seconds" in answer["error"]
    assert process is not None and not process.is_alive()
    assert rows(server)[0] == 200


def test_one_question_at_a_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.asker, "seconds", 0.01)
    with server.asker._turn:
        status, answer = rows(server)
    assert status == 503 and "other questions" in answer["error"]


def test_a_question_is_bounded_in_memory(folder: Path) -> None:
    asker = Asker([folder], Query(), seconds=10, memory=0)
    try:
        with pytest.raises(Refused) as refused:
            asker.ask(Question("transfer"))
        # Where not even a thread can start, pyarrow waits for it: then time is the bound.
        assert refused.value.status in {503, 504}
    finally:
        asker.close()


def test_the_page_of_a_report_is_served(folder: Path) -> None:
    form = {"table": ["summary"], "plot": ["success"]}
    found = report(folder, serve=True, **form)
    with found.server() as served:
        page = served.page.decode()
        assert 'data-ask="transfer"' in page and "connect-src 'self'" in page
        with pytest.raises(UsageError, match="cannot listen"):
            Server("", served.asker, served.server_address[1])
    plain = report(folder, format="html", **form).text()
    assert "data-ask=" not in plain and "connect-src" not in plain
    for wrong in ({"serve": True, "output": "page.html"}, {"port": 8000}):
        with pytest.raises(UsageError, match="--serve"):
            report(folder, **wrong)


def test_lists_have_no_order(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "teams")
    teams = [TEACHERS[:2], TEACHERS[1:], TEACHERS[:2]]
    sweep.write("transfer", [sweep.team(team, "mixer_50%_b16") for team in teams])
    for sort in ("teacher_names", "-teacher_names"):
        with pytest.raises(UsageError, match="no order"):
            Rows((sweep.folder,), Query()).answer(Question("transfer", sort=sort))
