"""Shard validation against the slow twin: the same blocks, the same verdicts, whatever is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import blake3
from ehrfast import _core
from ehrfast._core import Log, ShardFault, ShardTip, SigningKey, Transaction, Trie, WriteSet
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import cbor
from tests.reference import shard as twin
from tests.reference import trie as reference_trie

TIME_MS = 1_800_000_000_000
KEYS = [SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3)]
# Which name a wrong part of the trie gets depends on how it is wrong; the twin only compares it with the right one.
ABOUT_WRITES = {
    "shard.proof",
    "shard.proof_malformed",
    "shard.previous_state_root",
    "shard.proof_missing",
    "shard.proof_surplus",
    "shard.no_change",
}


def path(number: int) -> bytes:
    """Few distinct first bits, so that ways are shared and emptied subtrees common."""
    return bytes([number & 0xC0, 0, number & 7]) + blake3.blake3(bytes([number])).digest()[3:]


def writes_of(values: dict[int, int | None]) -> list[tuple[bytes, bytes | None]]:
    return sorted(
        (path(number), None if value is None else bytes(16) + bytes([value])) for number, value in values.items()
    )


@dataclass
class Chain:
    """A chain in the core and, beside it, in the twin."""

    name: str
    log: Log = field(default_factory=Log)
    trie: Trie = field(default_factory=Trie)

    def __post_init__(self) -> None:
        genesis = f"genesis of {self.name}".encode()
        self.id = f"{self.name}-{blake3.blake3(genesis).hexdigest(16)}"
        self.state: dict[bytes, bytes] = {}
        self.twin = twin.Tip(self.id, 0, 0, (), {})
        self.tip = ShardTip.genesis(self.id)
        self.genesis = genesis

    def found(self, values: dict[int, int | None]) -> bytes:
        writes = writes_of(values)
        block, after = _core.assemble_genesis(
            self.log,
            self.trie,
            self.genesis,
            self.write_set(writes),
            chain_id=self.id,
            time_ms=TIME_MS,
            proposer=bytes(32),
        )
        return self.proven(block, after, writes)

    def write_set(self, writes: list[tuple[bytes, bytes | None]]) -> WriteSet:
        return WriteSet.decode(cbor.encode((1, tuple(writes))))

    def proven(self, block: _core.Block, after: Trie, writes: list[tuple[bytes, bytes | None]]) -> bytes:
        """Holds what the core proves against what the twin says, which is what it gives."""
        proven = _core.prove_block(block, self.trie)
        part = twin.part(self.state, dict(writes))
        assert proven == twin.encode(block.leaves, block.transactions, block.receipts, writes, part)
        assert twin.part_root(twin.encode_part(part)) == reference_trie.root(self.state) == self.trie.root
        self.trie = after
        return proven

    def transaction(self, number: int) -> Transaction:
        return _core.sign_transaction(
            KEYS[number % 3],
            self.id,
            "toy",
            "put",
            {1: number},
            lane=2,
            expires=TIME_MS + 5000,
            salt=number.to_bytes(16),
            attachments=[],
        )

    def block(self, kinds: Sequence[bool], values: dict[int, int | None]) -> bytes:
        """The next block of transactions (true) and timers."""
        height, first = self.tip.next_height, self.tip.tree_size
        entries: list[tuple[Transaction | bytes, bytes]] = []
        for position, signed in enumerate(kinds):
            number = 1000 * height + position
            cause: Transaction | bytes = self.transaction(number) if signed else number.to_bytes(32)
            id = cause.id if isinstance(cause, Transaction) else cause
            entries.append((cause, cbor.encode((id, height, first + position, 0, 7, 1, ()))))
        writes = writes_of({n: v for n, v in values.items() if v is not None or path(n) in self.state})
        writes = [(key, stored) for key, stored in writes if self.state.get(key) != stored]
        block, after = _core.assemble(
            self.log,
            self.trie,
            chain_id=self.id,
            height=height,
            engine_height=height,
            time_ms=TIME_MS + height,
            proposer=bytes(32),
            entries=entries,
            writes=self.write_set(writes),
            packs=[],
        )
        return self.proven(block, after, writes)

    def expected(self, block: bytes, log_root: bytes | None) -> twin.Tip | tuple[str, int | None]:
        try:
            return twin.validate(self.twin, block, log_root)
        except twin.Refused as refused:
            code, position = refused.args
            return code, position

    def judge(self, block: bytes, log_root: bytes | None) -> tuple[str, int | None] | None:
        """The verdict of the core, held against the twin's; a sound block moves the tip."""
        (verdict,) = _core.validate_shards([(self.tip, block, log_root)])
        expected = self.expected(block, log_root)
        if not isinstance(expected, twin.Tip):
            assert isinstance(verdict, ShardFault), (verdict, expected)
            if expected[0] in ABOUT_WRITES:
                assert verdict.code in ABOUT_WRITES
            else:
                assert (verdict.code, verdict.position) == expected
            return verdict.code, verdict.position
        assert isinstance(verdict, ShardTip), verdict
        assert (verdict.next_height, verdict.time_ms) == (expected.next_height, expected.time_ms)
        assert (verdict.tree_size, verdict.state_root) == (len(expected.leaves), reference_trie.root(expected.state))
        self.twin, self.tip, self.state = expected, verdict, dict(expected.state)
        return None


