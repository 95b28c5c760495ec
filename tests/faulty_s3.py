"""A proxy before a real S3-compatible server that fails as it is told: answers 5xx, cuts, waits, shortens, changes."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.s3 import S3Server

Fault = Callable[["Exchange"], bool]
"""Does something to an exchange; gives whether it has answered it."""


class Exchange(BaseHTTPRequestHandler):
    """One request. Passed on as it came, so its signature stays good."""

    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def handle_one(self) -> None:
        self.server.seen.append(self.command)
        if self.command in self.server.methods and self.server.fault is not None and self.server.left > 0:
            self.server.left -= 1
            if self.server.fault(self):
                return
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(*self.passed_on())

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_one

    def passed_on(self) -> tuple[int, list[tuple[str, str]], bytes]:
        """What the server says."""
        behind = http.client.HTTPConnection(self.server.behind, timeout=30)
        behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            behind.putheader(name, value)
        behind.endheaders(self.body)
        told = behind.getresponse()
        content = told.read()
        behind.close()
        return told.status, told.getheaders(), content

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, length: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        known = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(length or len(body))
        self.send_header("Content-Length", known)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self) -> None:
        """Closes the connection without another word."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class FaultyS3(ThreadingHTTPServer):
    """Listens on loopback; ``fault`` is done to the next ``left`` requests of some methods."""

    daemon_threads = True

    def __init__(self, server: S3Server) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.behind = server.endpoint.removeprefix("http://")
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.fault: Fault | None = None
        self.methods: tuple[str, ...] = ()
        self.left = 0
        self.seen: list[str] = []

    def handle_error(self, *_: object) -> None:
        """A client that went away is what these tests are about."""

    @contextmanager
    def failing(self, fault: Fault, *methods: str, times: int = 1_000_000) -> Iterator[None]:
        """While the block runs."""
        self.fault, self.methods, self.left = fault, methods, times
        try:
            yield
        finally:
            self.fault = None


@contextmanager
def faulty(server: S3Server) -> Iterator[FaultyS3]:
    """A proxy before a server, until the end of the block."""
    proxy = FaultyS3(server)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


def status(code: int, name: str = "InternalError") -> Fault:
    """Answers with an error of S3."""

    def fault(exchange: Exchange) -> bool:
        exchange.rfile.read(int(exchange.headers.get("Content-Length") or 0))
        exchange.answer(code, [], f"<Error><Code>{name}</Code><Message>m</Message></Error>".encode())
        return True

    return fault


def cut_at_once(exchange: Exchange) -> bool:
    """Goes away before an answer; the body may be under way."""
    exchange.rfile.read(min(1000, int(exchange.headers.get("Content-Length") or 0)))
    exchange.cut()
    return True


def cut_after_doing(exchange: Exchange) -> bool:
    """The server did what it was asked, and nobody is told."""
    exchange.body = exchange.rfile.read(int(exchange.headers.get("Content-Length") or 0))
    exchange.passed_on()
    exchange.cut()
    return True


def half_an_answer(exchange: Exchange) -> bool:
    """Announces all, gives half."""
    exchange.body = b""
    told, headers, body = exchange.passed_on()
    exchange.answer(told, headers, body[: len(body) // 2], length=len(body))
    exchange.cut()
    return True


def never(exchange: Exchange) -> bool:
    """Takes the request and says nothing."""
    exchange.connection.settimeout(20)
    with suppress(OSError):
        while exchange.connection.recv(65536):
            pass
    exchange.close_connection = True
    return True


def changed_answer(exchange: Exchange) -> bool:
    """Other bytes of the same length."""
    exchange.body = b""
    told, headers, body = exchange.passed_on()
    if body:
        middle = len(body) // 2
        body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
    exchange.answer(told, headers, body)
    return True


def changed_request(exchange: Exchange) -> bool:
    """A byte turned on the way to the server."""
    body = exchange.rfile.read(int(exchange.headers.get("Content-Length") or 0))
    exchange.body = body[:-1] + bytes([body[-1] ^ 1]) if body else body
    exchange.answer(*exchange.passed_on())
    return True
