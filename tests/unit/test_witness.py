"""A witness: what it cosigns, what it refuses, what it still knows after a crash, and the client that asks it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from ehrfast import witness as module
from ehrfast._core import Log, SigningKey
from ehrfast.errors import (
    ConflictError,
    CorruptionError,
    DeniedError,
    EhrfastError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from ehrfast.model.checkpoint import (
    Checkpoint,
    Note,
    NoteSignature,
    VerifierKey,
    add_signatures,
    cosign,
    open_checkpoint,
    sign_checkpoint,
    verifier_key,
    verify_cosignature,
    witness_key,
)
from ehrfast.witness import Answer, Witness, WitnessServer, request_cosignature
from hypothesis import given, settings
from hypothesis import strategies as st

KEY = SigningKey.from_seed(bytes(32))
ORIGIN = "clinic-north-0123456789abcdef0123456789abcdef"
VKEY = verifier_key(ORIGIN, KEY.public_key)
LEAVES = [b"leaf %d" % index for index in range(40)]


def log_of(leaves: Sequence[bytes]) -> Log:
    log = Log()
    log.append(list(leaves))
    return log


LOG = log_of(LEAVES)
FORK = log_of([*LEAVES[:10], *(leaf + b"'" for leaf in LEAVES[10:])])


def note_of(tree_size: int, log: Log = LOG, key: SigningKey = KEY, origin: str = ORIGIN) -> bytes:
    return sign_checkpoint(Checkpoint(origin, tree_size, log.root(tree_size)), key)


def request_of(old_size: int, tree_size: int, log: Log = LOG, *, proof: list[bytes] | None = None) -> bytes:
    if proof is None:
        proof = log.prove_consistency(old_size, tree_size) if old_size <= tree_size else []
    return b"".join(
        [b"old %d\n" % old_size, *(b64encode(each) + b"\n" for each in proof), b"\n", note_of(tree_size, log)]
    )


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    with Witness.create(tmp_path / "w", "witness.example/w1", clock=lambda: 1_800_000_000.9) as made:
        made.add_log(VKEY)
        yield made


def reopened(witness: Witness) -> Witness:
    witness.close()
    return Witness.open(witness._folder)


def assert_cosigned(witness: Witness, answer: Answer, tree_size: int, log: Log = LOG) -> None:
    assert answer.status == 200, answer
    note = note_of(tree_size, log) + answer.body
    assert open_checkpoint(note, VKEY, witnesses=[witness.vkey], quorum=1).tree_size == tree_size


def test_it_cosigns_a_log_that_only_grows(witness: Witness) -> None:
    for old_size, tree_size in [(0, 3), (3, 3), (3, 8), (8, 8), (8, 40), (40, 40)]:
        answer = witness.add_checkpoint(request_of(old_size, tree_size))
        assert_cosigned(witness, answer, tree_size)
        assert verify_cosignature(note_of(tree_size) + answer.body, witness.vkey) == 1_800_000_000
        assert witness.latest(ORIGIN) == Checkpoint(ORIGIN, tree_size, LOG.root(tree_size))


def test_an_empty_log_is_cosigned_once_it_is_the_empty_log(witness: Witness) -> None:
    wrong = b"old 0\n\n" + sign_checkpoint(Checkpoint(ORIGIN, 0, bytes(32)), KEY)
    assert witness.add_checkpoint(wrong).status == 409
    assert_cosigned(witness, witness.add_checkpoint(request_of(0, 0)), 0)
    assert_cosigned(witness, witness.add_checkpoint(request_of(0, 5)), 5)


@pytest.mark.parametrize(
    ("request_bytes", "status", "body"),
    [
        (request_of(0, 5), 409, b"20\n"),
        (request_of(19, 30), 409, b"20\n"),
        (request_of(21, 30), 409, b"20\n"),
        (request_of(20, 19), 400, None),
        (request_of(20, 30, proof=[]), 422, None),
        (request_of(20, 30, proof=LOG.prove_consistency(20, 31)), 422, None),
        (request_of(20, 30, FORK), 422, None),
        (request_of(20, 20, FORK), 409, b"20\n"),
        (request_of(20, 20, proof=[bytes(32)]), 422, None),
    ],
)
def test_it_refuses_roll_back_and_fork_and_forgets_nothing(
    witness: Witness, request_bytes: bytes, status: int, body: bytes | None
) -> None:
    assert_cosigned(witness, witness.add_checkpoint(request_of(0, 20)), 20)
    answer = witness.add_checkpoint(request_bytes)
    assert answer.status == status
    if body is not None:
        assert answer == Answer(409, body, "text/x.tlog.size")
    assert witness.latest(ORIGIN) == Checkpoint(ORIGIN, 20, LOG.root(20))
    again = reopened(witness)
    assert again.latest(ORIGIN) == Checkpoint(ORIGIN, 20, LOG.root(20))
    again.close()


def test_a_first_checkpoint_takes_no_proof(witness: Witness) -> None:
    assert witness.add_checkpoint(request_of(0, 5, proof=[bytes(32)])).status == 422
    assert witness.latest(ORIGIN) is None


def test_only_known_logs_under_their_own_keys(witness: Witness) -> None:
    other = SigningKey.from_seed(b"\1" * 32)
    assert witness.add_checkpoint(b"old 0\n\n" + note_of(5, origin="another-log")).status == 404
    assert witness.add_checkpoint(b"old 0\n\n" + note_of(5, key=other)).status == 403
    body = Checkpoint(ORIGIN, 5, LOG.root(5)).body()
    key_id = VerifierKey.decode(VKEY).key_id
    forged = Note(body, (NoteSignature(ORIGIN, key_id, other.sign(body)),)).render()
    assert witness.add_checkpoint(b"old 0\n\n" + forged).status == 403
    assert witness.latest(ORIGIN) is None
    unknown = add_signatures(note_of(5), [cosign(note_of(5), other, "someone", timestamp=1)])
    assert_cosigned(witness, witness.add_checkpoint(b"old 0\n\n" + unknown), 5)
    with pytest.raises(NotFoundError, match=r"witness\.unknown_log"):
        witness.latest("another-log")


def test_a_log_may_change_its_key_and_another_log_may_join(witness: Witness) -> None:
    assert_cosigned(witness, witness.add_checkpoint(request_of(0, 5)), 5)
    fresh = SigningKey.from_seed(b"\1" * 32)
    module.add_log(witness._folder, verifier_key(ORIGIN, fresh.public_key))
    module.add_log(witness._folder, verifier_key("another-log", fresh.public_key))
    proof = [b64encode(each) + b"\n" for each in LOG.prove_consistency(5, 9)]
    rotated = b"".join([b"old 5\n", *proof, b"\n", note_of(9, key=fresh)])
    assert witness.add_checkpoint(rotated).status == 200
    assert witness.add_checkpoint(b"old 0\n\n" + note_of(5, key=fresh, origin="another-log")).status == 200
    (witness._folder / "logs" / "broken.vkey").write_text("no key")
    assert witness.add_checkpoint(request_of(9, 9)).status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"old 0\n",
        note_of(5),
        b"old 00\n\n" + note_of(5),
        b"old -1\n\n" + note_of(5),
        b"old  0\n\n" + note_of(5),
        b"old 0\r\n\n" + note_of(5),
        b"old %d\n\n" % 2**63 + note_of(5),
        b"old 0\nnot base64\n\n" + note_of(5),
        b"old 0\n" + b64encode(bytes(31)) + b"\n\n" + note_of(5),
        b"old 0\n" + (b64encode(bytes(32)) + b"\n") * 64 + b"\n" + note_of(5),
        b"old 0\n\n" + note_of(5)[:-1],
        b"old 0\n\n" + note_of(5).replace(b"\n5\n", b"\n05\n"),
    ],
)
def test_a_malformed_request_is_told_so(witness: Witness, request_bytes: bytes) -> None:
    assert witness.add_checkpoint(request_bytes).status == 400


def test_extension_lines_of_other_logs_are_cosigned_with_the_text(witness: Witness) -> None:
    text = Checkpoint(ORIGIN, 5, LOG.root(5)).body() + b"extension\n"
    note = Note(text, (NoteSignature(ORIGIN, VerifierKey.decode(VKEY).key_id, KEY.sign(text)),)).render()
    answer = witness.add_checkpoint(b"old 0\n\n" + note)
    assert answer.status == 200
    assert verify_cosignature(note + answer.body, witness.vkey) > 0
    again = reopened(witness)
    assert again.latest(ORIGIN) == Checkpoint(ORIGIN, 5, LOG.root(5))
    again.close()


def test_time_does_not_run_backwards(tmp_path: Path) -> None:
    now = [1000.0]
    with Witness.create(tmp_path, clock=lambda: now[0]) as witness:
        witness.add_log(VKEY)
        witness.add_checkpoint(request_of(0, 5))
        now[0] = 10.0
        answer = witness.add_checkpoint(request_of(5, 6))
        assert verify_cosignature(note_of(6) + answer.body, witness.vkey) == 1000


def test_nothing_is_answered_before_it_is_synced(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        order.append("sync file" if os.path.isfile(f"/proc/self/fd/{descriptor}") else "sync folder")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    answer = witness.add_checkpoint(request_of(0, 5))
    assert answer.status == 200
    assert order == ["sync file", "sync folder"]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        witness.add_checkpoint(request_of(5, 9))
    monkeypatch.setattr(os, "fsync", sync)
    assert witness.latest(ORIGIN) == Checkpoint(ORIGIN, 5, LOG.root(5))
    assert_cosigned(witness, witness.add_checkpoint(request_of(5, 9)), 9)


@pytest.mark.parametrize("damage", [b"", b"\0", b"cut"])
def test_damaged_state_stops_the_log_and_never_counts_as_nothing_seen(witness: Witness, damage: bytes) -> None:
    witness.add_checkpoint(request_of(0, 20))
    (state,) = (witness._folder / "state").iterdir()
    whole = state.read_bytes()
    state.write_bytes({b"": b"", b"\0": whole.replace(b"\n20\n", b"\n10\n"), b"cut": whole[:-40]}[damage])
    again = reopened(witness)
    for _ in range(2):
        with pytest.raises(CorruptionError, match=r"witness\.state_damaged"):
            again.add_checkpoint(request_of(0, 5))
    state.write_bytes(whole)
    assert again.add_checkpoint(request_of(0, 5)) == Answer(409, b"20\n", "text/x.tlog.size")
    again.close()


def test_one_process_holds_a_witness(witness: Witness) -> None:
    with pytest.raises(ConflictError, match=r"witness\.locked"):
        Witness.open(witness._folder)
    with pytest.raises(ConflictError, match=r"witness\.locked"):
        Witness.create(witness._folder)
    witness.close()
    with pytest.raises(ConflictError, match=r"witness\.exists"):
        Witness.create(witness._folder)
    with pytest.raises(NotFoundError, match=r"witness\.not_found"):
        Witness.open(witness._folder / "absent")
    assert (witness._folder / "key").stat().st_mode & 0o777 == 0o600
    (witness._folder / "key").write_text("00" * 32)
    with pytest.raises(CorruptionError, match=r"witness\.key_damaged"):
        Witness.open(witness._folder)


def test_of_two_forks_sent_at_once_one_is_cosigned(witness: Witness) -> None:
    assert witness.add_checkpoint(request_of(0, 10)).status == 200
    requests = [request_of(10, 12 + index % 4, (LOG, FORK)[index % 2]) for index in range(64)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(witness.add_checkpoint, requests))
    granted = {request for request, answer in zip(requests, answers, strict=True) if answer.status == 200}
    assert len(granted) == 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from([LOG, FORK])), max_size=30))
def test_all_it_ever_cosigned_is_one_history(attempts: list[tuple[int, int, Log]]) -> None:
    with tempfile.TemporaryDirectory() as folder, Witness.create(folder) as witness:
        witness.add_log(VKEY)
        history = [Checkpoint(ORIGIN, 0, LOG.root(0))]
        for old_size, tree_size, log in attempts:
            answer = witness.add_checkpoint(request_of(old_size, tree_size, log))
            known = history[-1].tree_size
            honest = old_size == known <= tree_size and log.root(known) == history[-1].root
            assert (answer.status == 200) == honest
            if honest:
                history.append(Checkpoint(ORIGIN, tree_size, log.root(tree_size)))
        assert all(later.tree_size >= earlier.tree_size for earlier, later in pairwise(history))


# ── over HTTP ──


@pytest.fixture
def server(witness: Witness) -> Iterator[WitnessServer]:
    with WitnessServer(witness, request_seconds=0.5) as running:
        yield running


def connect(server: WitnessServer) -> HTTPConnection:
    return HTTPConnection(server.url.removeprefix("http://"), timeout=5)


def test_a_connection_serves_many_requests(server: WitnessServer, witness: Witness) -> None:
    connection = connect(server)
    for old_size, tree_size in [(0, 4), (4, 9), (9, 9)]:
        connection.request("POST", "/add-checkpoint", request_of(old_size, tree_size))
        response = connection.getresponse()
        assert response.status == 200
        assert verify_cosignature(note_of(tree_size) + response.read(), witness.vkey) > 0
    connection.request("POST", "/add-checkpoint", request_of(0, 4))
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Type"), response.read()) == (409, "text/x.tlog.size", b"9\n")
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/", b"", {}, 404),
        ("GET", "/add-checkpoint", None, {}, 405),
        ("GET", "/", None, {}, 404),
        ("PUT", "/add-checkpoint", b"", {}, 501),
        ("POST", "/add-checkpoint", b"", {"Content-Length": "65537"}, 413),
        ("POST", "/add-checkpoint", b"", {"Content-Length": "9" * 30}, 413),
        ("POST", "/add-checkpoint", b"", {"Content-Length": "-1"}, 411),
        ("POST", "/add-checkpoint", iter([b"old 0"]), {}, 411),
        ("POST", "/add-checkpoint", b"old 0\n\n", {}, 400),
    ],
)
def test_the_door_refuses(
    server: WitnessServer,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None,
    headers: dict[str, str],
    status: int,
) -> None:
    connection = connect(server)
    connection.request(method, path, body, headers)
    assert connection.getresponse().status == status
    connection.close()


def test_a_trickling_client_is_cut_off_and_others_are_served(server: WitnessServer, witness: Witness) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 100\r\n\r\nold")
        line = request_cosignature(server.url, witness.vkey, 0, LOG.prove_consistency, note_of(7))
        assert verify_cosignature(note_of(7) + line.encode(), witness.vkey) > 0
        slow.settimeout(0.05)
        for _ in range(97):
            try:
                slow.sendall(b".")
                answered = slow.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:
                return
            assert answered == b""
            return
        pytest.fail("read to the end")


def test_closing_waits_for_no_idle_client(witness: Witness) -> None:
    running = WitnessServer(witness, request_seconds=60)
    idle = connect(running)
    idle.request("POST", "/add-checkpoint", request_of(0, 4))
    assert idle.getresponse().read()
    closing = threading.Thread(target=running.close)
    closing.start()
    closing.join(20)
    hung = closing.is_alive()
    idle.close()
    closing.join()
    assert not hung


def test_damaged_state_is_an_internal_error_to_the_log(server: WitnessServer, witness: Witness) -> None:
    path = witness._state_path(ORIGIN)
    path.write_bytes(b"damaged")
    with pytest.raises(UnavailableError) as refusal:
        request_cosignature(server.url, witness.vkey, 0, LOG.prove_consistency, note_of(7))
    assert refusal.value.details == {"status": 500}


# ── the client ──


def test_the_client_asks_again_with_the_size_it_is_told(server: WitnessServer, witness: Witness) -> None:
    for tree_size, believed in [(5, 0), (9, 0), (20, 4), (20, 0), (40, 39)]:
        line = request_cosignature(server.url, witness.vkey, believed, LOG.prove_consistency, note_of(tree_size))
        note = add_signatures(note_of(tree_size), [line])
        assert open_checkpoint(note, VKEY, witnesses=[witness.vkey], quorum=1).tree_size == tree_size


def test_the_client_names_what_the_witness_holds_against_it(server: WitnessServer, witness: Witness) -> None:
    def ask(note: bytes, log: Log = LOG, old_size: int = 0, vkey: str = witness.vkey) -> str:
        return request_cosignature(server.url, vkey, old_size, log.prove_consistency, note)

    ask(note_of(20))
    other = SigningKey.from_seed(b"\1" * 32)
    refused: list[tuple[Callable[[], str], type[EhrfastError], str]] = [
        (lambda: ask(note_of(19)), ConflictError, "witness.ahead"),
        (lambda: ask(note_of(20, FORK), FORK), ConflictError, "witness.fork"),
        (lambda: ask(note_of(30, FORK), FORK), VerificationError, "witness.proof_refused"),
        (lambda: ask(note_of(30, key=other)), DeniedError, "witness.signature_refused"),
        (lambda: ask(note_of(30, origin="another-log")), NotFoundError, "witness.unknown_log"),
        (
            lambda: ask(note_of(20), vkey=witness_key("w", other.public_key)),
            VerificationError,
            "cosignature.missing",
        ),
        (lambda: ask(b"no note"), InvalidInputError, "note.malformed"),
    ]
    for attempt, kind, code in refused:
        with pytest.raises(kind) as refusal:
            attempt()
        assert refusal.value.code == code


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1", "witness.unreachable"),
        ("ftp://127.0.0.1/", "witness.bad_url"),
        ("file:///etc/passwd", "witness.bad_url"),
        ("http://127.0.0.1:1/?x", "witness.bad_url"),
    ],
)
def test_an_address_that_is_no_witness(witness: Witness, url: str, code: str) -> None:
    with pytest.raises((UnavailableError, InvalidInputError)) as refusal:
        request_cosignature(url, witness.vkey, 0, LOG.prove_consistency, note_of(7), timeout=1)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("status", "headers", "body", "code"),
    [
        (307, {"Location": "http://127.0.0.1:1/elsewhere"}, b"", "witness.failed"),
        (503, {}, b"", "witness.failed"),
        (409, {"Content-Type": "text/plain"}, b"5\n", "witness.failed"),
        (409, {"Content-Type": "text/x.tlog.size"}, b"five\n", "witness.failed"),
        (409, {"Content-Type": "text/x.tlog.size"}, b"3\n", "witness.failed"),
        (200, {}, b"", "cosignature.malformed"),
        (200, {}, "— someone AAAAAAA=\n".encode(), "cosignature.missing"),
        (200, {}, bytes(100_000), "witness.failed"),
        (413, {}, b"", "witness.request_refused"),
    ],
)
def test_an_answer_that_is_none(witness: Witness, status: int, headers: dict[str, str], body: bytes, code: str) -> None:
    class Strange(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    strange = HTTPServer(("127.0.0.1", 0), Strange)
    threading.Thread(target=strange.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        with pytest.raises(EhrfastError) as refusal:
            request_cosignature(
                f"http://127.0.0.1:{strange.server_port}", witness.vkey, 0, LOG.prove_consistency, note_of(7), timeout=2
            )
    finally:
        strange.shutdown()
        strange.server_close()
    assert refusal.value.code == code


# ── as a process ──

RUN = """
import sys
from ehrfast.witness import run_witness
run_witness(sys.argv[1], logs=sys.argv[2:], ready=lambda url, vkey: print(url, vkey, flush=True))
"""


def start(folder: Path, *logs: str) -> tuple[subprocess.Popen[str], str, str]:
    process = subprocess.Popen([sys.executable, "-c", RUN, str(folder), *logs], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url, vkey = process.stdout.readline().split()
    return process, url, vkey


def test_after_kill_9_it_still_refuses_the_past(tmp_path: Path) -> None:
    process, url, vkey = start(tmp_path, VKEY)
    try:
        request_cosignature(url, vkey, 0, LOG.prove_consistency, note_of(20))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process, url, again = start(tmp_path)
        assert again == vkey
        with pytest.raises(ConflictError, match=r"witness\.ahead"):
            request_cosignature(url, vkey, 0, LOG.prove_consistency, note_of(10))
        with pytest.raises(VerificationError, match=r"witness\.proof_refused"):
            request_cosignature(url, vkey, 20, FORK.prove_consistency, note_of(30, FORK))
        request_cosignature(url, vkey, 20, LOG.prove_consistency, note_of(30))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(10)


def test_it_stops_when_told_from_another_thread(tmp_path: Path) -> None:
    stop = threading.Event()
    module.run_witness(tmp_path, name="w", ready=lambda url, vkey: stop.set(), stop=stop)
    with pytest.raises(UnavailableError, match=r"witness\.cannot_listen"):
        module.run_witness(tmp_path, "192.0.2.1", stop=stop)
    with Witness.open(tmp_path) as witness:
        assert witness.vkey.startswith("w+")
