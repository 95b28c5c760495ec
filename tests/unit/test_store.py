"""The stores as Python meets them: what they give back, and the named error for everything that can go wrong."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ehrfast import _core
from ehrfast._core import (
    Block,
    CheckpointFile,
    ClassKey,
    Fault,
    Frame,
    KeyStore,
    LockFile,
    Log,
    SealedPack,
    SegmentLog,
    SigningKey,
    StateDb,
    StateView,
    Trie,
    assemble,
    assemble_genesis,
    blake3_digest,
    derive_root_key,
    seal_records,
    sign_transaction,
    state_path,
)
from ehrfast.errors import (
    ConflictError,
    CorruptionError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from numpy import array, uint64

ROOT_KEY = bytes(range(32))
GENESIS = b"the genesis of a test"
CHAIN_ID = f"test-{blake3_digest(GENESIS).hex()[:32]}"


class Chain:
    """A few real blocks: signed transactions with sealed packs, and the state they leave."""

    def __init__(self) -> None:
        self.log, self.trie, self.state = Log(), Trie(), StateDb.in_memory()
        self.key = SigningKey.generate()
        self.blocks: list[Block] = []
        self.packs: list[list[SealedPack]] = []
        self._close(lambda view: view.put("toy", ("genesis",), 0), ())

    def add(self, count: int, contents: tuple[bytes, ...] = ()) -> Block:
        """A block of transactions; the first one carries a pack of these contents."""
        packs = [pack_of(contents)] if contents else []
        height = len(self.blocks)

        def write(view: StateView) -> None:
            for number in range(count):
                view.put("toy", (height, number), number)
            view.put("toy", ("last",), height)

        self._close(write, range(count), packs)
        return self.blocks[-1]

    def _close(
        self, write: Callable[[StateView], None], numbers: object, packs: list[SealedPack] | None = None
    ) -> None:
        packs = packs or []
        view = StateView(self.state)
        view.begin(bytes(16))
        write(view)
        view.accept()
        writes, proposer, height = view.write_set(), self.key.public_key, len(self.blocks)
        if height == 0:
            block, self.trie = assemble_genesis(
                self.log, self.trie, GENESIS, writes, chain_id=CHAIN_ID, time_ms=1, proposer=proposer
            )
        else:
            entries = []
            for number in numbers:  # type: ignore[attr-defined]
                carried = [(pack.root, pack.wraps_root) for pack in packs] if number == 0 else []
                signed = sign_transaction(
                    self.key, CHAIN_ID, "toy", "put", {1: number}, lane=2, expires=9, attachments=carried
                )
                entries.append((signed, b"receipt %d" % number))
            block, self.trie = assemble(
                self.log,
                self.trie,
                chain_id=CHAIN_ID,
                height=height,
                engine_height=height,
                time_ms=height + 1,
                proposer=proposer,
                entries=entries,
                writes=writes,
                packs=packs,
            )
        self.blocks.append(block)
        self.packs.append(packs)
        self.state.apply(block)


def pack_of(contents: tuple[bytes, ...]) -> SealedPack:
    key = ClassKey.derive(bytes(32), bytes(16), bytes(16), "clinical", bytes(16))
    ends = [sum(map(len, contents[: number + 1])) for number in range(len(contents))]
    spans = array([(end - len(content), end) for end, content in zip(ends, contents, strict=True)], dtype=uint64)
    drafts = [(bytes([number] * 16), 1, "clinical", [key]) for number in range(len(contents))]
    return seal_records(CHAIN_ID, b"".join(contents), spans, drafts)


@pytest.fixture(scope="module")
def chain() -> Chain:
    made = Chain()
    made.add(3, (b"one", b"two"))
    made.add(1)
    made.add(40, (b"three",))
    return made


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore.create(str(tmp_path / "keys"), ROOT_KEY)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def filled(folder: str, keys: KeyStore, chain: Chain) -> SegmentLog:
    log = SegmentLog.create(folder, CHAIN_ID, keys)
    for block, packs in zip(chain.blocks, chain.packs, strict=True):
        log.append(block, packs)
    return log


def check_frame(frame: Frame, block: Block, packs: list[SealedPack]) -> None:
    assert frame.height == block.height
    assert (frame.leaves, frame.transactions, frame.receipts) == (block.leaves, block.transactions, block.receipts)
    assert list(frame.write_set.items()) == list(block.write_set.items())
    assert (frame.leaf_hash, frame.tree_size) == (block.leaf_hash, block.tree_size)
    assert (frame.head.time_ms, frame.head.state_root) == (block.time_ms, block.state_root)
    assert [one.received for one in frame.decoded_transactions() if one] == block.transactions
    assert frame.pack_roots == [pack.root for pack in packs]
    for number, pack in enumerate(packs):
        for name in (number, pack.root):
            found = frame.pack(name)
            assert [found.item(i) for i in range(len(found))] == [pack.item(i) for i in range(len(pack))]
            assert (found.root, found.wraps_root, found.commitments) == (pack.root, pack.wraps_root, [])


# ── block log ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_gives_back_its_blocks(folder: str, keys: KeyStore, chain: Chain) -> None:
    filled(folder, keys, chain).close()
    log = SegmentLog.open(folder, CHAIN_ID, keys, checkpoint_size=chain.log.tree_size)
    assert (log.height, log.tree_size, log.chain_id) == (3, chain.log.tree_size, CHAIN_ID)
    for height, (block, packs) in enumerate(zip(chain.blocks, chain.packs, strict=True)):
        check_frame(log.read(height), block, packs)
        assert {log.height_of(index) for index in range(block.first_index, block.tree_size)} == {height}
    assert log.height_of(log.tree_size) is None
    pack = chain.packs[1][0]
    assert log.read_part(1, 0, 1) == log.read_part(1, pack.root, 1) == (pack.item(1), None, pack.wraps(1))
    hashes = log.leaf_hashes(0)
    assert [row.tobytes() for row in hashes] == [chain.log.leaf_hash(index) for index in range(log.tree_size)]
    assert log.leaf_hashes(1, 2).shape == (4, 32)
    rebuilt = Log()
    rebuilt.append_hashes(hashes)
    assert rebuilt.root() == chain.blocks[-1].log_root
    assert log.bytes_on_disk() == sum(path.stat().st_size for path in Path(folder).iterdir())
    assert log.locate(0) == ("000000000000.segment", 0)


def test_a_log_names_what_it_refuses(folder: str, keys: KeyStore, chain: Chain) -> None:
    with pytest.raises(NotFoundError, match=r"log\.missing"):
        SegmentLog.open(folder, CHAIN_ID, keys)
    log = filled(folder, keys, chain)
    with pytest.raises(ConflictError, match=r"log\.not_next") as refused:
        log.append(chain.blocks[2], ())
    assert refused.value.details == {"expected": 4, "given": 2}
    with pytest.raises(NotFoundError, match=r"log\.no_such_height"):
        log.read(4)
    with pytest.raises(NotFoundError, match=r"log\.no_such_item"):
        log.read_part(1, 0, 2)
    with pytest.raises(NotFoundError, match=r"log\.no_such_item"):
        log.read_part(1, bytes(32), 0)
    with pytest.raises(ConflictError, match=r"log\.exists"):
        SegmentLog.create(folder, CHAIN_ID, keys)
    reader = SegmentLog.open(folder, CHAIN_ID, keys, read_only=True)
    with pytest.raises(InvalidInputError, match=r"log\.read_only"):
        reader.append(chain.blocks[0], ())
    frame = log.read(1)
    log.close()
    with pytest.raises(ConflictError, match=r"log\.closed"):
        log.read(0)
    check_frame(frame, chain.blocks[1], chain.packs[1])


def test_a_shorter_log_than_its_checkpoint_is_corruption(folder: str, keys: KeyStore, chain: Chain) -> None:
    filled(folder, keys, chain).close()
    with pytest.raises(CorruptionError, match=r"log\.shorter_than_checkpoint") as short:
        SegmentLog.open(folder, CHAIN_ID, keys, checkpoint_size=chain.log.tree_size + 1)
    assert short.value.details == {"tree_size": chain.log.tree_size, "checkpoint_size": chain.log.tree_size + 1}


def damage(folder: str, offset: int) -> None:
    (path,) = Path(folder).iterdir()
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_damage_is_located(folder: str, keys: KeyStore, chain: Chain) -> None:
    log = filled(folder, keys, chain)
    name, offset = log.locate(1)
    log.close()
    damage(folder, offset + 300)
    log = SegmentLog.open(folder, CHAIN_ID, keys, checkpoint_size=chain.log.tree_size)
    with pytest.raises(CorruptionError, match=r"log\.damaged") as found:
        _ = log.read(1).leaves
    assert found.value.details == {"segment": name, "offset": offset, "height": 1, "section": "leaves"}
    check_frame(log.read(3), chain.blocks[3], chain.packs[3])
    seen = list(SegmentLog.scan(folder, CHAIN_ID, keys))
    assert [outcome.height for _, _, outcome in seen] == [0, 1, 2, 3]
    (fault,) = [outcome for _, _, outcome in seen if isinstance(outcome, Fault)]
    assert (fault.kind, fault.height, fault.section) == ("frame.section", 1, "leaves")
    assert seen[1][:2] == (name, offset)
    log.close()
    damage(folder, offset)
    with pytest.raises(CorruptionError, match=r"log\.damaged") as found:
        SegmentLog.open(folder, CHAIN_ID, keys)
    assert found.value.details["section"] == "header"
    kinds = [outcome.kind for _, _, outcome in SegmentLog.scan(folder, CHAIN_ID, keys) if isinstance(outcome, Fault)]
    assert kinds == ["frame.header"]


def test_a_missing_segment_key_is_named(folder: str, keys: KeyStore, chain: Chain, tmp_path: Path) -> None:
    filled(folder, keys, chain).close()
    others = KeyStore.create(str(tmp_path / "others"), ROOT_KEY)
    with pytest.raises(CorruptionError, match=r"log\.key_missing"):
        SegmentLog.open(folder, CHAIN_ID, others)


def test_nothing_is_in_clear(folder: str, keys: KeyStore, chain: Chain) -> None:
    filled(folder, keys, chain).close()
    written = b"".join(path.read_bytes() for path in Path(folder).iterdir())
    for block, packs in zip(chain.blocks, chain.packs, strict=True):
        clear = [*block.leaves, *block.transactions, *block.receipts, *(pack.item(0) for pack in packs)]
        assert not any(piece in written for piece in clear if len(piece) > 8)


def run_on_small_disk(folder: Path, script: str) -> list[str]:
    """Runs a script on a file system of 2 MiB mounted over a folder, and gives the lines it printed."""
    folder.mkdir()
    mounted = (
        f"mount -t tmpfs -o size=2m tmpfs {folder} && exec {sys.executable} -c 'import sys; exec(sys.stdin.read())'"
    )
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs a user namespace")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted],
        input=f"from tests.unit.test_store import *\nFOLDER = Path({str(folder)!r})\n{script}",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_full_disk_stops_the_log_and_loses_nothing(tmp_path: Path) -> None:
    script = """
