"""A witness (C2SP tlog-witness): remembers the newest checkpoint of each log it knows and cosigns only what extends it.

Owns its folder and its HTTP door; a log asks with `model.ask_witness`. Refuses roll-back and fork. What it has cosigned
is on disk, synced, before the answer leaves; state it cannot read stops that log, it never counts as "nothing seen".

    FOLDER/key          its private key, 0600            FOLDER/logs/*.vkey     the logs it knows, one key a file
    FOLDER/witness.vkey its verifier key                 FOLDER/state/*.note    the newest cosigned note of each
"""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

from ehrfast._core import LockFile, SigningKey
from ehrfast.errors import (
    ConflictError,
    CorruptionError,
    EhrfastError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from ehrfast.model.ask_witness import SIZE_TYPE, Answer
from ehrfast.model.ask_witness import request_cosignature as request_cosignature
from ehrfast.model.checkpoint import (
    LOG_SIGNATURE,
    Checkpoint,
    Note,
    NoteSignature,
    VerifierKey,
    cosign,
    decode_base64,
    decode_decimal,
    verify_cosignature,
    verify_note,
    witness_key,
)
from ehrfast.model.durable import write_synced
from ehrfast.model.key_history import KeyHistory

MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_PROOF_HASHES: Final = 63
MAX_CONNECTIONS: Final = 64
REQUEST_SECONDS: Final = 10.0
_EMPTY_ROOT: Final = sha256(b"").digest()
_SEED_BYTES: Final = 32
_journal: Final = logging.getLogger("ehrfast.witness")


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.answer = Answer(status, f"{reason}\n".encode())


@dataclass(slots=True)
class _Watched:
    """One log: the keys it signs with, and what was last cosigned for it, guarded by the lock."""

    keys: tuple[VerifierKey, ...]
    lock: threading.Lock = field(default_factory=threading.Lock)
    loaded: bool = False
    checkpoint: Checkpoint | None = None
    timestamp: int = 0

    @property
    def tree_size(self) -> int:
        return 0 if self.checkpoint is None else self.checkpoint.tree_size


class Witness:
    """The rules of a witness over its folder; `WitnessServer` puts HTTP in front of it. Threads may share it."""

    def __init__(self, folder: Path, name: str, key: SigningKey, lock: LockFile, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._name = name
        self._key = key
        self._lock = lock
        self._clock = clock
        self._known: dict[str, _Watched] = {}
        self._watched: dict[str, _Watched] = {}
        self._listing = threading.Lock()
        self._listed: tuple[tuple[str, int], ...] | None = None

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], name: str | None = None, *, clock: Callable[[], float] = time.time
    ) -> Witness:
        """A new witness with a key of its own.

        Args:
            folder: made if absent.
            name: how it signs; by default ``witness-`` and the beginning of its public key.

        Raises:
            ConflictError: ``witness.exists``, ``witness.locked``.
            InvalidInputError: ``verifier_key.malformed`` for the name.
        """
        root, key = Path(folder), SigningKey.generate()
        named = name or f"witness-{key.public_key.hex()[:16]}"
        vkey = witness_key(named, key.public_key)
        for part in (root, root / "logs", root / "state"):
            part.mkdir(parents=True, exist_ok=True)
        lock = _lock_folder(root)
        try:
            if (root / "key").exists():
                raise ConflictError("witness.exists")
            write_synced(root / "witness.vkey", f"{vkey}\n".encode(), mode=0o644)
            write_synced(root / "key", key.seed().hex().encode(), mode=0o600)
        except BaseException:
            lock.release()
            raise
        return cls(root, named, key, lock, clock)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> Witness:
        """A witness that was created before; one process at a time.

        Raises:
            NotFoundError: ``witness.not_found``.
            ConflictError: ``witness.locked`` with the owner's ``pid``.
            CorruptionError: ``witness.key_damaged``.
        """
        root = Path(folder)
        try:
            seed = bytes.fromhex((root / "key").read_text("ascii"))
            vkey = VerifierKey.decode((root / "witness.vkey").read_text("utf-8").strip())
        except FileNotFoundError:
            raise NotFoundError("witness.not_found") from None
        except ValueError:
            raise CorruptionError("witness.key_damaged") from None
        if len(seed) != _SEED_BYTES or SigningKey.from_seed(seed).public_key != vkey.public_key:
            raise CorruptionError("witness.key_damaged")
        return cls(root, vkey.name, SigningKey.from_seed(seed), _lock_folder(root), clock)

    @property
    def vkey(self) -> str:
        """The key under which its cosignatures are verified."""
        return witness_key(self._name, self._key.public_key)

    def add_log(self, vkey: str) -> None:
        """Lets a log be witnessed; a running witness takes note of the file by itself.

        Raises:
            InvalidInputError: ``verifier_key.malformed``, ``verifier_key.wrong_algorithm``.
        """
        add_log(self._folder, vkey)

    def latest(self, origin: str) -> Checkpoint | None:
        """What was last cosigned for a log, or None.

        Raises:
            NotFoundError: ``witness.unknown_log``.
            CorruptionError: ``witness.state_damaged``.
        """
        watched = self._find(origin)
        if watched is None:
            raise NotFoundError("witness.unknown_log")
        with watched.lock:
            self._load(origin, watched)
            return watched.checkpoint

    def add_checkpoint(self, request: bytes) -> Answer:
        """Answers an ``add-checkpoint`` request; a 200 is durable when this returns.

        Source: C2SP tlog-witness.
        """
        try:
            old_size, proof, note = _parse_request(request)
            checkpoint = Checkpoint.parse(note.text, allow_extensions=True)
        except InvalidInputError as error:
            return Answer(400, f"{error.code}\n".encode())
        try:
            return self._judge(old_size, proof, note, checkpoint)
        except _RefusedError as refused:
            return refused.answer

    def close(self) -> None:
        """Gives the folder free."""
        self._lock.release()

    def __enter__(self) -> Witness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _judge(self, old_size: int, proof: Sequence[bytes], note: Note, checkpoint: Checkpoint) -> Answer:
        watched = self._find(checkpoint.origin)
        if watched is None:
            raise _RefusedError(404, "unknown log")
        signature = _signature_of(note, watched.keys)
        if old_size > checkpoint.tree_size:
            raise _RefusedError(400, "old size above the checkpoint's")
        with watched.lock:
            self._load(checkpoint.origin, watched)
            known = Answer(409, f"{watched.tree_size}\n".encode(), SIZE_TYPE)
            if old_size != watched.tree_size:
                return known
            if old_size == checkpoint.tree_size:
                root = _EMPTY_ROOT if watched.checkpoint is None else watched.checkpoint.root
                if root != checkpoint.root:
                    return known
            if not _extends(watched.checkpoint, checkpoint, proof):
                raise _RefusedError(422, "consistency proof does not hold")
            timestamp = max(int(self._clock()), watched.timestamp, 1)
            line = cosign(note, self._key, self._name, timestamp=timestamp)
            kept = Note(note.text, (signature, NoteSignature.parse(line)))
            write_synced(self._state_path(checkpoint.origin), kept.render(), mode=0o600)
            watched.checkpoint, watched.timestamp = checkpoint, timestamp
        return Answer(200, line.encode())

    def _find(self, origin: str) -> _Watched | None:
        """The log of that name; the folder of keys is read again when it has changed."""
        with self._listing:
            listed = tuple(sorted(_listed(self._folder / "logs")))
            if listed != self._listed:
                self._watched = self._read_logs([self._folder / "logs" / name for name, _ in listed])
                self._listed = listed
            return self._watched.get(origin)

    def _read_logs(self, paths: Sequence[Path]) -> dict[str, _Watched]:
        keys: dict[str, tuple[VerifierKey, ...]] = {}
        for path in paths:
            try:
                key = VerifierKey.decode(path.read_text("utf-8").strip())
            except (OSError, ValueError):
                # One bad file must not silence the witness for every other log.
                _journal.warning("no verifier key in logs/%s", path.name)
                continue
            keys[key.name] = (*keys.get(key.name, ()), key)
        watched = {}
        for origin, known in keys.items():
            # The same object for the same log: its lock must not be doubled while a request holds it.
            watched[origin] = self._known.setdefault(origin, _Watched(known))
            watched[origin].keys = known
        return watched

    def _load(self, origin: str, watched: _Watched) -> None:
        if watched.loaded:
            return
        try:
            note = Note.parse(self._state_path(origin).read_bytes())
            checkpoint = Checkpoint.parse(note.text, allow_extensions=True)
            timestamp = verify_cosignature(note, self.vkey)
        except FileNotFoundError:
            watched.loaded = True
            return
        except EhrfastError:
            raise CorruptionError("witness.state_damaged") from None
        if checkpoint.origin != origin:
            raise CorruptionError("witness.state_damaged")
        watched.checkpoint, watched.timestamp, watched.loaded = checkpoint, timestamp, True

    def _state_path(self, origin: str) -> Path:
        return self._folder / "state" / f"{sha256(origin.encode()).hexdigest()}.note"


