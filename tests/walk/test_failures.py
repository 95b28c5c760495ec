"""What fails around a node: bad transactions, full and read-only disks, wrong keys, forks, an audit not to be kept.

Each has its named code, leaves its neighbours unharmed, and leaves a node that is usable or cleanly stopped: reopened,
fsck finds nothing and everything acknowledged is there.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ehrfast import Node
from ehrfast._core import SealedPack, SigningKey, Transaction, random_bytes, sign_transaction
from ehrfast.access.session import Session
from ehrfast.access.sign import sign_call
from ehrfast.chain.admit import Submission, admit
from ehrfast.chain.chain import Chain
from ehrfast.chain.pending import PendingReceipt, Settlement
from ehrfast.chain.replay import WINDOW_MS
from ehrfast.consensus.engine import Admitted
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
from ehrfast.keys.root_key import PASSPHRASE_VARIABLE, ROOT_KEY_VARIABLE, RootKeySource, make_key_file
from ehrfast.model.identity import Identity
from ehrfast.model.receipt import Receipt
from ehrfast.synthetic import generate_bundles

PATIENT = b'{"resourceType":"Patient","id":"p","active":true}'
MARK = "Zyxwvut" + "mark"
"""Put together here, so that the lines a traceback shows of this file do not hold it."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as made:
        yield made


@pytest.fixture
def doctor(node: Node) -> Identity:
    """A physician of the node, which holds the one patient of `PATIENT`."""
    identity = node.identities.enrol("physician-1", role="physician")
    with node.session(identity, purpose="TREAT") as session:
        session.create(PATIENT).result(timeout=60)
    return identity


def enrolment() -> dict[str, object]:
    members = {"identity": random_bytes(16), "key": SigningKey.generate().public_key, "custody": 1, "role": "nurse"}
    return {**members, "from_ms": None, "until_ms": None, "subject": None}


def administrator(node: Node) -> SigningKey:
    return node.signing_keys.get(node.settings.administrator).key


def good(node: Node) -> Transaction:
    return sign_call(node.chain, administrator(node), "identity", "enrol", enrolment())


def signed(node: Node, **changes: Any) -> Transaction:
    """An enrolment of the administrator, with some of its fields changed."""
    fields: dict[str, Any] = {
        "chain_id": node.chain.chain_id,
        "contract": "identity",
        "method": "enrol",
        "args": node.chain.runtime.encode_arguments("identity", "enrol", enrolment()),
        "lane": 2,
        "expires": node.chain.clock.now_ms() + 60_000,
        **changes,
    }
    return sign_transaction(administrator(node), **fields)


def refusal_of(action: Callable[[], object]) -> EhrfastError:
    with pytest.raises(EhrfastError) as caught:
        action()
    return caught.value


def sound_after_reopening(folder: Path, *receipts: Receipt) -> None:
    with Node.open(folder) as node:
        assert node.fsck().ok
        for receipt in receipts:
            assert node.chain.find_receipt(receipt.id) == receipt


# ── transactions ────────────────────────────────────────────────────────────────────────────────────────────────────


def with_wrong_signature(node: Node) -> bytes:
    received = good(node).received
    return received[:-1] + bytes([received[-1] ^ 1])


def cut_short(node: Node) -> bytes:
    return good(node).received[:-1]


BAD_TRANSACTIONS: dict[str, tuple[Callable[[Node], Transaction | bytes], type[EhrfastError], str]] = {
    "wrong chain": (lambda n: signed(n, chain_id="other-" + "0" * 32), InvalidInputError, "transaction.wrong_chain"),
    "expired": (lambda n: signed(n, expires=n.chain.clock.now_ms() - 1), ConflictError, "transaction.expired"),
    "wrong signature": (with_wrong_signature, VerificationError, "signature.invalid"),
    "cut short": (cut_short, InvalidInputError, "transaction.malformed"),
    "not a transaction": (lambda n: b"hello", InvalidInputError, "transaction.malformed"),
    "unknown contract": (lambda n: signed(n, contract="lottery"), NotFoundError, "contract.unknown"),
    "unknown method": (lambda n: signed(n, method="gamble"), NotFoundError, "contract.unknown_method"),
    "bad arguments": (lambda n: signed(n, args={1: "nobody"}), InvalidInputError, "contract.bad_arguments"),
    "no arguments": (lambda n: signed(n, args={}), InvalidInputError, "contract.bad_arguments"),
    "too large": (lambda n: signed(n, args={1: bytes(65 * 1024)}), InvalidInputError, "transaction.too_large"),
    "far too large": (lambda n: bytes(400 * 1024), InvalidInputError, "transaction.too_large"),
    "pack that is not there": (
        lambda n: signed(n, attachments=[(bytes(32), bytes(32))]), InvalidInputError, "pack.root_mismatch",
    ),
}