def refused(act):
    try:
        act()
    except UnavailableError as error:
        return error.code
chain = Chain()
keys = KeyStore.create(str(FOLDER / "keys"), ROOT_KEY)
log = SegmentLog.create(str(FOLDER / "log"), CHAIN_ID, keys)
log.append(chain.blocks[0], ())
last = None
while last is None:
    block = chain.add(100)
    last = refused(lambda: log.append(block, ()))
print(last, refused(lambda: log.append(block, ())))
acknowledged = block.height - 1
print(refused(lambda: keys.put([("x", b"x", bytes(60000))])))
(FOLDER / "filler").unlink(missing_ok=True)
log.close(), keys.close()
log = SegmentLog.open(str(FOLDER / "log"), CHAIN_ID, KeyStore.open(str(FOLDER / "keys"), ROOT_KEY))
print(log.height == acknowledged, acknowledged > 5)
"""
    assert run_on_small_disk(tmp_path / "disk", script) == ["store.full log.poisoned", "store.full", "True True"]


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    script = """
KeyStore.create(str(FOLDER / "keys"), ROOT_KEY).close()
CheckpointFile.open(str(FOLDER / "checkpoint")).write(b"note", sync=True)
subprocess.run(["mount", "-o", "remount,ro", str(FOLDER)], check=True)
for act in (
    lambda: KeyStore.create(str(FOLDER / "others"), ROOT_KEY),
    lambda: KeyStore.open(str(FOLDER / "keys"), ROOT_KEY),
    lambda: CheckpointFile.open(str(FOLDER / "checkpoint")),
    lambda: LockFile.acquire(str(FOLDER / "lock")),
):
    try:
        act()
    except UnavailableError as error:
        print(error.code, error.details["errno"])
