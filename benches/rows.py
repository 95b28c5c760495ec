"""The rows: where each is measured, on how many threads, and the bars it should reach on two processors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

OURS: Final = "ehrfast"
ONE_AND_TWO: Final = (1, 2)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, in as many variants as its measurements name.

    Args:
        about: what is measured, for docs/benchmarks.md.
        python: file with pytest benchmarks.
        rust: unit of a criterion group of this name, empty where there is none.
        rust_params: what stands beside criterion's figures.
        go: whether the rival in Go has it.
        threads: runs with so many threads on both sides; empty for one run as the process is.
        within: the row whose measurement gives this one too.
    """

    about: str
    python: str = ""
    rust: str = ""
    rust_params: str = ""
    go: bool = False
    threads: tuple[int, ...] = ()
    within: str = ""


ROWS: Final = {
    "signature_verify_batch": Row(
        "whole batches of 1,024 signatures over 256 bytes. `cryptography` and PyNaCl are loops, as they have no batch; "
        "ed25519-zebra's batch gives one verdict for all, ours one for each. Keys never seen are new in each round.",
        python="test_signature_verify_batch.py",
        rust="signatures/s",
        rust_params="1,024 messages of 256 B; the rival's threads have half the batch each",
        threads=ONE_AND_TWO,
    ),
    "blake3_tree_root": Row(
        "the root of a pack over 2^20 digests, nodes hashed in lanes; beside a hash call for each node.",
        python="test_tree_roots.py",
        rust="leaves/s",
        rust_params="2^20 leaves; the rival's threads have half of each level",
        threads=ONE_AND_TWO,
    ),
    "rfc6962_root": Row(
        "the RFC 6962 root of 2^20 transaction leaves, leaves hashed too; beside hashlib, the `sha2` crate one by one, "
        "and Go's transparency-dev/merkle, which finds the same root.",
        python="test_tree_roots.py",
        rust="leaves/s",
        rust_params="2^20 leaves; the rival's threads have half of each level",
        go=True,
        threads=ONE_AND_TWO,
    ),
    "state_trie_update": Row(
        "a block of 1,000 new values into the state trie; jmt over its store in memory, hashing with BLAKE3 too. "
        "Neither keeps the update. One thread.",
        rust="keys/s",
        rust_params="values of 32 B",
        threads=(1,),
    ),
    "state_proof": Row(
        "one proof of a present key, made and encoded, and its mean size. One thread.",
        rust="us p50",
        rust_params="1,000 keys in turn",
        threads=(1,),
    ),
    "prove_inclusion": Row("an audit path in the log of a million leaves.", python="test_proofs.py"),
    "verify_evidence": Row(
        "all checks of one evidence file with its content, from text; the baseline is a single signature check.",
        python="test_proofs.py",
    ),
    "validate_shards": Row(
        "the next blocks of 8 chains, 1,000 transactions each, validated without their states; beside a batch of as "
        "many signatures and nothing else. The scaling is the rate on two threads by the rate on one.",
        rust="transactions/s",
        rust_params="8 blocks over 20,000 keys each, 1,000 of them written",
        threads=ONE_AND_TWO,
    ),
    "seal_records": Row(
        "records encrypted, committed, digested and wrapped for one class key; beside the same steps in Python, and "
        "beside AES-256-GCM under a fresh key and nothing else.",
        python="test_seal_records.py",
        rust="records/s",
        rust_params="256 records of 2 KiB, one class key",
        threads=ONE_AND_TWO,
    ),
    "commit_signed": Row(
        "signed bytes in; decoded, verified, ordered, executed, synced and under a signed checkpoint when the "
        "clock stops. SQLite verifies with `cryptography` and syncs each write batch; it executes and proves nothing.",
        python="test_commit_signed.py",
    ),
    "import_fhir": Row(
        "gzip and JSON files in; split, sealed, committed, synced and indexed when the clock stops, one transaction a "
        "Bundle up to 700 records, node made beforehand. The floors parse and write the same files and keep nothing.",
        python="test_import_fhir.py",
    ),
    "read_record": Row(
        "16 threads read; each read is decided, its audit event sealed and synced, then the record opened and checked. "
        "SQLite gives plain rows after a synced audit row.",
        python="test_read_record.py",
    ),
    "consent_decide": Row(
        "one request for one record against 20 consents of its patient, compiled before, on all sides. The rivals say "
        "yes or no to the equivalent policies; with conditions each consent asks for a role and a time in CEL.",
        python="test_consent_decide.py",
    ),
    "open_node": Row(
        "a closed node opened by a new process: the log checked against its checkpoint, state and trie ready. Peak "
        "memory is the whole process. `LARGE=1` adds ten million keys.",
        python="test_open_node.py",
    ),
    "bytes_on_disk": Row(
        "what the folder grows by: for a small transaction beyond its signed bytes (log, receipt, write set, state, "
        "ids), for a resource by its sealed payload.",
        python="test_bytes_on_disk.py",
    ),
    "backup": Row(
        "a closed node backed up into an empty folder: log, keys and snapshot sealed, all of it synced.",
        python="test_backup.py",
    ),
    "restore": Row(
        "a node out of that backup: every part checked by its digest, every root derived again.",
        within="backup",
    ),
    "synthetic": Row("generated patients; the floor writes trees already made.", python="test_synthetic.py"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """What a row should reach.

    Args:
        baseline: the rival whose ratio counts; empty when the value itself does.
    """

    row: str
    variant: str
    baseline: str
    side: Literal["at least", "at most"]
    limit: float

    def reached(self, found: float) -> bool:
        """Whether a ratio or value reaches it."""
        return found >= self.limit if self.side == "at least" else found <= self.limit

    def text(self) -> str:
        """As it stands in the tables."""
        sign = "≥" if self.side == "at least" else "≤"
        return f"{sign} {self.limit:,g}{'x' if self.baseline else ''}"


def _ratio(row: str, variant: str, baseline: str, limit: float) -> Bar:
    return Bar(row, variant, baseline, "at least", limit)


def _value(row: str, variant: str, limit: float) -> Bar:
    return Bar(row, variant, "", "at least", limit)


def _most(row: str, variant: str, limit: float) -> Bar:
    return Bar(row, variant, "", "at most", limit)


SQLITE: Final = "SQLite, WAL, synchronous=FULL"
BARS: Final = (
    _ratio("signature_verify_batch", "Python, 16 registered keys", "cryptography", 7.5),
    _ratio("signature_verify_batch", "Python, 16 registered keys", "PyNaCl", 3.7),
    _ratio("signature_verify_batch", "Rust, 16 registered keys", "ed25519-zebra batch", 1.25),
    _ratio("signature_verify_batch", "Python, keys never seen", "cryptography", 5.5),
    _ratio("blake3_tree_root", "Python, 32 B leaves", "hashlib (SHA-256)", 22),
    _ratio("blake3_tree_root", "Rust, 32 B leaves", "blake3 one by one", 2.3),
    _ratio("rfc6962_root", "Python, 97 B leaves", "hashlib", 5),
    _ratio("rfc6962_root", "Rust, 97 B leaves", "sha2 one by one", 1.4),
    _ratio("state_trie_update", "1,000 of 1,000,000 keys", "jmt", 10),
    _most("state_proof", "1,000,000 keys, made", 10),
    _most("state_proof", "1,000,000 keys, size", 800),
    _most("prove_inclusion", "1,000,000 leaves", 20),
    # 1.7 times as long is a ratio of 1 / 1.7.
    _ratio("verify_evidence", "a record with its content", "one verification by cryptography", 0.588),
    _ratio("validate_shards", "8 x 1,000, scaling to two threads", "as many signatures alone", 0.9),
    _ratio("seal_records", "Python, 2 KiB", "the same steps with cryptography and blake3", 3),
    _value("commit_signed", "submit_many", 40_000),
    _ratio("commit_signed", "submit_many", SQLITE, 3),
    _value("commit_signed", "64 asyncio tasks", 15_000),
    _ratio("commit_signed", "64 asyncio tasks", SQLITE, 3),
    _most("commit_signed", "lone writer", 2),
    _value("import_fhir", "Synthea Bundles", 25_000),
    _ratio("import_fhir", "Synthea Bundles", "floor: orjson.loads + dumps", 1),
    _value("read_record", "16 readers", 8_000),
    _most("consent_decide", "20 consents", 25),
    _most("consent_decide", "20 consents with conditions", 25),
    _ratio("consent_decide", "20 consents", "cedarpy", 2),
    _ratio("consent_decide", "20 consents", "regopy", 2),
    _ratio("consent_decide", "20 consents with conditions", "cedarpy", 2),
    _ratio("consent_decide", "20 consents with conditions", "regopy", 2),
    _most("open_node", "1,000,000 keys", 2),
    _most("open_node", "1,000,000 keys, memory", 200),
    _most("restore", "1,000,000 transactions", 60),
    _most("bytes_on_disk", "a small transaction, beyond its signed bytes", 450),
    _most("bytes_on_disk", "by sealed payload of a resource", 1.15),
)