values = st.dictionaries(st.integers(0, 255), st.none() | st.integers(0, 255), max_size=12)
state = st.dictionaries(st.integers(0, 255), st.integers(0, 255), max_size=20)


@settings(max_examples=60, deadline=None)
@given(state, st.lists(st.tuples(st.lists(st.booleans(), min_size=1, max_size=9), values), max_size=3))
def test_chains_advance_as_the_twin_says(
    founded: dict[int, int], blocks: list[tuple[list[bool], dict[int, int | None]]]
) -> None:
    chain = Chain("north")
    assert chain.judge(chain.found(dict(founded)), chain.log.root()) is None
    assert chain.tip.log_root == chain.log.root()
    for kinds, written in blocks:
        # Deleting what is there empties subtrees, which is where a part has to be opened further.
        deleted = {n: None for n in founded if n % 3 == len(kinds) % 3}
        assert chain.judge(chain.block(kinds, {**written, **deleted}), chain.log.root()) is None
        assert (chain.tip.log_root, chain.tip.frontier) == (chain.log.root(), tuple(chain.log.frontier()))


def sample() -> tuple[Chain, bytes, bytes]:
    chain = Chain("north")
    chain.judge(chain.found({n: n for n in range(0, 250, 9)}), None)
    tip, before, held = chain.tip, chain.twin, dict(chain.state)
    block = chain.block([True, False, True, True], {0: 1, 9: None, 18: None, 5: 5})
    root = chain.log.root()
    assert chain.judge(block, root) is None
    chain.tip, chain.twin, chain.state = tip, before, held
    return chain, block, root


SAMPLE, BLOCK, ROOT = sample()


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 8 * len(BLOCK) - 1))
def test_a_flipped_bit_gets_the_name_that_the_twin_gives_it(bit: int) -> None:
    changed = bytearray(BLOCK)
    changed[bit // 8] ^= 0x80 >> bit % 8
    # A payload whose fields are swapped for others is malformed to the core; the twin does not look that closely.
    try:
        assert SAMPLE.judge(bytes(changed), ROOT) is not None
    except (KeyError, AssertionError):
        (verdict,) = _core.validate_shards([(SAMPLE.tip, bytes(changed), ROOT)])
        assert isinstance(verdict, ShardFault)
        assert verdict.code in ("shard.transaction_malformed", "shard.leaf_id")


def rebuilt(change: str, position: int) -> bytes:
    outer = cbor.decode(BLOCK)
    assert isinstance(outer, tuple)
    sections = [list(section) for section in map(cbor.decode, outer[1:4]) if isinstance(section, tuple)]
    rows = cbor.decode(outer[4])
    assert isinstance(rows, tuple)
    writes = list(rows[1])
    part = outer[5]
    leaves, transactions, receipts = sections
    match change:
        case "swap transactions":
            transactions[0], transactions[1 + position % 2] = transactions[1 + position % 2], transactions[0]
        case "swap leaves":
            leaves[0], leaves[1 + position % 3] = leaves[1 + position % 3], leaves[0]
        case "swap receipts":
            receipts[0], receipts[1 + position % 3] = receipts[1 + position % 3], receipts[0]
        case "drop transaction":
            del transactions[position % len(transactions)]
        case "drop leaf":
            del leaves[position % len(leaves)]
        case "drop receipt":
            del receipts[position % len(receipts)]
        case "drop write":
            del writes[position % len(writes)]
        case "double write":
            writes.insert(position % len(writes), writes[position % len(writes)])
        case "double transaction":
            transactions.insert(0, transactions[position % len(transactions)])
        case "other part":
            part = twin.encode_part(twin.part(SAMPLE.state, {path(position): b"x" * 17}))
        case "part of another state":
            part = twin.encode_part(twin.part({path(position): b"y" * 17}, dict(writes)))
    return cbor.encode((1, *(cbor.encode(tuple(s)) for s in sections), cbor.encode((1, tuple(writes))), part))


CHANGES = (
    "swap transactions",
    "swap leaves",
    "swap receipts",
    "drop transaction",
    "drop leaf",
    "drop receipt",
    "drop write",
    "double write",
    "double transaction",
    "other part",
    "part of another state",
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CHANGES), st.integers(0, 255))
def test_whatever_is_swapped_dropped_or_doubled_is_named(change: str, position: int) -> None:
    assert SAMPLE.judge(rebuilt(change, position), ROOT) is not None