print(KeyStore.open(str(FOLDER / "keys"), ROOT_KEY, read_only=True).generation)
print(CheckpointFile.open(str(FOLDER / "checkpoint"), read_only=True).read())
"""
    out = run_on_small_disk(tmp_path / "disk", script)
    assert out == [f"store.read_only {errno.EROFS}"] * 4 + ["1", "b'note'"]


def test_a_write_error_is_not_retryable(folder: str, tmp_path: Path) -> None:
    script = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = SegmentLog.create(str(FOLDER / "log"), CHAIN_ID, KeyStore.create(str(FOLDER / "keys"), ROOT_KEY))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    log.append(Chain().blocks[0], ())
except UnavailableError as error:
    print(error.code, error.details)
"""
    out = run_on_small_disk(tmp_path / "disk", script)
    assert out == [f"store.io {{'errno': {errno.EFBIG}, 'retryable': False}}"]


# ── state database ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_state_follows_the_log(folder: str, keys: KeyStore, chain: Chain, tmp_path: Path) -> None:
    log = filled(folder, keys, chain)
    path, key = str(tmp_path / "state"), bytes(32)
    for state in (StateDb.open(path, key), StateDb.in_memory()):
        assert (state.applied_height, state.applied_leaf_hash, len(state)) == (None, None, 0)
        state.apply(chain.blocks[0])
        state.apply_frame(log.read(1))
        assert state.follow(log) == 2
        assert (state.applied_height, state.applied_leaf_hash) == (3, chain.blocks[3].leaf_hash)
        trie = Trie.from_state(state)
        assert (trie.root, len(trie)) == (chain.trie.root, len(state))
        assert state.get(state_path("toy", ("last",))) == chain.state.get(state_path("toy", ("last",)))
        assert state.get(state_path("toy", ("none",))) is None
        assert StateView(state).get("toy", (3, 39)) == 39
        transaction = log.read(3).decoded_transactions()[5]
        assert transaction is not None
        assert state.find_transaction(transaction.id) == (3, chain.blocks[3].first_index + 5)
        assert state.find_transaction(bytes(32)) is None
        with pytest.raises(ConflictError, match=r"state\.not_next"):
            state.apply(chain.blocks[1])
        view = StateView(state)
        state.close()
        with pytest.raises(ConflictError, match=r"state\.closed"):
            len(state)
        with pytest.raises(UnavailableError, match=r"state\.unavailable"):
            view.get("toy", ("last",))
    again = StateDb.open(path, key)
    assert again.applied_height == 3
    with pytest.raises(ConflictError, match=r"state\.locked"):
        StateDb.open(path, key)
    again.clear()
    assert (len(again), Trie.from_state(again).root) == (0, bytes(32))
    assert again.follow(log) == 4
    again.close()
    StateDb.open(path, key).follow(log)
    with pytest.raises(CorruptionError, match=r"state\.damaged"):
        StateDb.open(path, bytes([1] * 32))
    StateDb.discard(path)
    assert StateDb.open(path, bytes([1] * 32)).applied_height is None