@pytest.mark.parametrize("case", BAD_TRANSACTIONS)
def test_a_bad_transaction_has_its_code_and_its_neighbours_are_applied(case: str, node: Node, tmp_path: Path) -> None:
    make, kind, code = BAD_TRANSACTIONS[case]
    pending = node.chain.submit_many(
        [Submission(good(node)), Submission(make(node)), Submission(good(node).received), Submission(good(node))]
    )
    with pytest.raises(kind) as refused:
        pending[1].result(timeout=60)
    assert refused.value.code == code
    receipts = [pending[number].result(timeout=60) for number in (0, 2, 3)]
    assert node.fsck().ok
    node.close()
    sound_after_reopening(tmp_path / "clinic.ehr", *receipts)


def test_a_failed_call_keeps_its_leaf_and_a_refused_transaction_has_none(node: Node) -> None:
    size = node.chain.published.tree_size
    assert node.chain.submit(signed(node, method="gamble")).outcome(timeout=60).code == "contract.unknown_method"
    assert node.chain.published.tree_size == size + 2
    assert refusal_of(lambda: node.chain.submit(signed(node, contract="lottery")).outcome(timeout=60))
    assert node.chain.published.tree_size == size + 2


def test_a_transaction_is_applied_once_however_often_it_comes(node: Node, tmp_path: Path) -> None:
    transaction = good(node)
    pending = node.chain.submit_many([Submission(transaction), Submission(transaction.received)])
    receipt = pending[0].result(timeout=60)
    assert refusal_of(lambda: pending[1].result(timeout=60)).code == "transaction.replayed"
    assert refusal_of(lambda: node.chain.submit(transaction).result(timeout=60)).code == "transaction.replayed"
    node.close()
    with Node.open(tmp_path / "clinic.ehr") as again:
        for form in (transaction, transaction.received):
            refused = refusal_of(again.chain.submit(form).result)
            assert (type(refused), refused.code) == (ConflictError, "transaction.replayed")
        assert again.chain.find_receipt(receipt.id) == receipt


def test_a_transaction_from_the_future_waits_for_its_time(node: Node) -> None:
    early = signed(node, expires=node.chain.clock.now_ms() + WINDOW_MS + 1500)
    pending = node.chain.submit(early)
    assert node.chain.submit(good(node)).result(timeout=60).applied
    assert not pending.done()
    assert refusal_of(lambda: pending.result(timeout=0.01)).code == "receipt.timeout"
    receipt = pending.result(timeout=60)
    block_time = node.chain.read_block(receipt.height).time_ms
    assert early.expires - WINDOW_MS <= block_time < early.expires


def test_a_transaction_far_in_the_future_is_let_go_when_the_node_closes(node: Node, tmp_path: Path) -> None:
    pending = node.chain.submit(signed(node, expires=node.chain.clock.now_ms() + 10 * WINDOW_MS))
    receipt = node.chain.submit(good(node)).result(timeout=60)
    node.close()
    assert refusal_of(lambda: pending.result(timeout=60)).code == "chain.closed"
    sound_after_reopening(tmp_path / "clinic.ehr", receipt)


def test_packs_must_be_those_that_were_signed(node: Node, doctor: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[Transaction, tuple[SealedPack, ...]]] = []
    original = Chain.submit

    def keep(chain: Chain, transaction: Any, packs: Any = ()) -> Any:
        taken.append((transaction, tuple(packs)))
        return original(chain, transaction, packs)

    monkeypatch.setattr(Chain, "submit", keep)
    with node.session(doctor, purpose="TREAT") as session:
        for status in ("one", "two"):
            session.create({"resourceType": "Basic", "id": status}).result(timeout=60)
    (_, first), (_, second) = taken
    attached = [(pack.root, pack.wraps_root) for pack in first]
    for packs in ((), second, first + second):
        wrong = signed(node, attachments=attached)
        assert refusal_of(original(node.chain, wrong, packs).result).code == "pack.root_mismatch"
    unsigned = good(node)
    assert refusal_of(lambda: original(node.chain, unsigned, first).result(timeout=60)).code == "pack.root_mismatch"