def add_log(folder: str | os.PathLike[str], vkey: str) -> None:
    """Makes a log known to the witness of a folder, whether it runs or not.

    Raises:
        InvalidInputError: ``verifier_key.malformed``, ``verifier_key.wrong_algorithm``.
        NotFoundError: ``witness.not_found``.
    """
    key = VerifierKey.decode(vkey.strip())
    if key.algorithm != LOG_SIGNATURE:
        raise InvalidInputError("verifier_key.wrong_algorithm")
    logs = Path(folder) / "logs"
    if not logs.is_dir():
        raise NotFoundError("witness.not_found")
    write_synced(logs / f"{sha256(key.encode().encode()).hexdigest()[:32]}.vkey", f"{vkey.strip()}\n".encode(), 0o644)


def follow_log(folder: str | os.PathLike[str], history: bytes) -> str:
    """Lets a log that is known sign with the newest key of its history only, whether the witness runs or not.

    Returns:
        That key.

    Raises:
        InvalidInputError: ``key_history.malformed``.
        VerificationError: a statement is not signed by the former key, or not by the new one.
        NotFoundError: ``witness.not_found``, ``witness.unknown_log``: none of its keys is known here.
    """
    logs = Path(folder) / "logs"
    if not logs.is_dir():
        raise NotFoundError("witness.not_found")
    keys = [key.encode() for key in KeyHistory.parse(history).keys]
    known = {logs / name: (logs / name).read_text("utf-8").strip() for name, _ in _listed(logs)}
    if not set(known.values()) & set(keys):
        raise NotFoundError("witness.unknown_log")
    add_log(folder, keys[-1])
    for path, vkey in known.items():
        if vkey in keys[:-1]:
            path.unlink()
    return keys[-1]