def test_another_shard_s_frontier_state_and_block_are_refused() -> None:
    other = Chain("south")
    other.judge(other.found({1: 1}), None)

    def verdict(tip: ShardTip, block: bytes = BLOCK) -> tuple[str, int | None]:
        (fault,) = _core.validate_shards([(tip, block, None)])
        assert isinstance(fault, ShardFault)
        return fault.code, fault.position

    def tip(state_root: bytes, frontier: tuple[bytes, ...]) -> ShardTip:
        own = SAMPLE.tip
        return ShardTip(
            own.chain_id,
            next_height=own.next_height,
            time_ms=own.time_ms,
            tree_size=own.tree_size,
            frontier=frontier,
            state_root=state_root,
        )

    assert tip(SAMPLE.tip.state_root, SAMPLE.tip.frontier) == SAMPLE.tip
    assert verdict(tip(SAMPLE.tip.state_root, other.tip.frontier)) == ("shard.previous_root", None)
    assert verdict(tip(other.tip.state_root, SAMPLE.tip.frontier)) == ("shard.previous_state_root", None)
    assert verdict(other.tip) == ("shard.chain_id", None)
    assert replace(SAMPLE.twin, state={}) != SAMPLE.twin


@given(st.binary(min_size=16, max_size=16), st.integers(1, 300))
def test_subjects_are_dealt_as_the_twin_deals_them(subject: bytes, count: int) -> None:
    assert _core.shard_of(subject, count) == twin.jump(subject, count) < count
    doubled = _core.shard_of(subject, 2 * count)
    assert doubled == _core.shard_of(subject, count) or doubled >= count


SERIAL = """
import sys
from ehrfast import _core
from tests.properties.test_shard_properties import many
claims = many()
print(_core.thread_count(), *_core.validate_shards(claims), sep="\\n")
"""


def many() -> list[tuple[ShardTip, bytes, bytes | None]]:
    """Shards of unequal sizes, some of them wrong."""
    claims: list[tuple[ShardTip, bytes, bytes | None]] = []
    for number in range(6):
        chain = Chain(f"shard-{number}")
        chain.judge(chain.found({n: n for n in range(number, 200, 7)}), None)
        block = chain.block([True] * (1 + 30 * (number % 3)), {number: 250, number + 7: None, 201: 1})
        if number % 2:
            at = len(block) * number // 7
            block = block[:at] + bytes([block[at] ^ 16]) + block[at + 1 :]
        claims.append((chain.tip, block, chain.log.root()))
    return claims


def test_verdicts_do_not_depend_on_the_number_of_threads() -> None:
    said = []
    for threads in ("1", "2", "5"):
        environment = {**os.environ, "EHRFAST_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SERIAL]
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        count, *verdicts = result.stdout.splitlines()
        assert count == threads
        said.append(verdicts)
    assert said[0] == said[1] == said[2] == [repr(verdict) for verdict in _core.validate_shards(many())]
    assert sum("ShardFault" in verdict for verdict in said[0]) == 3