def test_a_lane_claimed_too_fast_is_lowered(node: Node) -> None:
    for claimed, given in ((0, 1), (1, 1), (2, 2)):
        (verdict,) = admit([Submission(signed(node, lane=claimed))], node.chain._rules)
        assert isinstance(verdict, Admitted)
        assert verdict.lane == given
    assert node.chain.submit(signed(node, lane=0)).result(timeout=60).applied
    assert refusal_of(lambda: signed(node, lane=3)).code == "transaction.malformed"


def test_a_key_nobody_enrolled_is_refused_by_the_contract(node: Node) -> None:
    stranger = sign_call(node.chain, SigningKey.generate(), "identity", "enrol", enrolment())
    with pytest.raises(DeniedError):
        node.chain.submit(stranger).result(timeout=60)
    assert node.chain.submit(good(node)).result(timeout=60).applied


# ── a chain that cannot write ───────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def failing_commits(error: BaseException) -> Iterator[None]:
    """From here on every append fails, as on a full disk."""

    def fail(*_: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ehrfast.chain.chain.commit", fail)
        yield


READS: dict[str, Callable[[Session], object]] = {
    "read": lambda s: s.read("Patient/p"),
    "read of what is not there": lambda s: s.read("Patient/q"),
    "list": lambda s: s.list(),
    "pages": lambda s: next(s.pages()),
    "history": lambda s: s.history("Patient/p"),
    "prove": lambda s: s.prove("Patient/p"),
    "disclose": lambda s: s.prove("Patient/p", disclose=True),
}


@pytest.mark.parametrize("case", READS)
@pytest.mark.parametrize("stopped_before", [False, True])
def test_no_read_answers_when_its_audit_cannot_be_kept(
    case: str, stopped_before: bool, node: Node, doctor: Identity, tmp_path: Path
) -> None:
    with node.session(doctor, purpose="TREAT") as session, failing_commits(UnavailableError("store.full")):
        if stopped_before:
            assert refusal_of(lambda: node.chain.submit(good(node)).result(timeout=60)).code == "chain.stopped"
        refused = refusal_of(lambda: READS[case](session))
    assert isinstance(refused, UnavailableError)
    assert (refused.code, refused.details) == ("chain.stopped", {"cause": "store.full"})
    node.close()
    sound_after_reopening(tmp_path / "clinic.ehr")


def test_a_stopped_chain_says_why_and_loses_nothing_acknowledged(
    node: Node, doctor: Identity, tmp_path: Path
) -> None:
    receipt = node.chain.submit(good(node)).result(timeout=60)
    stands = node.status()
    with failing_commits(UnavailableError("store.full")):
        pending = node.chain.submit_many([Submission(good(node)) for _ in range(20)])
        for each in pending:
            refused = refusal_of(each.result)
            assert (type(refused), refused.code, dict(refused.details)) == (
                UnavailableError, "chain.stopped", {"cause": "store.full"},
            )
    # What failed once is never tried again as if nothing had been.
    (tmp_path / "a.json").write_bytes(PATIENT.replace(b'"p"', b'"q"'))
    held = len(node.identities.all())
    with node.session(doctor, purpose="TREAT") as session:
        for action in (
            lambda: node.chain.submit(good(node)),
            lambda: node.import_fhir(tmp_path / "a.json"),
            lambda: node.identities.enrol("nurse-1", role="nurse"),
            lambda: session.create({"resourceType": "Basic"}),
            lambda: session.update({"resourceType": "Patient", "id": "p"}),
        ):
            assert refusal_of(action).code == "chain.stopped"
    assert node.chain.failure is not None
    assert node.chain.failure.code == "store.full"
    assert len(node.identities.all()) == held
    assert node.status() == stands
    assert node.fsck().ok
    node.close()
    sound_after_reopening(tmp_path / "clinic.ehr", receipt)
    with Node.open(tmp_path / "clinic.ehr") as again, again.session(doctor, purpose="TREAT") as session:
        assert session.read("Patient/p").content == PATIENT
        assert again.import_fhir(tmp_path / "a.json").resources == 1


def test_writers_at_the_moment_of_stopping_are_all_answered(node: Node, tmp_path: Path) -> None:
    chain, receipts, codes = node.chain, list[Receipt](), list[str]()
    lanes = chain._lanes
    original, left = lanes.add, iter(range(40))

    def stop_in_between(items: list[Admitted]) -> None:
        if next(left, None) is None:  # stopped after the check, before the items are in: nobody will wake for them
            patched.setattr(chain._engine, "wake", lambda: None)
            chain._stop_after(UnavailableError("store.full"))
        original(items)

    def write() -> None:
        try:
            while True:
                receipts.append(chain.submit(good(node)).result(timeout=20))
        except EhrfastError as error:
            codes.append(error.code)

    writers = [threading.Thread(target=write) for _ in range(8)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lanes, "add", stop_in_between)
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    assert codes == ["chain.stopped"] * 8
    assert receipts
    node.close()
    sound_after_reopening(tmp_path / "clinic.ehr", *receipts)


@pytest.mark.parametrize("stage", ["execute", "assemble", "commit", "publish", "admit"])
def test_a_fault_in_any_stage_stops_the_chain_and_nothing_hangs(
    stage: str, node: Node, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    receipt = node.chain.submit(good(node)).result(timeout=60)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(MARK)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(f"ehrfast.chain.chain.{stage}", fail)
        refused = refusal_of(lambda: node.chain.submit(good(node)).result(timeout=60))
    assert (refused.code, refused.details) == ("chain.stopped", {"cause": "chain.fault"})
    failure = node.chain.failure
    assert failure is not None
    assert failure.details == {"kind": "RuntimeError"}
    told = "".join(traceback.format_exception(refused) + traceback.format_exception(failure))
    assert stage in told
    node.close()
    assert MARK not in told + "".join(capfd.readouterr())
    sound_after_reopening(tmp_path / "clinic.ehr", receipt)


def test_a_failed_projection_answers_no_read_and_quotes_nothing(
    node: Node, doctor: Identity, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise KeyError(MARK)

    with node.session(doctor, purpose="TREAT") as session, pytest.MonkeyPatch.context() as patched:
        assert session.read("Patient/p").version == 1
        node._gate.catch_up()  # the event of that read is taken before the index fails
        patched.setattr(node._index, "_take", fail)
        assert node.chain.submit(good(node)).result(timeout=60).applied
        session.create({"resourceType": "Basic", "id": "b"}).result(timeout=60)
        refused = refusal_of(lambda: session.read("Patient/p"))
    assert (refused.code, refused.details["cause"]) == ("subscriber.failed", "KeyError")
    assert MARK not in "".join(traceback.format_exception(refused))
    node.close()
    with Node.open(tmp_path / "clinic.ehr") as again, again.session(doctor, purpose="TREAT") as session:
        assert session.read("Basic/b").version == 1


# ── disks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def mounted(*arguments: str, folder: Path) -> Iterator[None]:
    """A mount for the time of the test, where this machine lets us."""
    folder.mkdir(exist_ok=True)
    try:
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    with mounted("-t", "tmpfs", "-o", "size=16m", "tmpfs", folder=folder):
        yield folder


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder on a file system that takes no writes."""
    with mounted("--bind", str(folder), folder=folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True, capture_output=True)
        yield


def patient_files(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    for number, bundle in enumerate(generate_bundles(count, seed=13)):
        (folder / f"{number:03}.json").write_bytes(bundle)
    return sorted(folder.iterdir())


def resources_of(file: Path) -> dict[str, Any]:
    found = [entry["resource"] for entry in json.loads(file.read_bytes())["entry"]]
    return {f"{each['resourceType']}/{each['id']}": each for each in found}


def test_a_full_disk_stops_the_chain_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    files = patient_files(tmp_path / "in", 40)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(8 * 1024 * 1024))
    node = Node.create(small_disk / "clinic.ehr", organisation="Clinic North")
    doctor = node.identities.enrol("physician-1", role="physician")
    taken: list[Path] = []
    refused: EhrfastError | None = None
    for file in files:
        try:
            node.import_fhir(file)
        except UnavailableError as error:
            refused = error
            break
        taken.append(file)
    assert taken
    assert refused is not None
    assert refused.code == "store.full" or refused.details == {"cause": "store.full"}
    with node.session(doctor, purpose="TREAT") as session:
        assert isinstance(refusal_of(lambda: session.list()), UnavailableError)
    assert node.fsck().ok
    node.close()
    ballast.unlink()
    expected = {name: value for file in taken for name, value in resources_of(file).items()}
    with Node.open(small_disk / "clinic.ehr") as again:
        assert again.fsck().ok
        with again.session(doctor, purpose="TREAT") as session:
            assert {row.reference for row in session.list()} >= set(expected)
            for name in list(expected)[::97]:
                assert json.loads(session.read(name).content) == expected[name]
        report = again.import_fhir(*taken)
        assert report.unchanged == report.resources


def test_a_node_whose_first_block_fails_is_removed_again(tmp_path: Path) -> None:
    with failing_commits(UnavailableError("store.full")):
        refused = refusal_of(lambda: Node.create(tmp_path / "clinic.ehr", organisation="Clinic North"))
    assert (refused.code, refused.details) == ("chain.stopped", {"cause": "store.full"})
    Node.create(tmp_path / "clinic.ehr", organisation="Clinic North").close()


def test_a_node_that_does_not_fit_is_not_left_half_made(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    for spare in (0, 4096, 8 * 4096, 24 * 4096):
        with ballast.open("wb") as target:
            free = os.statvfs(small_disk)
            target.write(bytes(free.f_bavail * free.f_frsize - spare - 4096))
        refused = refusal_of(lambda: Node.create(small_disk / "clinic.ehr", organisation="Clinic North"))
        assert refused.code in ("store.full", "chain.stopped")
        assert list((small_disk / "clinic.ehr").iterdir()) == []
        ballast.unlink()
    with Node.create(small_disk / "clinic.ehr", organisation="Clinic North") as node:
        assert node.fsck().ok


SMALL_FILES = """
import resource, sys
from pathlib import Path
from ehrfast import Node
from ehrfast.errors import UnavailableError
node = Node.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
done = 0
try:
    for file in sorted(Path(sys.argv[2]).iterdir()):
        node.import_fhir(file)
        done += 1
except UnavailableError as error:
    print(error.code, dict(error.details).get("cause"), done, node.chain.published.tree_size, flush=True)
    try:
        node.identities.enrol("nurse-1", role="nurse")
    except UnavailableError as error:
        print(error.code)
    print(node.fsck().ok)
    node.close()
"""


def test_a_disk_that_fails_in_mid_append_stops_the_chain(tmp_path: Path) -> None:
    """Needs no mount: the operating system refuses to let any file of the process grow."""
    patient_files(tmp_path / "in", 40)
    Node.create(tmp_path / "clinic.ehr", organisation="Clinic North").close()
    limit = max(file.stat().st_size for file in (tmp_path / "clinic.ehr").rglob("*") if file.is_file()) + 100_000
    done = subprocess.run(
        [sys.executable, "-c", SMALL_FILES, str(tmp_path / "clinic.ehr"), str(tmp_path / "in"), str(limit)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    first, second, third = done.stdout.splitlines()
    code, cause, count, size = first.split()
    assert (code, cause, second, third) == ("chain.stopped", "store.io", "chain.stopped", "True")
    assert done.stderr == ""
    with Node.open(tmp_path / "clinic.ehr") as node:
        assert node.fsck().ok
        assert node.chain.published.tree_size >= int(size)
        taken = sorted((tmp_path / "in").iterdir())[: int(count)]
        if taken:
            report = node.import_fhir(*taken)
            assert report.unchanged == report.resources


def test_a_read_only_folder_is_named_and_can_be_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "clinic.ehr"
    with Node.create(folder, organisation="Clinic North") as node:
        stands = node.status()
    with read_only(folder):
        refused = refusal_of(lambda: Node.open(folder))
        assert (type(refused), refused.code) == (UnavailableError, "store.read_only")
        with Node.open(folder, read_only=True) as node:
            assert node.status().log_root == stands.log_root
            assert node.fsck().ok
            assert refusal_of(lambda: node.chain.submit(good(node))).code == "chain.read_only"
    sound_after_reopening(folder)


def test_no_node_is_made_in_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "place"
    folder.mkdir()
    with read_only(folder):
        for place in (folder, folder / "clinic.ehr"):
            refused = refusal_of(partial(Node.create, place, organisation="Clinic North"))
            assert (type(refused), refused.code) == (UnavailableError, "store.read_only")


# ── other processes ─────────────────────────────────────────────────────────────────────────────────────────────────

OPEN = """
import sys
from ehrfast import Node
from ehrfast.errors import EhrfastError
try:
    Node.open(sys.argv[1]).close()
    print("opened")
except EhrfastError as error:
    print(error.code, error.details.get("pid"))
"""


def open_elsewhere(folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.stdout.split()


def test_a_second_process_is_told_who_has_the_node(node: Node, tmp_path: Path) -> None:
    assert open_elsewhere(tmp_path / "clinic.ehr") == ["node.locked", str(os.getpid())]
    assert node.chain.submit(good(node)).result(timeout=60).applied
    node.close()
    assert open_elsewhere(tmp_path / "clinic.ehr") == ["opened"]


def test_a_forked_child_refuses_use_and_the_parent_goes_on(node: Node, doctor: Identity, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(PATIENT)
    transaction = good(node)
    chain, identities = node.chain, node.identities
    session = node.session(doctor, purpose="TREAT")
    promised = PendingReceipt(Settlement())
    actions: list[Callable[[], object]] = [
        node.status,
        node.fsck,
        lambda: node.chain,
        lambda: node.import_fhir(tmp_path / "a.json"),
        lambda: node.session(doctor, purpose="TREAT"),
        lambda: identities.enrol("nurse-1", role="nurse"),
        lambda: chain.submit(transaction),
        lambda: promised.result(timeout=60),
        lambda: promised.add_done_callback(print),
        lambda: session.create({"resourceType": "Basic"}),
        lambda: session.update({"resourceType": "Patient", "id": "p"}),
        *(partial(read, session) for read in READS.values()),
        lambda: Node.open(tmp_path / "clinic.ehr"),
    ]
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - its lines are counted in another process
        try:
            codes = [code_of_attempt(action) for action in actions]
            node.close()
            node._lock = None
            os.write(sending, json.dumps(codes).encode())
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as answers:
        codes = json.loads(answers.read())
    os.waitpid(child, 0)
    assert codes == ["node.forked"] * (len(actions) - 1) + ["node.locked"]
    assert open_elsewhere(tmp_path / "clinic.ehr")[0] == "node.locked"
    assert session.read("Patient/p").content == PATIENT
    assert chain.submit(transaction).result(timeout=60).applied
    assert node.fsck().ok


def code_of_attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except EhrfastError as error:
        return error.code
    except BaseException as error:
        return type(error).__name__
    return "answered"


def test_a_reader_beside_the_writer_sees_how_it_stands_and_no_record(node: Node, doctor: Identity) -> None:
    with Node.open(node.folder, read_only=True) as beside:
        assert beside.status() == node.status()
        assert beside.fsck().ok
        held = len(beside.identities.all())
        with beside.session(doctor, purpose="TREAT") as session:
            for read in READS.values():
                refused = refusal_of(partial(read, session))
                assert (type(refused), refused.code) == (UnavailableError, "chain.read_only")
            assert refusal_of(lambda: session.create({"resourceType": "Basic"})).code == "chain.read_only"
        assert refusal_of(lambda: beside.identities.enrol("nurse-1", role="nurse")).code == "chain.read_only"
        assert len(beside.identities.all()) == held
        with node.session(doctor, purpose="TREAT") as session:
            assert session.read("Patient/p").content == PATIENT
        assert beside.fsck().ok
    with Node.open(node.folder, read_only=True) as later:
        assert later.status() == node.status()


def test_a_reader_of_an_empty_node_is_refused_in_the_same_words(node: Node) -> None:
    doctor = node.identities.enrol("physician-1", role="physician")
    with Node.open(node.folder, read_only=True) as beside, beside.session(doctor, purpose="TREAT") as session:
        for read in READS.values():
            assert refusal_of(partial(read, session)).code == "chain.read_only"


# ── root keys ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_root_key_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clinic.ehr"
    monkeypatch.setenv(ROOT_KEY_VARIABLE, random_bytes(32).hex())
    Node.create(folder, organisation="Clinic North").close()
    assert not (folder / "root.key").exists()
    sound_after_reopening(folder)
    for value, kind, code in (
        (random_bytes(32).hex(), DeniedError, "keys.wrong_root_key"),
        ("beef", InvalidInputError, "root_key.malformed"),
        ("not hexadecimal", InvalidInputError, "root_key.malformed"),
        (None, NotFoundError, "root_key.missing"),
    ):
        with monkeypatch.context() as patched:
            if value is None:
                patched.delenv(ROOT_KEY_VARIABLE)
            else:
                patched.setenv(ROOT_KEY_VARIABLE, value)
            refused = refusal_of(lambda: Node.open(folder))
            assert (type(refused), refused.code) == (kind, code)
            assert value is None or value not in str(refused) + repr(refused)
    sound_after_reopening(folder)


def test_a_root_key_from_a_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clinic.ehr"
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "seven words nobody would think of here")
    Node.create(folder, organisation="Clinic North").close()
    sound_after_reopening(folder)
    assert "seven words" not in "".join(file.read_text("latin-1") for file in folder.rglob("*") if file.is_file())
    with monkeypatch.context() as patched:
        patched.setenv(PASSPHRASE_VARIABLE, "seven words somebody else thought of")
        assert refusal_of(lambda: Node.open(folder)).code == "keys.wrong_root_key"
        patched.delenv(PASSPHRASE_VARIABLE)
        assert refusal_of(lambda: Node.open(folder)).code == "root_key.missing"
    sound_after_reopening(folder)


def test_a_root_key_file_wrong_missing_malformed_or_exposed(tmp_path: Path) -> None:
    folder = tmp_path / "clinic.ehr"
    Node.create(folder, organisation="Clinic North").close()
    file = folder / "root.key"
    assert file.stat().st_mode & 0o777 == 0o600
    right = file.read_bytes()
    for content, kind, code in (
        (b"00" * 32, DeniedError, "keys.wrong_root_key"),
        (b"", InvalidInputError, "root_key.malformed"),
        (right[:-3], InvalidInputError, "root_key.malformed"),
        (b"\xff" * 64, InvalidInputError, "root_key.malformed"),
    ):
        file.write_bytes(content)
        refused = refusal_of(lambda: Node.open(folder))
        assert (type(refused), refused.code) == (kind, code)
    file.write_bytes(right)
    for mode in (0o640, 0o604, 0o644, 0o666):
        file.chmod(mode)
        refused = refusal_of(lambda: Node.open(folder))
        assert (type(refused), refused.code, dict(refused.details)) == (
            DeniedError, "root_key.exposed", {"mode": oct(mode)},
        )
    file.chmod(0o600)
    file.rename(tmp_path / "kept.key")
    refused = refusal_of(lambda: Node.open(folder))
    assert (type(refused), refused.code) == (NotFoundError, "root_key.missing")
    (tmp_path / "kept.key").rename(file)
    sound_after_reopening(folder)


def test_a_node_is_not_made_under_an_exposed_key_and_can_be_made_when_it_is_not(tmp_path: Path) -> None:
    key = tmp_path / "kept" / "root.key"
    key.parent.mkdir()
    make_key_file(key)
    key.chmod(0o644)
    source = RootKeySource("file", str(key))
    folder = tmp_path / "clinic.ehr"
    refused = refusal_of(lambda: Node.create(folder, organisation="Clinic North", root_key=source))
    assert refused.code == "root_key.exposed"
    assert list(folder.iterdir()) == []
    key.chmod(0o600)
    Node.create(folder, organisation="Clinic North", root_key=source).close()
    assert refusal_of(lambda: Node.create(folder, organisation="Clinic North")).code == "node.exists"
    sound_after_reopening(folder)
    assert key.exists()


# ── what is told ────────────────────────────────────────────────────────────────────────────────────────────────────


def marked_files(folder: Path) -> None:
    content = json.dumps({"resourceType": "Patient", "id": MARK, "name": [{"family": MARK}]}).encode()
    twice = {"fullUrl": f"urn:{MARK}", "resource": {"resourceType": "Patient", "id": MARK}}
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [twice, {**twice, "x": MARK}, {"y": MARK}]}
    folder.mkdir()
    for name, data in {
        "cut.json": content[:-3],
        "two.json": content * 2,
        "utf8.json": content.replace(b'"name"', b'"\xff"'),
        "type.json": content.replace(b'"Patient"', f'"{MARK}"'.encode()),
        "id.json": content.replace(f'"id": "{MARK}"'.encode(), f'"id": "{MARK} {MARK}"'.encode()),
        "key.json": content[:-1] + b"," + content[1:],
        "deep.json": content[:-1] + b',"n":' + b"[" * 99 + b"]" * 99 + b"}",
        "mark.json": b"\xef\xbb\xbf" + content,
        "cut.json.gz": gzip.compress(content)[:-9],
        "not.json.gz": content,
        "bundle.json": json.dumps(bundle).encode(),
        "lines.ndjson": content[:-5] + b"\n" + content.replace(b"Patient", MARK.encode()) + b"\n" + content,
    }.items():
        (folder / f"{MARK}-{name}").write_bytes(data)


def test_no_failure_tells_a_patients_name(
    node: Node, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    told: list[str] = []

    def attempt(action: Callable[[], object], *kinds: type[BaseException]) -> None:
        with pytest.raises(kinds or EhrfastError) as caught:
            action()
        error = caught.value
        told.extend([str(error), repr(error), "".join(traceback.format_exception(error))])

    marked_files(tmp_path / "in")
    report = node.import_fhir(tmp_path / "in")
    assert len(report.rejected) >= 12
    told += [repr(report), *(f"{each!r} {each.code} {each.message}" for each in report.rejected)]
    attempt(lambda: node.import_fhir(tmp_path / MARK))

    doctor = node.identities.enrol(MARK, role="physician")
    reference, resource = f"Patient/{MARK}", {"resourceType": "Patient", "id": MARK, "name": [{"family": MARK}]}
    told += [repr(node.identities.all()), repr(node.subjects.of(reference))]
    with node.session(doctor, purpose="TREAT") as session:
        record = session.read(reference)
        told += [repr(record), repr(session.list()), repr(session.history(reference)), repr(session)]
        told += [repr(session.prove(reference, disclose=True)), repr(node), repr(node.chain)]
        attempt(lambda: session.read(f"Observation/{MARK}"))
        attempt(lambda: session.read(reference, version=9))
        attempt(lambda: session.prove(MARK))
        attempt(lambda: session.history(MARK))
        attempt(lambda: session.create(resource))
        attempt(lambda: session.create({**resource, "resourceType": MARK}))
        attempt(lambda: session.create({**resource, "id": MARK + "\ud800"}))
        attempt(lambda: session.create({**resource, MARK: {MARK}}))
        attempt(lambda: session.create(json.dumps(resource).encode()[:-1]))
        attempt(lambda: session.update({**resource, "id": f"{MARK}2"}))
        attempt(lambda: session.update(record.content))
    attempt(lambda: node.session(doctor, purpose=MARK))
    attempt(lambda: node.identities.enrol("x", role=MARK))
    attempt(lambda: node.identities.get(MARK))
    nurse = node.identities.enrol("nurse-1", role="researcher")
    with node.session(nurse, purpose="TREAT") as session:
        attempt(lambda: session.read(reference))
        attempt(lambda: session.list())
    attempt(lambda: node.call("identity", "enrol", {**enrolment(), "role": MARK}))
    attempt(lambda: node.chain.submit(signed(node, method=MARK.lower())).result(timeout=60))
    attempt(lambda: node.chain.submit(signed(node, args={1: MARK})).result(timeout=60))
    attempt(lambda: node.chain.submit(MARK.encode() * 10).result(timeout=60))

    with node.session(doctor, purpose="TREAT") as session, failing_commits(OSError(28, MARK, MARK)):
        attempt(lambda: session.update({**resource, "active": True}).result(timeout=60))
        attempt(lambda: session.read(reference))
        attempt(lambda: session.update({**resource, "active": False}))
        attempt(lambda: node.import_fhir(tmp_path / "in"))
    told.append("".join(traceback.format_exception(node.chain.failure)))
    node.close()
    attempt(lambda: node.import_fhir(tmp_path / "in"))
    attempt(lambda: node.session(doctor, purpose="TREAT"))

    for file in (tmp_path / "clinic.ehr").rglob("*.segment"):
        content = bytearray(file.read_bytes())
        written = len(bytes(content).rstrip(b"\0"))
        for position in range(written // 4, written * 3 // 4, 64):
            content[position] ^= 1
        file.write_bytes(content)
    attempt(lambda: Node.open(tmp_path / "clinic.ehr"), CorruptionError)
    shown = capfd.readouterr()
    told += [shown.out, shown.err, caplog.text]
    assert not [text for text in told if MARK.lower() in text.lower()]

