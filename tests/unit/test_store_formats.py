"""The stores' files are what docs/formats.md says: read without the core, and the core reads what was pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import blake3
import pytest
from ehrfast._core import CheckpointFile, KeyStore, SegmentLog, Trie

from tests.reference import store
from tests.reference.cbor import decode
from tests.unit.test_store import CHAIN_ID, ROOT_KEY, Chain, filled

ROOT = Path(__file__).parents[2]
PINNED = tomllib.loads((ROOT / "tests/vectors/formats.toml").read_text())


@pytest.fixture(scope="module")
def chain() -> Chain:
    made = Chain()
    made.add(3, (b"one", b"two"))
    made.add(2, (b"three",))
    return made


def test_a_segment_is_readable_without_the_core(chain: Chain, tmp_path: Path) -> None:
    keys = KeyStore.create(str(tmp_path / "keys"), ROOT_KEY)
    log = filled(str(tmp_path / "log"), keys, chain)
    segment_keys = {key_id: keys.get("segment", key_id) or b"" for key_id in keys.ids("segment")}
    (path,) = (tmp_path / "log").iterdir()
    frames = list(store.read_frames(path.read_bytes(), segment_keys))
    before = bytes(32)
    for frame, block, packs in zip(frames, chain.blocks, chain.packs, strict=True):
        assert (path.name, frame.offset) == log.locate(frame.height)
        assert (frame.chain_id, frame.height, frame.tree_size) == (CHAIN_ID, block.height, block.tree_size)
        assert frame.previous_leaf_hash == before
        assert frame.sections["leaves"] == tuple(block.leaves)
        assert frame.sections["transactions"] == tuple(block.transactions)
        assert frame.sections["receipts"] == tuple(block.receipts)
        assert frame.sections["write_set"] == decode(block.write_set.encode())
        items = [tuple(pack.item(i) for i in range(len(pack))) for pack in packs]
        roots = [(pack.root, pack.wraps_root) for pack in packs]
        assert frame.sections["packs"] == tuple((*both, inside) for both, inside in zip(roots, items, strict=True))
        assert frame.sections["wraps"] == tuple(tuple(pack.wraps(i) for i in range(len(pack))) for pack in packs)
        before = block.leaf_hash


def test_the_core_reads_frames_written_without_it(chain: Chain, tmp_path: Path) -> None:
    keys = KeyStore.create(str(tmp_path / "keys"), ROOT_KEY)
    keys.put([("segment", b"\1" * 16, b"\2" * 32)])
    written, before = b"", bytes(32)
    for block, packs in zip(chain.blocks, chain.packs, strict=True):
        inside = [tuple(pack.item(i) for i in range(len(pack))) for pack in packs]
        sections = {
            "leaves": tuple(block.leaves),
            "transactions": tuple(block.transactions),
            "receipts": tuple(block.receipts),
            "write_set": decode(block.write_set.encode()),
            "packs": tuple((pack.root, pack.wraps_root, held) for pack, held in zip(packs, inside, strict=True)),
            "wraps": tuple(tuple(pack.wraps(i) for i in range(len(pack))) for pack in packs),
        }
        written += store.write_frame(
            sections,
            segment_key=b"\2" * 32,
            key_id=b"\1" * 16,
            chain_id=CHAIN_ID,
            height=block.height,
            salt=bytes([block.height]) * 32,
            previous_leaf_hash=before,
            tree_size=block.tree_size,
        )
        before = block.leaf_hash
    (tmp_path / "log").mkdir()
    (tmp_path / "log/000000000000.segment").write_bytes(written)
    log = SegmentLog.open(str(tmp_path / "log"), CHAIN_ID, keys, checkpoint_size=chain.log.tree_size)
    trie = Trie()
    for height, block in enumerate(chain.blocks):
        frame = log.read(height)
        assert (frame.leaves, frame.transactions, frame.receipts) == (block.leaves, block.transactions, block.receipts)
        trie = trie.update(frame.write_set)
    assert trie.root == chain.trie.root
    assert len(list(SegmentLog.scan(str(tmp_path / "log"), CHAIN_ID, keys))) == len(chain.blocks)


def test_frames_are_pinned() -> None:
    pinned = PINNED["frame"]
    hasher = blake3.blake3()
    for number in range(pinned["count"]):
        segment_key, frame = store.generated_frame(number)
        hasher.update(len(frame).to_bytes(4, "big") + frame)
        (read,) = store.read_frames(frame + bytes(100), {bytes([number]) * 16: segment_key})
        assert read.height == number
    assert hasher.hexdigest() == pinned["encodings"]
    assert store.generated_frame(2)[1].hex() == pinned["example"]


def test_the_key_store_is_readable_without_the_core(tmp_path: Path) -> None:
    keys = KeyStore.create(str(tmp_path), ROOT_KEY)
    keys.put([("segment", b"a", b"1"), ("patient-root", b"b", b"2")])
    keys.put([("x", b"c", b"")])
    keys.forget([("segment", b"a")], 7)
    keys.put([("x", b"d", b"4")])
    slots, entries = (tmp_path / "keys.slots").read_bytes(), (tmp_path / "keys.entries").read_bytes()
    store_keys = store.read_slots(slots, ROOT_KEY)
    assert list(store_keys) == [2]
    kept = {("patient-root", b"b"): b"2", ("x", b"c"): b"", ("x", b"d"): b"4"}
    assert store.read_entries(entries, store_keys[2]) == (2, 7, kept)
    with pytest.raises(ValueError, match="authenticate"):
        store.read_slots(slots, bytes(32))


def test_the_pinned_key_store_opens(tmp_path: Path) -> None:
    copy, entries = bytes.fromhex(PINNED["key_store"]["slot"]), bytes.fromhex(PINNED["key_store"]["entries"])
    (tmp_path / "keys.slots").write_bytes(copy.ljust(1024, b"\0") * 4 + bytes(4096))
    (tmp_path / "keys.entries").write_bytes(entries)
    keys = KeyStore.open(str(tmp_path), ROOT_KEY)
    assert (keys.generation, keys.applied_erasure_height, len(keys)) == (2, 41, 2)
    assert keys.get("segment", bytes(16)) == b"\1" * 32
    assert keys.get("segment", b"\2" * 16) == b"\3" * 32
    generation, store_key = store.read_slot_copy(copy.ljust(1024, b"\0"), ROOT_KEY)
    kept = {("segment", bytes(16)): b"\1" * 32, ("segment", b"\2" * 16): b"\3" * 32}
    assert (generation, store.read_entries(entries, store_key)) == (2, (2, 41, kept))


def test_the_checkpoint_file_is_readable_without_the_core(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    file = CheckpointFile.open(str(path))
    assert store.read_checkpoint(path.read_bytes()) is None
    file.write(b"a note\n", sync=True)
    slot = store.write_checkpoint_slot(1, b"a note\n")
    assert slot == bytes.fromhex(PINNED["checkpoint_file"]["slot"]).ljust(4096, b"\0")
    assert path.read_bytes() == store.write_checkpoint_slot(0, b"") + slot
    for number in range(4):
        file.write(b"note %d" % number, sync=number % 2 == 0)
        assert store.read_checkpoint(path.read_bytes()) == b"note %d" % number


def test_the_page_shows_what_is_pinned() -> None:
    page = (ROOT / "docs/formats.md").read_text()
    shown = {re.sub(r"\s", "", block) for block in re.findall(r"```hex\n(.*?)```", page, re.DOTALL)}
    pinned = [PINNED["frame"]["example"], *(PINNED["key_store"][part] for part in ("slot", "entries"))]
    assert {*pinned, PINNED["checkpoint_file"]["slot"]} <= shown