def _listed(folder: Path) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".vkey") and not entry.name.startswith("."):
                with suppress(FileNotFoundError):
                    yield entry.name, entry.stat().st_mtime_ns


def _extends(known: Checkpoint | None, checkpoint: Checkpoint, proof: Sequence[bytes]) -> bool:
    if known is None or known.tree_size == 0:
        return not proof
    try:
        checkpoint.verify_extends(known, proof)
    except VerificationError:
        return False
    return True


def _signature_of(note: Note, keys: Sequence[VerifierKey]) -> NoteSignature:
    """The first signature that holds under a key of the log; those of unknown keys are ignored."""
    for key in keys:
        with suppress(VerificationError):
            verify_note(note, key)
            return NoteSignature(key.name, key.key_id, note.signatures_by(key)[0])
    raise _RefusedError(403, "no signature by a key of this log")


def _parse_request(request: bytes) -> tuple[int, tuple[bytes, ...], Note]:
    code = "witness.request_malformed"
    head, blank, note = request.partition(b"\n\n")
    if not blank or not head.isascii():
        raise InvalidInputError(code)
    first, *lines = head.decode().split("\n")
    if not first.startswith("old ") or len(lines) > MAX_PROOF_HASHES:
        raise InvalidInputError(code)
    proof = tuple(decode_base64(line, code) for line in lines)
    if any(len(each) != 32 for each in proof):
        raise InvalidInputError(code)
    return decode_decimal(first.removeprefix("old "), code), proof, Note.parse(note)


def _lock_folder(folder: Path) -> LockFile:
    """Held until released or until the process ends: two memories of one log could be played against each other."""
    try:
        return LockFile.acquire(str(folder / "lock"))
    except ConflictError as held:
        raise ConflictError("witness.locked", held.details) from None


