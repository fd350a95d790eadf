"""The page of a report from a server of its own, which answers questions to all rows.

It listens to this machine only, changes nothing, and answers only who knows the token in its
address, under its own name: a page of somebody else's can neither guess the one nor be the other.
"""

from __future__ import annotations

import json
import secrets
import socketserver
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from kt_cli.errors import KtError, UsageError
from kt_cli.report.ask import Asker, Question, Refused

LOOPBACK = "127.0.0.1"
HTTP = 80  # the port that browsers do not name
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)  # the page itself says which script it may run
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
}  # fmt: skip
METHODS = ("HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT")


class Server(ThreadingHTTPServer):
    """Serves a page and answers of `asker` until `shutdown`, at `address`.

    Raises:
        UsageError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, page: str, asker: Asker, port: int = 0) -> None:
        self.page, self.asker, self.token = page.encode(), asker, secrets.token_urlsafe(32)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            tip = "Name another with --port; 0 takes one that is free."
            raise UsageError(f"cannot listen to port {port}: {error}", tip) from error

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's would ask for a name of the machine

    @property
    def hosts(self) -> set[str]:
        names, port = (LOOPBACK, "localhost"), self.server_address[1]
        return {f"{name}:{port}" for name in names} | set(names if port == HTTP else ())

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_address[1]}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A tab that was closed before it had its answer is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        self.asker.close()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version, timeout = "kt", "", 30

    def do_GET(self) -> None:
        try:
            self._require_own()
            path, _, question = self.path.partition("?")
            _, token, name = (*path.split("/", 2), "", "")[:3]
            if not secrets.compare_digest(token.encode(), self.server.token.encode()):
                raise Refused(403, "the address lacks its token", "Take it as kt report shows it.")
            if name == "":
                self._send(200, "text/html", self.server.page)
            elif name in ("rows", "rows.csv"):
                answer = self.server.asker.ask(_question(question, name == "rows.csv"))
                if isinstance(answer, str):
                    self._send(200, "text/csv", answer.encode())
                else:
                    self._send(200, "application/json", json.dumps(answer).encode())
            else:
                raise Refused(404, "there is nothing of that name")
        except KtError as error:
            self._refuse(error)

    def _require_own(self) -> None:
        origin, host = (self.headers.get(name, "").lower() for name in ("Origin", "Host"))
        own = {f"http://{host}" for host in self.server.hosts}
        if host not in self.server.hosts or (origin and origin not in own):
            raise Refused(403, "asked under another name, or from another page")

    def _other_method(self) -> None:
        try:
            self._require_own()
            raise Refused(405, "nothing can be changed here")
        except Refused as error:
            self._refuse(error)

    def _refuse(self, error: KtError) -> None:
        said = {"error": error.message, "tip": error.tip}
        status = error.status if isinstance(error, Refused) else 400
        self._send(status, "application/json", json.dumps(said).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status, HTTPStatus(status).phrase)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        if kind == "text/csv":
            self.send_header("Content-Disposition", 'attachment; filename="rows.csv"')
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the address has the token."""


for _method in METHODS:
    setattr(_Handler, f"do_{_method}", _Handler._other_method)


def _question(text: str, csv: bool) -> Question:
    try:
        given: dict[str, Any] = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=9))
        given |= {key: int(given[key]) for key in ("offset", "limit") if key in given}
        return Question(**given, csv=csv)
    except (TypeError, ValueError) as error:
        tip = "A question has table, where, sort, offset, limit."
        raise UsageError("that is no question", tip) from error
