"""The work of the rows: seeded keys and messages, chains of a small contract, FHIR files. The profiles use it too."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from random import Random

import numpy as np
from ehrfast import Node
from ehrfast._core import KeyStore, SigningKey, Transaction, sign_transactions, verify_signatures
from ehrfast.access.sign import sign_call
from ehrfast.chain.admit import Submission
from ehrfast.chain.chain import Chain
from ehrfast.chain.clock import wall_ms
from ehrfast.consensus.lanes import ROUTINE
from ehrfast.consensus.solo import SoloEngine
from ehrfast.contracts.registry import Registry
from ehrfast.contracts.runtime import Runtime
from ehrfast.model.genesis import Genesis, Organisation, sign_genesis
from ehrfast.synthetic import generate_bundles

from benches.baselines.signatures import Signed

QUICK = os.environ.get("QUICK", "") not in ("", "0")
LARGE = os.environ.get("LARGE", "") not in ("", "0")
GO_ROOT = "EHRFAST_BENCH_GO_ROOT"
"""Names the root that the rival in Go found, for the row that must find the same."""
ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("EHRFAST_SHARED", ROOT.parent / "shared"))
BATCH = 1024
MESSAGE_BYTES = 256
REGISTERED_KEYS = 16
TASKS = 64
SIGNERS = 16
EXPIRES_AFTER_MS = 50 * 60 * 1000
CONTRACT = "tests.contracts_toy.counter"
READERS = 16
EPOCHS_EACH = 700
EPOCHS_AT_ONCE = 64
POSTED_AT_ONCE = 16_384


def seeded_key(name: str, number: int) -> SigningKey:
    """A signing key that is the same in every run."""
    return SigningKey.from_seed(sha256(f"{name} {number}".encode()).digest())


def signed_messages(name: str, keys: int, count: int = BATCH) -> list[Signed]:
    """Messages of 256 bytes, each signed by one of so many keys in turn."""
    signers = [seeded_key(name, number) for number in range(keys)]
    messages = [(f"{name} {number} ".encode() * MESSAGE_BYTES)[:MESSAGE_BYTES] for number in range(count)]
    return [
        (signers[number % keys].public_key, message, signers[number % keys].sign(message))
        for number, message in enumerate(messages)
    ]


def fresh_messages(count: int = BATCH) -> list[Signed]:
    """The same under keys that no signature was ever checked with, one for each message."""
    made = []
    for number in range(count):
        key = SigningKey.generate()
        message = (f"fresh {number} ".encode() * MESSAGE_BYTES)[:MESSAGE_BYTES]
        made.append((key.public_key, message, key.sign(message)))
    return made


Columns = tuple[bytes, bytes, "np.ndarray[tuple[int], np.dtype[np.uint64]]", bytes]


def columns(signed: Sequence[Signed]) -> Columns:
    """Keys, messages, offsets and signatures, each one after another."""
    offsets = np.zeros(len(signed) + 1, dtype=np.uint64)
    np.cumsum([len(message) for _, message, _ in signed], out=offsets[1:])
    keys, messages, signatures = (b"".join(part) for part in zip(*signed, strict=True))
    return keys, messages, offsets, signatures


def verify_columns(keys: bytes, messages: bytes, offsets: object, signatures: bytes) -> None:
    """Checks a batch; every verdict must hold."""
    verdicts = verify_signatures(keys, messages, offsets, signatures)  # type: ignore[arg-type]
    if not verdicts.all():
        raise AssertionError("a good signature was refused")


class CounterChain:
    """A chain of its own with the counter contract, and signers that are not enrolled: the contract asks for none."""

    def __init__(self, folder: Path) -> None:
        keys = KeyStore.create(str(folder / "keys"), bytes(range(32)))
        signer = seeded_key("checkpoint", 0)
        runtime = Runtime(Registry([CONTRACT]))
        genesis = Genesis(
            name="bench",
            time_ms=wall_ms(),
            engine=SoloEngine.name,
            organisations=(Organisation(bytes(16), ((bytes(16), signer.public_key),), 1),),
            governors=((signer.public_key,), 1),
            contract_set_hash=runtime.registry.contract_set_hash(),
            python_minor=sys.version_info.minor,
        )
        Chain.create(folder / "chain", sign_genesis(genesis, [signer]), keys=keys, signer=signer, runtime=runtime)
        self.chain = Chain.open(folder / "chain", keys=keys, signer=signer, runtime=runtime)
        self._keys = keys
        self._signers = [seeded_key("writer", number) for number in range(SIGNERS)]

    def sign(self, count: int) -> list[Submission]:
        """Signed calls as they would arrive, from the signers in turn."""
        each = -(-count // SIGNERS)
        expires = wall_ms() + EXPIRES_AFTER_MS
        made: list[list[Transaction]] = []
        for number, key in enumerate(self._signers):
            called = {"name": f"counter_{number}", "amount": 1}
            arguments = self.chain.runtime.encode_arguments("counter", "add", called)
            made.append(
                sign_transactions(
                    key, self.chain.chain_id, "counter", "add", [arguments] * each, lane=ROUTINE, expires=expires
                )
            )
        turns = [transaction for turn in zip(*made, strict=True) for transaction in turn]
        return [Submission(transaction.received) for transaction in turns[:count]]

    def submit_many(self, submissions: Sequence[Submission]) -> None:
        """Hands all in at once and waits until each is executed, synced and under a signed checkpoint."""
        self.chain.submit_many(submissions).results(timeout=120)

    def submit_by_tasks(self, submissions: Sequence[Submission]) -> None:
        """64 asyncio tasks, each waiting for its receipt before it sends the next."""

        async def writer(mine: Sequence[Submission]) -> None:
            for submission in mine:
                await self.chain.submit(submission.transaction)

        async def all_writers() -> None:
            await asyncio.gather(*(writer(submissions[number::TASKS]) for number in range(TASKS)))

        asyncio.run(all_writers())

    def submit_alone(self, submissions: Sequence[Submission]) -> None:
        """One writer, one transaction at a time."""
        for submission in submissions:
            self.chain.submit(submission.transaction).result(timeout=60)

    def close(self) -> None:
        """Lets go of the folder."""
        self.chain.close()
        self._keys.close()


def fhir_files(folder: Path) -> tuple[str, list[Path]]:
    """The Synthea Bundles beside this repository, or as many generated patients; with what they are called."""
    synthea = sorted((SHARED / "data" / "synthea").glob("*.json.gz"))
    if synthea:
        return "Synthea", synthea[:12] if QUICK else synthea
    folder.mkdir()
    made = []
    for number, bundle in enumerate(generate_bundles(12 if QUICK else 60)):
        made.append(folder / f"{number}.json")
        made[-1].write_bytes(bundle)
    return "generated", made


BESIDE = ("Claim", "ExplanationOfBenefit")
"""Types that the variants with blobs keep beside the log, one synced file each."""


def node_with_blobs(folder: Path) -> Node:
    """A new node that keeps claims beside the log."""
    Node.create(folder, organisation="Bench").close()
    Node.configure(folder, placement=dict.fromkeys(BESIDE, "blob"))
    return Node.open(folder)


def import_once(node: Node, files: Sequence[Path]) -> int:
    """Imports the files into a new node; gives the records made, without resources that stand twice in the files."""
    report = node.import_fhir(*files)
    if report.rejected:
        raise AssertionError("not all resources were taken")
    return report.resources - report.unchanged


class Readers:
    """16 sessions of 16 physicians, each on a thread of its own."""

    def __init__(self, node: Node) -> None:
        known = {held.name for held in node.identities.all()}
        named = [f"reader-{number}" for number in range(READERS)]
        if named[0] not in known:
            for name in named:
                node.identities.enrol(name, role="physician")
        held = {held.name: held.id for held in node.identities.all()}
        doctors = [node.identities.get(held[name].hex()) for name in named]
        self._sessions = [node.session(doctor, purpose="TREAT") for doctor in doctors]
        self._threads = ThreadPoolExecutor(READERS)
        self._references = [listed.reference for listed in self._sessions[0].list(limit=4_000)]
        self._draw = Random(1)

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    def read(self, count: int) -> None:
        """So many reads in all; each thread waits for one before it asks for the next."""
        asked = [self._draw.choices(self._references, k=count // READERS) for _ in self._sessions]
        list(self._threads.map(self._read_by, range(READERS), asked))

    def _read_by(self, number: int, references: Sequence[str]) -> None:
        session = self._sessions[number]
        for reference in references:
            session.read(reference)


def node_with_keys(folder: Path, keys: int) -> None:
    """A closed node whose state holds so many keys beside its own: class keys of random subjects, posted."""
    draw = Random(keys)
    with Node.create(folder, organisation="Bench") as node:
        chain = node.chain
        gateway = node.signing_keys.get(node.settings.gateway).key
        left = keys
        while left:
            submissions = []
            while left and len(submissions) < EPOCHS_AT_ONCE:
                count = min(left, EPOCHS_EACH)
                rows = [
                    (draw.randbytes(16), "observation", draw.randbytes(16), draw.randbytes(32)) for _ in range(count)
                ]
                call = sign_call(chain, gateway, "records", "post_epochs", {1: rows}, numbered=True)
                submissions.append(Submission(call))
                left -= count
            chain.submit_many(submissions).results(timeout=600)


def node_with_transactions(folder: Path, transactions: int) -> None:
    """A closed node whose log holds so many small transactions beside its own: each posts one class key."""
    draw = Random(transactions)
    with Node.create(folder, organisation="Bench") as node:
        chain = node.chain
        gateway = node.signing_keys.get(node.settings.gateway).key
        for start in range(0, transactions, POSTED_AT_ONCE):
            count = min(POSTED_AT_ONCE, transactions - start)
            rows = [(draw.randbytes(16), "observation", draw.randbytes(16), draw.randbytes(32)) for _ in range(count)]
            signed = sign_transactions(
                gateway, chain.chain_id, "records", "post_epochs", [{1: (row,)} for row in rows], lane=ROUTINE,
                expires=wall_ms() + EXPIRES_AFTER_MS,
            )  # fmt: skip
            chain.submit_many([Submission(one) for one in signed]).results(timeout=600)


def bytes_below(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def fsync_median_ms(folder: Path, rounds: int = 101) -> float:
    """What one synced append of 4 KiB costs here, without anything around it."""
    taken = []
    with (folder / "sync").open("ab", buffering=0) as target:
        for _ in range(rounds):
            target.write(bytes(4096))
            start = time.perf_counter()
            os.fdatasync(target.fileno())
            taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)