# ── server ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class WitnessServer:
    """HTTP in front of a witness, on threads of its own, until it is closed.

    Args:
        witness: answers; closing the server does not close it.
        host: loopback by default.
        port: 0 for any free one.
        request_seconds: how long a client may take for one request.

    >>> with WitnessServer(witness) as server:  # doctest: +SKIP
    ...     print(server.url)
    """

    def __init__(
        self,
        witness: Witness,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._server = _Server(witness, host, port, request_seconds)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The submission prefix."""
        host, port = self._server.server_address[:2]
        named = host if isinstance(host, str) else host.decode()
        return f"http://[{named}]:{port}" if ":" in named else f"http://{named}:{port}"

    def close(self) -> None:
        """Stops listening, lets the requests that have arrived be answered, and returns when they are."""
        self._server.shutdown()
        self._thread.join()
        self._server.stop_reading()
        self._server.server_close()

    def __enter__(self) -> WitnessServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_witness(
    folder: str | os.PathLike[str],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    name: str | None = None,
    logs: Sequence[str] = (),
    ready: Callable[[str, str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Runs a witness until SIGTERM, SIGINT or ``stop``; a folder without one gets a new one.

    Args:
        folder: of the witness.
        host: loopback by default.
        port: 0 for any free one.
        name: for a new witness.
        logs: verifier keys of logs to add.
        ready: called with the URL and the witness's verifier key once it listens.
        stop: ends it from another thread.

    Raises:
        ConflictError: ``witness.locked`` with the owner's ``pid``.
        UnavailableError: ``witness.cannot_listen``.
    """
    fresh = not (Path(folder) / "key").exists()
    stopped = stop or threading.Event()
    with Witness.create(folder, name) if fresh else Witness.open(folder) as witness:
        for vkey in logs:
            witness.add_log(vkey)
        try:
            server = WitnessServer(witness, host, port)
        except OSError:
            raise UnavailableError("witness.cannot_listen", {"port": port}) from None
        with server, _StopOnSignal(stopped):
            if ready is not None:
                ready(server.url, witness.vkey)
            stopped.wait()


class _StopOnSignal:
    """Sets the event on SIGTERM and SIGINT while entered; only the main thread may take signals."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> None:
        def stop(number: int, frame: FrameType | None) -> None:
            self._stopped.set()

        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, witness: Witness, host: str, port: int, request_seconds: float) -> None:
        self.witness = witness
        self.request_seconds = request_seconds
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._opening = threading.Lock()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # The base class looks the host's name up, which may ask the network.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        assert isinstance(request, socket.socket)
        if not self._room.acquire(blocking=False):
            with suppress(OSError):
                request.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            request.close()
            return
        with self._opening:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)
        with self._opening:
            known = request in self._open
            self._open.discard(request)
        super().shutdown_request(request)
        if known:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        _journal.warning("connection failed", exc_info=False)

    def stop_reading(self) -> None:
        """Ends idle connections at once; one whose request is being judged still gets its answer."""
        with self._opening:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RD)


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a moment, however the bytes trickle in."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._connection.settimeout(remaining)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ehrfast-witness"
    sys_version = ""
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._reader = _DeadlineReader(self.connection)
        self.rfile = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        self._reader.deadline = time.monotonic() + self.server.request_seconds
        with suppress(ConnectionError, BrokenPipeError):
            super().handle_one_request()
            return
        self.close_connection = True

    def do_POST(self) -> None:
        if self.path != "/add-checkpoint":
            return self._reply(Answer(404, b"not found\n"), close=True)
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            return self._reply(Answer(411, b"content length required\n"), close=True)
        if len(length) > 9 or int(length) > MAX_REQUEST_BYTES:
            return self._reply(Answer(413, b"request too large\n"), close=True)
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            self.close_connection = True
            return None
        try:
            answer = self.server.witness.add_checkpoint(body)
        except (EhrfastError, OSError) as error:
            _journal.error("cannot answer: %s", error.code if isinstance(error, EhrfastError) else type(error).__name__)
            answer = Answer(500, b"internal error\n")
        return self._reply(answer)

    def do_GET(self) -> None:
        self._reply(Answer(405 if self.path == "/add-checkpoint" else 404, b"not here\n"), close=True)

    def _reply(self, answer: Answer, *, close: bool = False) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *arguments: object) -> None:
        _journal.debug(format, *arguments)