def test_single_lengths_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"state\.key_length"):
        StateDb.open(str(tmp_path), b"short")
    with pytest.raises(InvalidInputError, match=r"state\.path_length"):
        StateDb.in_memory().get(b"short")
    with pytest.raises(InvalidInputError, match=r"transaction\.id_length"):
        StateDb.in_memory().find_transaction(b"short")
    with pytest.raises(InvalidInputError, match=r"keys\.root_key_length"):
        KeyStore.create(str(tmp_path), b"short")


# ── key store ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_store_keeps_and_forgets(tmp_path: Path) -> None:
    folder = str(tmp_path / "keys")
    with pytest.raises(NotFoundError, match=r"keys\.missing_store"):
        KeyStore.open(folder, ROOT_KEY)
    keys = KeyStore.create(folder, ROOT_KEY)
    keys.put([("patient-root", b"a", b"1"), ("patient-root", b"b", b"2"), ("segment", b"a", b"3")])
    keys.put([("patient-root", b"a", b"1")])
    assert (keys.ids("patient-root"), keys.get("segment", b"a"), len(keys)) == ([b"a", b"b"], b"3", 3)
    with pytest.raises(ConflictError, match=r"keys\.exists"):
        keys.put([("patient-root", b"a", b"other")])
    with pytest.raises(InvalidInputError, match=r"keys\.invalid_entry"):
        keys.put([("Patient", b"a", b"1")])
    keys.forget([("patient-root", b"a"), ("patient-root", b"never")], 12)
    assert (keys.get("patient-root", b"a"), keys.applied_erasure_height, keys.generation) == (None, 12, 2)
    with pytest.raises(ConflictError, match=r"keys\.height_goes_back"):
        keys.forget([], 11)
    reader = KeyStore.open(folder, ROOT_KEY, read_only=True)
    with pytest.raises(InvalidInputError, match=r"keys\.read_only"):
        reader.put([("x", b"x", b"x")])
    keys.close()
    with pytest.raises(ConflictError, match=r"keys\.closed"):
        keys.get("segment", b"a")
    again = KeyStore.open(folder, ROOT_KEY)
    assert (again.ids("patient-root"), again.applied_erasure_height, again.damaged_copies) == ([b"b"], 12, 0)
    with pytest.raises(ConflictError, match=r"keys\.store_exists"):
        KeyStore.create(folder, ROOT_KEY)
    with pytest.raises(DeniedError, match=r"keys\.wrong_root_key"):
        KeyStore.open(folder, bytes(32))
    entries = tmp_path / "keys" / "keys.entries"
    data = bytearray(entries.read_bytes())
    data[-1] ^= 1
    entries.write_bytes(data)
    with pytest.raises(CorruptionError, match=r"keys\.record_damaged"):
        KeyStore.open(folder, ROOT_KEY)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}


def test_a_root_key_comes_from_a_passphrase() -> None:
    pwhash = pytest.importorskip("nacl.pwhash")
    phrase, salt = "correct horse battery staple", b"0123456789abcdef"
    theirs = pwhash.argon2id.kdf(32, phrase.encode(), salt, opslimit=3, memlimit=64 * 2**20)
    assert derive_root_key(phrase, salt) == theirs
    assert derive_root_key("e\u0301", salt) == derive_root_key("\u00e9", salt)
    for wrong in (("", salt), ("x", b"short")):
        with pytest.raises(InvalidInputError, match=r"keys\.invalid_entry"):
            derive_root_key(*wrong)


# ── checkpoint file and lock ────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_file_keeps_the_newest_note(tmp_path: Path) -> None:
    path = str(tmp_path / "checkpoint")
    with pytest.raises(NotFoundError, match=r"checkpoint\.missing_file"):
        CheckpointFile.open(path, read_only=True)
    file = CheckpointFile.open(path)
    assert file.read() is None
    for number in range(5):
        file.write(b"note %d" % number, sync=number % 2 == 0)
        assert CheckpointFile.open(path, read_only=True).read() == b"note %d" % number
    with pytest.raises(InvalidInputError, match=r"checkpoint\.note_length"):
        file.write(bytes(4047), sync=True)
    (tmp_path / "checkpoint").write_bytes(bytes(8192))
    with pytest.raises(CorruptionError, match=r"checkpoint\.file_damaged"):
        file.read()


def hold(path: str, taken: multiprocessing.Queue[int], release: object) -> None:
    lock = LockFile.acquire(path)
    taken.put(os.getpid())
    release.wait()  # type: ignore[attr-defined]
    del lock


def test_a_lock_names_its_process_and_goes_with_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path, taken, release = str(tmp_path / "lock"), context.Queue(), context.Event()
    holder = context.Process(target=hold, args=(path, taken, release))
    holder.start()
    pid = taken.get(timeout=60)
    with pytest.raises(ConflictError, match=r"node\.locked") as held:
        LockFile.acquire(path)
    assert held.value.details == {"pid": pid}
    holder.kill()
    holder.join()
    lock = LockFile.acquire(path)
    with pytest.raises(ConflictError) as held:
        LockFile.acquire(path)
    assert held.value.details == {"pid": os.getpid()}
    lock.release()
    LockFile.acquire(path).release()


# ── threads ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_readers_go_on_while_blocks_are_appended(folder: str, keys: KeyStore) -> None:
    chain = Chain()
    log = SegmentLog.create(folder, CHAIN_ID, keys)
    log.append(chain.blocks[0], ())
    stop, failures = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            height = log.height or 0
            frame = log.read(height)
            if frame.leaf_hash != chain.blocks[height].leaf_hash:
                failures.append(height)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(60):
        chain.add(2, (b"x", b"y"))
        log.append(chain.blocks[-1], chain.packs[-1])
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert [outcome.height for _, _, outcome in SegmentLog.scan(folder, CHAIN_ID, keys)] == list(range(61))


def test_values_are_final_and_print_no_content(folder: str, keys: KeyStore, chain: Chain) -> None:
    log = filled(folder, keys, chain)
    assert repr(log.read(1)) == "Frame(height=1)"
    for name in ("SegmentLog", "Frame", "Fault", "StateDb", "KeyStore", "CheckpointFile", "LockFile"):
        with pytest.raises(TypeError):
            type("Sub", (getattr(_core, name),), {})
