"""The typed face of the Rust module, a section for each of its files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | NDArray[np.uint8]
Offsets = NDArray[np.uint64]                 # n + 1 ascending byte offsets into a Buffer: item i is data[o[i]:o[i+1]]

# ── digest ─
def blake3_digest(data: Buffer) -> bytes:
    """Plain BLAKE3: transaction id, genesis, value and plaintext digests.

    Returns:
        32 bytes.
    Raises:
        InvalidInputError: `input.not_a_buffer`, `input.not_contiguous`.
    """

def blake3_digests(data: Buffer, offsets: Offsets) -> NDArray[np.uint8]:
    """`blake3_digest` of each item, on the own thread pool, the GIL released.

    Inputs of 64 and 1024 bytes share the lanes of the processor and cost a fraction of the others.

    Args:
        data: the items one after another; a writable array is copied first.
        offsets: n + 1 ascending uint64 numbers, item i being ``data[offsets[i]:offsets[i + 1]]``; a window of
            the offsets with the whole data is as good.
    Returns:
        n x 32 uint8, read-only, in the order of the items.
    Raises:
        InvalidInputError: `offsets.empty`, `offsets.descending`, `offsets.out_of_range`, `offsets.not_uint64`,
            `offsets.not_contiguous`, and those of `blake3_digest`.
    """

def sha256_digests(data: Buffer, offsets: Offsets) -> NDArray[np.uint8]:
    """SHA-256 of each item; arguments, result and errors as `blake3_digests`.

    Source: FIPS 180-4.
    """

def keyed_digest(use: str, data: Buffer) -> bytes:
    """keyed[use](data): BLAKE3 keyed with ``derive_key("ehrfast 2026-11 <use> v1", "")``.

    Args:
        use: a name of the list in docs/formats.md, such as ``"path"``.
    Returns:
        32 bytes.
    Raises:
        InvalidInputError: `digest.unknown_use`, and those of `blake3_digest`.
    """

@final
class KeyedHasher:
    """keyed[use] of what comes bit by bit. Thread-safe; calls take turns.

    >>> hasher = KeyedHasher("path")
    >>> hasher.update(b"key")
    >>> hasher.digest() == keyed_digest("path", b"key")
    True
    """

    def __new__(cls, use: str) -> KeyedHasher:
        """Begins a digest. Raises InvalidInputError: `digest.unknown_use`."""

    def update(self, data: Buffer) -> None:
        """Takes the next bytes, of any number."""

    def digest(self) -> bytes:
        """32 bytes, of all that came so far."""

def keyed_digests(use: str, data: Buffer, offsets: Offsets) -> NDArray[np.uint8]:
    """`keyed_digest` of each item; arguments, result and errors as `blake3_digests`."""

def derive(use: str, key: bytes, info: object) -> bytes:
    """derive(use, key, info): BLAKE3 ``derive_key("ehrfast 2026-11 <use> v1", key || CBOR(info))``.

    Args:
        key: 32 bytes.
        info: what `cbor_encode` takes; ``[]`` where the format says so.
    Returns:
        32 bytes, as secret as the key.
    Raises:
        InvalidInputError: `digest.unknown_use`, `key.wrong_length`, and those of `cbor_encode`.
    """

def random_bytes(count: int) -> bytes:
    """Fresh bytes from the operating system, nothing kept between calls: safe across fork and snapshots.

    Raises:
        UnavailableError: `random.unavailable`.
    """

def simd_tier() -> Literal["portable", "avx2", "avx512"]:
    """The instructions that hash many inputs: the best of this processor, or what `EHRFAST_SIMD` names.

    An unknown name or a tier the processor lacks is refused when the module is loaded
    (`simd.unknown_tier`, `simd.unsupported`). Every tier gives the same bytes.
    """

def thread_count() -> int:
    """Threads that share a batch: the processors of this process, or `EHRFAST_THREADS` (1..1024).

    Anything else is refused when the module is loaded (`pool.thread_count`).
    """

# ── signature ─
@final
class SigningKey:
    """An Ed25519 private key, wiped from memory when dropped; its repr shows the public key only.

    It can be neither pickled nor copied. Source: RFC 8032.
    """

    @staticmethod
    def generate() -> SigningKey:
        """A new random key.

        Raises:
            UnavailableError: `random.unavailable`.
        """

    @staticmethod
    def from_seed(seed: bytes) -> SigningKey:
        """The key of a 32-byte seed.

        Raises:
            InvalidInputError: `key.wrong_length`.
        """

    @property
    def public_key(self) -> bytes:
        """32 bytes."""

    def seed(self) -> bytes:
        """The 32-byte seed, to be stored sealed and nowhere else."""

    def sign(self, message: Buffer) -> bytes:
        """64 bytes, R || s; the same message gives the same signature.

        Raises:
            InvalidInputError: `input.not_a_buffer`, `input.not_contiguous`.
        """

def verify_signature(public_key: bytes, message: Buffer, signature: bytes) -> None:
    """Returns when the signature holds by ZIP-215, raises when it does not.

    Source: ZIP-215 (cofactored equation, R and A hashed as received, s < l).

    Raises:
        VerificationError: `signature.invalid`.
        InvalidInputError: `key.wrong_length`, `signature.wrong_length`, and those of `blake3_digest`.
    """

def verify_signatures(
    public_keys: Buffer, messages: Buffer, offsets: Offsets, signatures: Buffer
) -> NDArray[np.bool_]:
    """A verdict for each item, the one `verify_signature` gives it; on the own thread pool, the GIL released.

    Hundreds of items cost about a third of one by one; one bad item among them about doubles that.
    Keys that occur often and keys that have signed before cost less.

    Args:
        public_keys: n x 32 bytes.
        messages: the messages one after another.
        offsets: n + 1 offsets of the messages, as in `blake3_digests`.
        signatures: n x 64 bytes.
    Returns:
        n bools, read-only. They must be looked at: nothing raises for a bad signature.
    Raises:
        InvalidInputError: `input.wrong_length`, `input.counts_differ`, and those of `blake3_digests`.
    """

def check_public_key(public_key: bytes) -> None:
    """The rule for registering a key: one encoding for each, and none of small order, which binds nobody.

    Raises:
        InvalidInputError: `key.wrong_length`, `key.not_a_point`, `key.small_order`, `key.not_canonical`.
    """

# ── cbor ─
def cbor_encode(value: object) -> bytes:
    """The one encoding of ``value`` in the strict profile that all our formats share.

    Taken: int (-2**63..2**64-1), bytes, str in NFC, bool, None, tuple and list (arrays), and mappings with int keys,
    written in key order 0, 1, 2, … -1, -2, …; at most 8 arrays and maps deep. Subclasses of int, str, bytes, tuple and
    list (IntEnum, StrEnum, NamedTuple) count as the plain value they store.

    Raises:
        InvalidInputError: ``cbor.unsupported`` (float, set, dataclass, a key that is no int …), ``cbor.out_of_range``,
            ``cbor.not_nfc``, ``cbor.not_utf8`` (a lone surrogate), ``cbor.too_deep``, ``cbor.key_order`` (a mapping
            that gives one key twice); ``details["offset"]`` is the place in the output.

    Source: RFC 8949 section 4.2.1, narrowed by docs/formats.md.
    """

def cbor_decode(data: Buffer, max_bytes: int = 1048576) -> object:
    """The immutable value that encodes to exactly ``data``: tuples for arrays, ``MappingProxyType`` for maps.

    Args:
        data: one whole item.
        max_bytes: more are refused before anything is parsed.

    Raises:
        InvalidInputError: ``cbor.too_large``, ``cbor.truncated``, ``cbor.trailing_bytes``, ``cbor.not_shortest``,
            ``cbor.indefinite``, ``cbor.unsupported`` (float, tag, undefined), ``cbor.out_of_range``,
            ``cbor.not_utf8``, ``cbor.not_nfc``, ``cbor.key_order``, ``cbor.too_deep``; ``details["offset"]`` is the
            place in ``data``.

    Source: RFC 8949 section 4.2.1, narrowed by docs/formats.md.
    """

# ── cose ─
def cose_sign(keys: Sequence[SigningKey], payload: bytes, external_aad: bytes) -> bytes:
    """A tagged COSE_Sign by all of ``keys``, one signature a key, in ascending order of the public keys.

    Raises:
        InvalidInputError: ``cose.no_signer``, ``cose.signer_order`` (one key twice).

    Source: RFC 9052 section 4.1, RFC 9864.
    """

def cose_verify(message: Buffer, external_aad: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """What a COSE_Sign says and who signed it, once every one of its signatures has been found to hold.

    Which keys must be among the signers is for the caller to check.

    Args:
        message: at most 1 MiB.
        external_aad: the use the signatures were made for.

    Returns:
        (payload, public keys of the signers in ascending order).

    Raises:
        VerificationError: ``signature.invalid``; ``details["position"]`` is the first that does not hold.
        InvalidInputError: ``cose.malformed`` (``details["reason"]`` is the code of the CBOR fault, ``"offset"`` its
            place), ``cose.no_signer``, ``cose.signer_order``.

    Source: RFC 9052 section 4.1, RFC 9864; ZIP-215.
    """

def cose_sign1(key: SigningKey, payload: bytes, external_aad: bytes) -> bytes:
    """A tagged COSE_Sign1 with the public key as kid; the same input gives the same bytes.

    Source: RFC 9052 section 4.2, RFC 9864.
    """

def cose_verify1(message: Buffer, external_aad: bytes) -> tuple[bytes, bytes]:
    """What a COSE_Sign1 of at most 1 MiB says and who signed it, once its signature has been found to hold.

    Returns:
        (payload, public key of the signer).

    Raises:
        VerificationError: ``signature.invalid``.
        InvalidInputError: ``cose.malformed``, details as for ``cose_verify``.

    Source: RFC 9052 section 4.2, RFC 9864; ZIP-215.
    """

# ── transaction ─
@final
class Transaction:
    """A decoded, immutable transaction and the bytes it was received as; equal when those bytes are.

    That an object exists says its form is right. Only ``admit_transactions`` and ``admit_decoded`` say that its
    signature holds. The repr shows id, contract and method alone.
    """

    @property
    def id(self) -> bytes:
        """BLAKE3 of the Sig_structure, 32 bytes: of what was signed, not of the signature."""

    @property
    def sender(self) -> bytes:
        """The public key that signed it, 32 bytes."""

    @property
    def chain_id(self) -> str:
        """The chain it is for."""

    @property
    def contract(self) -> str:
        """The contract it calls."""

    @property
    def method(self) -> str:
        """And the method of that contract."""

    @property
    def args(self) -> Mapping[int, object]:
        """The arguments, immutable, decoded anew at each access."""

    @property
    def lane(self) -> int:
        """0 emergency, 1 urgent, 2 routine: as claimed by the sender."""

    @property
    def expires(self) -> int:
        """Block time in Unix milliseconds from which it can no longer be applied."""

    @property
    def salt(self) -> bytes:
        """16 random bytes."""

    @property
    def attachments(self) -> tuple[tuple[bytes, bytes], ...]:
        """(pack root, wraps root) of each pack that travels with it, 32 bytes each."""

    @property
    def received(self) -> bytes:
        """The bytes as received, never re-encoded."""

    @property
    def received_digest(self) -> bytes:
        """SHA-256 of ``received``."""

    def __len__(self) -> int:
        """Bytes received."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def sign_transaction(key: SigningKey, chain_id: str, contract: str, method: str, args: Mapping[int, object], *,
                     lane: int, expires: int, salt: bytes | None = None,
                     attachments: Sequence[tuple[bytes, bytes]] = ()) -> Transaction:
    """Encodes and signs one transaction.

    Args:
        key: the sender's.
        chain_id: 1..50 of ``a-z 0-9 -``.
        contract: 1..64 of ``a-z 0-9 _ .``, a letter first.
        method: likewise.
        args: at most six containers deep below the map itself.
        lane: 0 emergency, 1 urgent, 2 routine.
        expires: Unix milliseconds, at most 2**63-1.
        salt: 16 bytes nobody can foresee; drawn afresh when left out.
        attachments: (pack root, wraps root), 32 bytes each.

    Raises:
        InvalidInputError: ``transaction.malformed`` (``details["field"]`` is the field of the payload at fault),
            ``transaction.too_large`` (above 320 KiB), ``transaction.salt_length``,
            ``transaction.attachment_length``; the codes of ``cbor_encode`` for the arguments.

    Source: docs/formats.md, Transaction.
    """

def sign_transactions(key: SigningKey, chain_id: str, contract: str, method: str, args: Sequence[Mapping[int, object]],
                      *, lane: int, expires: int) -> list[Transaction]:
    """Signs one transaction for each of ``args``, each under a fresh salt, on the pool with the GIL released.

    Raises:
        InvalidInputError: as ``sign_transaction``, at the first at fault; then none is signed.
    """

def decode_transaction(received: Buffer) -> Transaction:
    """Reads a transaction of at most 320 KiB strictly. Its signature is NOT checked.

    Raises:
        InvalidInputError: ``transaction.malformed`` (``details`` hold ``"field"``, or ``"reason"`` with the code of the
            CBOR fault and ``"offset"`` in message or payload), ``transaction.too_large``.

    Source: docs/formats.md, Transaction.
    """

def admit_transactions(received: Sequence[bytes], chain_id: str, max_bytes: int = 65536) -> list[Transaction | str]:
    """Decodes and checks a batch: form, size, chain, signature. No item stops another; order is kept.

    Decoding and hashing run on the pool, then all signatures are judged as one batch, with the GIL released
    throughout; each gets the verdict it would get alone.

    Args:
        received: one transaction each.
        chain_id: the only chain they may be for.
        max_bytes: the cap of one transaction; above 320 KiB it has no effect.

    Returns:
        For each item the transaction, or the stable code it is refused with: ``transaction.malformed``,
        ``transaction.too_large``, ``transaction.wrong_chain``, ``signature.invalid``.
    """

def admit_decoded(transactions: Sequence[Transaction], chain_id: str, max_bytes: int) -> list[str | None]:
    """The checks of ``admit_transactions`` for objects already decoded; None = admitted, else the code."""

# ── log (RFC 6962) ─
@final
class Log:
    """All leaf hashes and inner nodes of one log in memory, 64 bytes a leaf.

    Append-only but for `truncate`. Every question may be asked about the log as it is or as it was at any smaller
    size, and costs a few look-ups. Threads may share it: readers run beside each other, an append is seen whole or not
    at all.

    >>> log = Log()
    >>> log.append([b"first", b"second", b"third"])
    >>> log.tree_size
    3
    >>> proof = log.prove_inclusion(1, 3)
    >>> verify_inclusion(log_leaf_hash(b"second"), 1, 3, proof, log.root())

    Source: RFC 6962 section 2.1.
    """

    def __init__(self) -> None: ...
    def append(self, leaves: Sequence[bytes]) -> None:
        """Adds leaves at the right end, hashed in batches with the GIL released; list order is index order."""

    def append_hashes(self, hashes: Buffer) -> None:
        """The same for leaves hashed already: n x 32 bytes.

        Raises:
            InvalidInputError: ``input.wrong_length``.
        """

    def truncate(self, tree_size: int) -> None:
        """Forgets every leaf at or above ``tree_size``: a block that was assembled and then abandoned.

        Raises:
            InvalidInputError: ``log.size_beyond_log``.
        """

    @property
    def tree_size(self) -> int:
        """How many leaves the log has."""

    def root(self, tree_size: int | None = None) -> bytes:
        """The root now, or as it was at ``tree_size``; of no leaf, SHA-256 of nothing.

        Raises:
            InvalidInputError: ``log.size_beyond_log``.
        """

    def leaf_hash(self, index: int) -> bytes:
        """The hash of one leaf.

        Raises:
            InvalidInputError: ``log.index_out_of_range``.
        """

    def prove_inclusion(self, index: int, tree_size: int) -> list[bytes]:
        """The audit path of a leaf, its sibling first; at most 64 hashes.

        Raises:
            InvalidInputError: ``log.size_beyond_log``, ``log.index_out_of_range``.

        Source: RFC 9162 section 2.1.3.1.
        """

    def prove_consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """Shows that the tree of ``new_size`` begins with the tree of ``old_size``.

        Empty for equal sizes and for an old size of 0, where nothing is to be shown.

        Raises:
            InvalidInputError: ``log.size_beyond_log``, ``log.sizes_descend``.

        Source: RFC 9162 section 2.1.4.1.
        """

    def frontier(self, tree_size: int | None = None) -> list[bytes]:
        """The roots of the complete subtrees the tree is made of, largest first: all one needs to go on appending.

        Raises:
            InvalidInputError: ``log.size_beyond_log``.
        """

    def tile(self, level: int, index: int, width: int) -> bytes:
        """The first ``width`` (1..256) hashes of a tile, joined.

        Raises:
            InvalidInputError: ``log.no_such_tile``.

        Source: C2SP tlog-tiles.
        """

def log_leaf_hash(leaf: Buffer) -> bytes:
    """SHA-256(0x00 ‖ leaf). Source: RFC 6962 section 2.1."""

def log_root(data: Buffer, offsets: Offsets) -> bytes:
    """The root of a log with these leaves, without keeping one; hashed in batches with the GIL released.

    Raises:
        InvalidInputError: ``offsets.…`` where the offsets do not cut the data into items.
    """

def verify_inclusion(leaf_hash: bytes, index: int, tree_size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Checks that the leaf is at ``index`` of the tree of ``tree_size`` leaves with that root.

    Raises:
        VerificationError: ``proof.index_out_of_range``, ``proof.wrong_length``, ``proof.hash_length`` (a hash that is
            not 32 bytes), ``proof.root_mismatch``.

    Source: RFC 9162 section 2.1.3.2.
    """

def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Checks that the tree of ``new_size`` leaves begins with the whole tree of ``old_size`` leaves.

    Equal sizes ask for equal roots and an empty proof; an old size of 0 is refused, since every tree begins with the
    empty one.

    Raises:
        VerificationError: ``proof.sizes_descend``, ``proof.from_empty``, ``proof.wrong_length``,
            ``proof.hash_length``, ``proof.old_root_mismatch``, ``proof.root_mismatch``.

    Source: RFC 9162 section 2.1.4.2.
    """

def pack_root(digests: Buffer) -> bytes:
    """keyed["pack"](count ‖ root over n x 32 item digests): RFC 6962's shape, nodes keyed["pack-node"](left ‖ right).

    The count is 8 bytes, big-endian; the inner root of no item is 32 zero bytes.

    Raises:
        InvalidInputError: ``input.wrong_length``.

    Source: docs/formats.md.
    """

# ── trie ─
@final
class Trie:
    """One immutable version of the state trie; an update gives a new version that shares structure with the old.

    The root depends on nothing but the set of (path, stored): 32 zero bytes when empty, else the compact binary tree
    of docs/formats.md. A version made by ``Trie()`` and its successors is in memory, about 110 bytes a key. One from
    ``StateDb.restore`` has its top in memory, about 10 bytes a key, and reads buckets of at most 32 keys from the
    state database, each checked against its hash, of which it keeps the last 48 MB.
    """

    def __init__(self) -> None: ...
    @staticmethod
    def from_state(state: StateDb) -> Trie:
        """Opens and hashes every value of a state by one scan: what checks a database.

        Raises:
            CorruptionError: ``state.corrupt``.
        """

    @property
    def root(self) -> bytes: ...
    def __len__(self) -> int: ...
    def update(self, writes: WriteSet) -> Trie:
        """The version after these writes; about 1 us a key, and 10 us for each bucket to be read.

        Raises:
            CorruptionError: ``state.corrupt``, the database does not hold what this version is made of.
            UnavailableError: ``state.unavailable``.
        """

    def prove(self, path: bytes) -> bytes:
        """A proof of what is stored at ``path`` (32 bytes), or that nothing is; canonical CBOR, under 800 bytes among
        a million keys.

        Raises:
            InvalidInputError: ``path.wrong_length``.
            CorruptionError: ``state.corrupt``, the database does not hold what this version is made of.
            UnavailableError: ``state.unavailable``.
        """

def verify_state_proof(root: bytes, path: bytes, stored: bytes | None, proof: Buffer) -> None:
    """Checks a proof of ``Trie.prove`` against a root one trusts.

    Args:
        root: the state root of a block.
        path: ``state_path(contract, key)``.
        stored: blind and value for presence, None for absence.
        proof: what ``prove`` gave.

    Raises:
        VerificationError: ``proof.malformed``, ``proof.hash_length``, ``proof.wrong_length``, ``proof.empty_sibling``,
            ``proof.not_lifted``, ``proof.other_elsewhere``, ``proof.other_is_own``, ``proof.opposite`` (presence proven
            and absence claimed, or the other way round), ``proof.root_mismatch``.
    """

# ── state (StateView) ─
@final
class WriteSet:
    """What one block changes in the state: the last write per key, ascending by path, no-ops dropped."""

    def __len__(self) -> int: ...
    def items(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Pairs (path, stored), stored being blind (16 bytes) and value, or None for a deletion."""

    @property
    def erased(self) -> list[tuple[bytes, bytes]]:
        """Pairs (path, BLAKE3(stored)) where an erasure took the bytes; not among ``items``."""

    def encode(self) -> bytes:
        """The write set section of a frame: ``CBOR [1, [* [path, stored / null / [digest]]]]``."""

    @classmethod
    def decode(cls, data: Buffer) -> WriteSet:
        """Reads what ``encode`` gives and nothing else.

        Raises:
            InvalidInputError: a ``cbor.…`` code, ``write_set.order`` or ``write_set.value_length``.
        """

@final
class StateView:
    """The overlay of one block over published state, with a stack of call frames.

    Reads see the open frames from the top down, then the block, then the blocks it rests on, then the state database.
    Writes need an open frame. A value written again unchanged, within a call, a block or a chain of blocks, keeps its
    stored bytes and does not count as a write. A view is used by one thread at a time; others wait.

    Args:
        state: published state; None is an empty one (tests, genesis).
        parent: the view of the block before, while its writes are not yet in ``state``. It takes no more calls.

    Raises:
        InvalidInputError: ``state.open_frames`` when a call of the parent is still open.
    """

    def __new__(cls, state: StateDb | None, parent: StateView | None = None) -> StateView: ...
    def begin(self, salt: bytes) -> None:
        """Opens a call frame; a nested call begins inside its caller's frame, with the same salt.

        Args:
            salt: the transaction's (16 bytes) or the timer's (32 bytes); blinds what the frame writes.

        Raises:
            InvalidInputError: ``state.salt_length``, or ``state.too_deep`` beyond 8 frames.
            ConflictError: ``state.sealed`` once a later block rests on this one.
        """

    def get(self, contract: str, key: object) -> object:
        """The value as an immutable Python object, or None when absent.

        Raises:
            CorruptionError: ``state.corrupt``, the stored bytes are not what was written.
            UnavailableError: ``state.unavailable``, the state database could not be read.
            InvalidInputError: ``state.contract_length``, ``state.key_too_large`` (1,024 bytes encoded) or a ``cbor.…``
                code for a key the profile does not know.
        """

    def get_bytes(self, contract: str, key: object) -> bytes | None:
        """The encoded value without its blind; raises as ``get``."""

    def put(self, contract: str, key: object, value: object) -> None:
        """Writes in the top frame. None is a value, unlike an absent key, but ``get`` cannot tell them apart.

        Raises:
            InvalidInputError: as ``get``; ``state.no_frame``; ``state.value_length`` (64 KiB encoded).
        """

    def delete(self, contract: str, key: object) -> None:
        """Deletes in the top frame; an absent key stays absent. Raises as ``put``."""

    def accept(self) -> int:
        """Merges the top frame into what lies below it; gives how many keys that changed.

        Raises:
            InvalidInputError: ``state.no_frame``.
        """

    def drop_frame(self) -> None:
        """Forgets the top frame and what it wrote. Raises as ``accept``."""

    @property
    def depth(self) -> int:
        """Frames open now."""

    def write_set(self) -> WriteSet:
        """What the whole block changes against the state it rests on.

        Raises:
            InvalidInputError: ``state.open_frames``.
        """

    def detach_parent(self) -> None:
        """Lets go of the blocks below, once their writes are in the state database."""

def state_path(contract: str, key: object) -> bytes:
    """Where a contract's key lives in the state trie: ``keyed["path"](CBOR [contract, key])``, 32 bytes.

    Raises:
        InvalidInputError: as ``StateView.get``.
    """

# ── block ─
@final
class BlockLeaf:
    """The leaf that closes a block, decoded: ``0x02 || CBOR [1, chain id, height, …, proposer]``."""

    @property
    def chain_id(self) -> str:
        """A name, a hyphen and 32 hex digits of the genesis hash."""

    @property
    def height(self) -> int:
        """Blocks of ours before this one; 0 is genesis."""

    @property
    def engine_height(self) -> int: ...
    @property
    def time_ms(self) -> int:
        """Block time, Unix milliseconds."""

    @property
    def first_index(self) -> int:
        """Index of the block's first entry in the log."""

    @property
    def leaf_count(self) -> int:
        """Entries before the block leaf."""

    @property
    def tree_size(self) -> int:
        """Log size after the block: ``first_index + leaf_count + 1``."""

    @property
    def previous_root(self) -> bytes:
        """Log root at size ``first_index``."""

    @property
    def state_root(self) -> bytes:
        """Root of the state trie after the block."""

    @property
    def proposer(self) -> bytes:
        """Public key of the proposer."""

@final
class Block:
    """An assembled block: its leaf and everything the leaf commits to, immutable."""

    @property
    def chain_id(self) -> str:
        """A name, a hyphen and 32 hex digits of the genesis hash."""

    @property
    def height(self) -> int:
        """Blocks of ours before this one; 0 is genesis."""

    @property
    def engine_height(self) -> int: ...
    @property
    def time_ms(self) -> int:
        """Block time, Unix milliseconds."""

    @property
    def first_index(self) -> int:
        """Index of the block's first entry in the log."""

    @property
    def leaf_count(self) -> int:
        """Entries before the block leaf."""

    @property
    def tree_size(self) -> int:
        """Log size after the block: ``first_index + leaf_count + 1``."""

    @property
    def previous_root(self) -> bytes:
        """Log root at size ``first_index``."""

    @property
    def state_root(self) -> bytes:
        """Root of the state trie after the block."""

    @property
    def proposer(self) -> bytes:
        """Public key of the proposer."""

    @property
    def leaf(self) -> bytes:
        """The block leaf, encoded."""

    @property
    def leaf_hash(self) -> bytes:
        """Its RFC 6962 leaf hash."""

    @property
    def log_root(self) -> bytes:
        """Log root after this block."""

    @property
    def transactions(self) -> list[bytes]:
        """As received, in leaf order; timers have none."""

    @property
    def receipts(self) -> list[bytes]:
        """One an entry; none for genesis."""

    @property
    def leaves(self) -> list[bytes]:
        """Leaf preimages in order, the block leaf last."""

    @property
    def write_set(self) -> WriteSet: ...

def assemble(
    log: Log,
    trie: Trie,
    *,
    chain_id: str,
    height: int,
    engine_height: int,
    time_ms: int,
    proposer: bytes,
    entries: Sequence[tuple[Transaction | bytes, bytes]],
    writes: WriteSet,
    packs: Sequence[SealedPack],
) -> tuple[Block, Trie]:
    """Closes a block: appends its leaves to ``log`` and gives it with the next version of the trie.

    Whatever can fail fails before the log is touched. To abandon the block, truncate the log to ``first_index``.

    Args:
        log: all leaves before this block.
        trie: the state before it.
        entries: (transaction or timer id of 32 bytes, encoded receipt), in order of execution.
        writes: what execution changed.
        packs: the attachments of the transactions, all of them, in order.

    Raises:
        InvalidInputError: ``pack.root_mismatch`` with ``position`` over all attachments, ``block.no_entries``,
            ``block.chain_id``, ``block.out_of_range``, ``block.proposer_length``, ``timer.wrong_length``.
    """

def assemble_genesis(
    log: Log, trie: Trie, genesis: bytes, writes: WriteSet, *, chain_id: str, time_ms: int, proposer: bytes
) -> tuple[Block, Trie]:
    """Block 0: the entry ``0x00 || BLAKE3(genesis)`` and its block leaf, over the state that genesis writes.

    Raises:
        ConflictError: ``block.log_not_empty``.
        InvalidInputError: ``block.chain_id``, ``block.chain_id_mismatch`` when it does not end in the hash of
            ``genesis``; else as ``assemble``.
    """

def decode_block_leaf(leaf: Buffer) -> BlockLeaf:
    """Reads a block leaf and nothing else.

    Raises:
        InvalidInputError: ``block.other_leaf``, ``block.chain_id``, ``block.no_entries``, ``block.out_of_range`` or a
            ``cbor.…`` code.
    """

def transaction_leaf(id: bytes, received_digest: bytes, receipt: bytes) -> bytes:
    """``0x01 || id || SHA-256(received bytes) || BLAKE3(receipt)``."""

def timer_leaf(timer_id: bytes, receipt: bytes) -> bytes:
    """``0x03 || timer id || BLAKE3(receipt)``."""

# ── envelope ─
@final
class ClassKey:
    """The secret key of one (subject, custodian, class, epoch): wraps content keys and opens records.

    Opaque and wiped when dropped; repr shows ids only; not picklable.
    """

    @staticmethod
    def derive(root: bytes, subject: bytes, custodian: bytes, class_: str, epoch: bytes) -> ClassKey:
        """The key of a class and epoch under the root key of (subject, custodian).

        Args:
            root: 32 bytes, random, from a key store.
            subject: 16 bytes; the patient's random id, or the custodian itself where there is no patient.
            custodian: 16 bytes.
            class_: 1..64 of ``A-Za-z0-9-_.``.
            epoch: 16 random bytes.

        Raises:
            InvalidInputError: ``envelope.class_name``, ``key.wrong_length``, ``envelope.subject_length`` …

        Source: docs/formats.md, "Records, packs, keys".
        """

    @property
    def subject(self) -> bytes:
        """16 bytes."""

    @property
    def custodian(self) -> bytes:
        """16 bytes."""

    @property
    def class_(self) -> str:
        """What kind of record the key opens."""

    @property
    def epoch(self) -> bytes:
        """16 bytes."""

    @property
    def kid(self) -> bytes:
        """CBOR [subject, custodian, class, epoch]: how a wrap names this key."""

    @property
    def public_key(self) -> bytes:
        """32 bytes, X25519; posted with the epoch, for those who may write but not read."""

    def grant(
        self, recipient_public_key: bytes, *, origin: str, recipient: bytes, suite: str = "x25519"
    ) -> bytes:
        """Seals the class seed to a key that the recipient made for this subject.

        Args:
            recipient_public_key: of the recipient's ``GrantKey``; 32 bytes, or 1,216 for ``xwing``.
            origin: id of the chain on which access was given.
            recipient: 16 bytes, the id of who receives it.
            suite: ``x25519``, or ``xwing`` where the module was built with it.

        Returns:
            About 190 bytes (1,280 for ``xwing``), to travel as an item of a pack.

        Raises:
            InvalidInputError: ``grant.public_key``, ``grant.suite``, ``grant.origin``, ``grant.recipient_length``.

        Source: RFC 9180; docs/formats.md, "Grants".
        """

@final
class ClassPublicKey:
    """The public half of a class key: records can be sealed for it, not opened with it."""

    def __new__(cls, subject: bytes, custodian: bytes, class_: str, epoch: bytes, public_key: bytes) -> ClassPublicKey:
        """From the ids and the X25519 key posted with an epoch.

        Raises:
            InvalidInputError: ``envelope.class_name``, ``envelope.public_key`` (small order), a wrong length.
        """

    @property
    def subject(self) -> bytes:
        """16 bytes."""

    @property
    def custodian(self) -> bytes:
        """16 bytes."""

    @property
    def class_(self) -> str:
        """What kind of record the key opens."""

    @property
    def epoch(self) -> bytes:
        """16 bytes."""

    @property
    def kid(self) -> bytes:
        """CBOR [subject, custodian, class, epoch]."""

    @property
    def public_key(self) -> bytes:
        """32 bytes, X25519."""

@final
class SealedPack:
    """The sealed items that travel with one transaction, and their wraps; immutable."""

    @staticmethod
    def from_items(items: Sequence[Buffer], wraps: Sequence[Buffer]) -> SealedPack:
        """A pack received from elsewhere: every part has its one encoding, the roots are computed from the bytes.

        Compare the roots with the ones that were signed. ``commitments`` is empty: only the content keys give them.

        Raises:
            InvalidInputError: ``envelope.counts_differ``; ``envelope.malformed`` with ``position, offset``.
        """

    @property
    def root(self) -> bytes:
        """32 bytes: keyed["pack"] root over the item digests."""

    @property
    def wraps_root(self) -> bytes:
        """32 bytes: the root of the same shape over the digests of the wraps."""

    @property
    def commitments(self) -> list[bytes]:
        """The 32-byte state commitments by position."""

    def __len__(self) -> int:
        """How many records."""

    def item(self, position: int) -> bytes:
        """The COSE_Encrypt0 at this position.

        Raises:
            IndexError: there is no such position.
            NotFoundError: ``pack.item_outside``: only its digest is here.
        """

    def wraps(self, position: int) -> bytes:
        """The COSE recipients beside it. Raises IndexError."""

    def item_digest(self, position: int) -> bytes:
        """32 bytes, keyed["pack-item"] of the item, wherever it lies. Raises IndexError."""

    @property
    def item_sizes(self) -> list[int]:
        """Bytes of each item by position, 0 for those outside."""

    @property
    def outside(self) -> list[int]:
        """Positions whose items lie outside the pack, ascending."""

    def without(self, positions: Sequence[int]) -> SealedPack:
        """The same pack, roots and all, with the digests of these items in their places."""

    def behind(self, first: Sequence[SealedPieces]) -> SealedPack:
        """A pack that begins with records sealed in pieces and goes on with the items of this one.

        Raises:
            InvalidInputError: ``envelope.malformed``.
        """

    @property
    def size(self) -> int:
        """Bytes of all wraps, and of the items that are not outside."""

@final
class PieceSealer:
    """Seals one content of any length in pieces of 1 MiB, each under a key of its own.

    Dropped before ``finish`` it leaves nothing that opens. Holds one piece in memory.
    """

    def __new__(cls, head: bytes, *, origin: str, record_id: bytes, version: int, class_: str) -> PieceSealer:
        """Begins an item under a fresh content key.

        Args:
            head: what the content is, at most 64 KiB; sealed with it.
            origin, record_id, version, class_: where it stands; authenticated with every piece.

        Raises:
            InvalidInputError: ``pieces.head_too_large``, ``envelope.record_id_length``, ``envelope.origin``,
                ``envelope.class_name``.
            UnavailableError: ``random.unavailable``.
        """

    @property
    def front(self) -> bytes:
        """The first bytes of the item: header and sealed head."""

    def update(self, content: Buffer) -> bytes:
        """Takes more content and gives the sealed pieces that are certainly not the last.

        Raises:
            InvalidInputError: ``pieces.too_large``: more than 2 GiB in all; nothing can be done with it then.
            ConflictError: ``pieces.finished``.
        """

    def finish(self, keys: Sequence[ClassKey | ClassPublicKey]) -> tuple[bytes, SealedPieces]:
        """The last piece, and what the pack holds of the item.

        Raises:
            InvalidInputError: as of `seal_records` for its keys.
            ConflictError: ``pieces.finished``.
        """

@final
class SealedPieces:
    """What sealing in pieces gives beside the item's bytes."""

    @property
    def item_digest(self) -> bytes:
        """32 bytes, keyed["pack-item"] of the whole item."""

    @property
    def wraps(self) -> bytes:
        """The COSE recipients."""

    @property
    def commitment(self) -> bytes:
        """The 32-byte state commitment."""

    @property
    def content_digest(self) -> bytes:
        """BLAKE3 of the content."""

    @property
    def bytes(self) -> int:
        """Bytes of the content."""

@final
class PieceOpener:
    """Opens one item in pieces, in order."""

    def __new__(
        cls,
        front: Buffer,
        wraps: Buffer,
        key: ClassKey,
        *,
        origin: str,
        record_id: bytes,
        version: int,
        class_: str,
    ) -> PieceOpener:
        """Opens the front of an item; the first ``front_bytes`` bytes of it, no more and no less.

        Raises:
            DeniedError: ``envelope.no_wrap``.
            CorruptionError: ``envelope.cannot_open``, ``envelope.commitment_mismatch``, ``pieces.malformed``.
        """

    @staticmethod
    def front_bytes(start: Buffer) -> int:
        """How long the front is; 80 bytes from the start of the item are enough to tell.

        Raises:
            CorruptionError: ``pieces.malformed``.
            InvalidInputError: ``pieces.head_too_large``.
        """

    @property
    def head(self) -> bytes:
        """What the content is."""

    def open(self, sealed: Buffer, last: bool) -> bytes:
        """Opens the next piece; 1 MiB + 16 bytes unless it is the last.

        Raises:
            CorruptionError: ``pieces.cannot_open`` with ``index``, ``pieces.after_last``.
        """

    def finish(self, commitment: bytes) -> bytes:
        """The opening key, once the last piece was opened and the whole is what the state commits to.

        Raises:
            CorruptionError: ``pieces.unfinished``, ``envelope.commitment_mismatch``.
        """

def seal_records(
    origin: str,
    data: Buffer,
    spans: NDArray[np.uint64],
    drafts: Sequence[tuple[bytes, int, str, Sequence[ClassKey | ClassPublicKey]]],
) -> SealedPack:
    """Seals ranges of ``data``, each under its own fresh content key, wrapped for each of its keys.

    Runs on the pool with the GIL released. Nothing is sealed when one draft is refused.

    Args:
        origin: id of the chain the records are sealed for.
        data: where the contents are, at most 16 MiB each.
        spans: n x 2 byte ranges ``[start, end)``, as ``Resources.spans`` gives them.
        drafts: n of (record id of 16 bytes, version, class, keys): 1..256 keys of that class, none twice. A
            ``ClassKey`` costs one AES-KW, a ``ClassPublicKey`` one HPKE encapsulation (~60 us).

    Raises:
        InvalidInputError: ``envelope.spans_shape``, ``.counts_differ``, ``.span_out_of_range``, ``.too_large``,
            ``.recipient_count``, ``.duplicate_recipient``, ``.wrong_class``, ``.duplicate_record``, ``.class_name``,
            ``.origin``, ``.public_key``; with ``position`` where one draft is at fault.
        UnavailableError: ``random.unavailable``.

    Source: RFC 9052 (COSE_Encrypt0), RFC 3394 (AES-KW), RFC 9180 (HPKE).
    """

def open_record(
    item: Buffer,
    wraps: Buffer,
    key: ClassKey,
    *,
    origin: str,
    record_id: bytes,
    version: int,
    class_: str,
    commitment: bytes | None,
) -> tuple[bytes, bytes]:
    """(content, opening key) of one record, given out only if wrap, key commitment, place and commitment all hold.

    Args:
        commitment: what state says of this version; None only where no state is at hand.

    Raises:
        DeniedError: ``envelope.no_wrap``: the key is none of the recipients.
        CorruptionError: ``envelope.cannot_open``, ``envelope.commitment_mismatch``, ``envelope.malformed``.
        InvalidInputError: an argument other than the stored bytes.
    """

def open_records(
    openings: Sequence[tuple[Buffer, Buffer, ClassKey, bytes, int, str, bytes | None]], *, origin: str
) -> list[tuple[bytes, bytes]]:
    """``open_record`` for many, on the pool: (item, wraps, key, record id, version, class, commitment) each.

    Raises:
        DeniedError, CorruptionError, InvalidInputError: as ``open_record``, for the first that is refused, with its
            ``position``; nothing is given out then.
    """

def verify_opening(content: Buffer, opening_key: bytes, commitment: bytes) -> None:
    """Checks content that was disclosed with its opening key against its commitment in state.

    Raises:
        VerificationError: ``envelope.commitment_mismatch``.
    """

def wrap_kids(wraps: Buffer) -> list[tuple[bytes, bytes, str, bytes]]:
    """(subject, custodian, class, epoch) of each wrap, in order.

    Raises:
        InvalidInputError: ``envelope.malformed``.
    """

# ── grant ─
@final
class GrantKey:
    """The key that a recipient makes for the grants about one subject; destroying it destroys them."""

    @staticmethod
    def generate(suite: str = "x25519") -> GrantKey:
        """A fresh key.

        Raises:
            InvalidInputError: ``grant.suite``, for ``xwing`` too where it is not built in.
        """

    @staticmethod
    def from_seed(seed: bytes, suite: str = "x25519") -> GrantKey:
        """The same key from what a key store kept.

        Raises:
            InvalidInputError: ``key.wrong_length``, ``grant.suite``.
        """

    @property
    def suite(self) -> str:
        """``x25519`` or ``xwing``."""

    @property
    def seed(self) -> bytes:
        """32 bytes, the private key: for a key store, and nowhere else."""

    @property
    def public_key(self) -> bytes:
        """What is posted."""

def open_grant(
    grant: Buffer, key: GrantKey, posted: ClassPublicKey, *, origin: str, recipient: bytes
) -> ClassKey:
    """Opens a grant to the class key that the chain says of the epoch, and to no other.

    Args:
        grant: what ``ClassKey.grant`` gave.
        key: the recipient's.
        posted: the public half of the class key, as posted with its epoch.
        origin: id of the chain on which access was given.
        recipient: 16 bytes, as it was granted to.

    Raises:
        InvalidInputError: ``grant.malformed``, ``grant.suite``, ``grant.origin``.
        VerificationError: ``grant.other_subject``, ``grant.other_custodian``, ``grant.other_class``,
            ``grant.other_epoch``; ``grant.cannot_open`` (another recipient, key or chain, or changed bytes);
            ``grant.other_seed`` (a seed that is not the one behind ``posted``).

    Source: RFC 9180; docs/formats.md, "Grants".
    """

# ── shard ─
def shard_of(subject: bytes, shard_count: int) -> int:
    """The shard of a subject: 0 .. shard_count - 1, evenly dealt.

    With more shards a subject moves to one of the new ones or not at all.

    Args:
        subject: 16 bytes, random.
        shard_count: 1 .. 65,536.

    Raises:
        InvalidInputError: ``shard.count``, ``envelope.subject_length``.

    Source: docs/formats.md, "Shards".
    """

def prove_block(block: Block, before: Trie) -> bytes:
    """A block with the part of the state before it that its writes touch: all that a validator needs.

    Args:
        before: the trie over which the block was assembled.

    Raises:
        InvalidInputError: ``shard.other_state``, ``shard.no_change``: it was assembled over another trie.

    Source: docs/formats.md, "Shards".
    """

@final
class ShardTip:
    """Where a chain stands between two blocks, in a few hundred bytes."""

    def __new__(
        cls,
        chain_id: str,
        *,
        next_height: int,
        time_ms: int,
        tree_size: int,
        frontier: Sequence[bytes],
        state_root: bytes,
    ) -> ShardTip:
        """
        Args:
            next_height: height of the block that comes next.
            time_ms: time of the block before it; 0 before the first.
            tree_size: leaves in the log.
            frontier: as ``Log.frontier`` gives it.
            state_root: 32 bytes.

        Raises:
            InvalidInputError: ``frontier.wrong_length``, ``digest.wrong_length``.
        """

    @staticmethod
    def genesis(chain_id: str) -> ShardTip:
        """Before block 0."""

    @staticmethod
    def after(block: Block, log: Log) -> ShardTip:
        """After a block that the log holds.

        Raises:
            InvalidInputError: ``log.size_beyond_log``.
        """

    @property
    def chain_id(self) -> str:
        """The chain."""

    @property
    def next_height(self) -> int:
        """Height of the block that comes next."""

    @property
    def time_ms(self) -> int:
        """Time of the block before."""

    @property
    def tree_size(self) -> int:
        """Leaves in the log."""

    @property
    def frontier(self) -> tuple[bytes, ...]:
        """Roots of the log's complete subtrees, the largest first."""

    @property
    def log_root(self) -> bytes:
        """32 bytes: what a checkpoint of this size has."""

    @property
    def state_root(self) -> bytes:
        """32 bytes."""

    def __eq__(self, other: object, /) -> bool: ...

@final
class ShardFault:
    """The first thing wrong with a shard block."""

    @property
    def code(self) -> str:
        """Stable, ``shard.…``; docs/formats.md, "Shards", lists them in the order of the checks."""

    @property
    def position(self) -> int | None:
        """The section, entry or write concerned, 0-based, where there is one."""

    def __eq__(self, other: object, /) -> bool: ...

def validate_shards(claims: Sequence[tuple[ShardTip, Buffer, bytes | None]]) -> list[ShardTip | ShardFault]:
    """Validates the next blocks of many chains, in parallel, without their states and with the GIL released.

    Args:
        claims: for each shard where it stood, what ``prove_block`` gave, and the log root after it, or None where no
            checkpoint names one.

    Returns:
        For each, in order, where it stands now, or the first fault. What needs the state (may this key do this) or the
        past (was it seen in the last hour) is not judged.

    Raises:
        InvalidInputError: ``digest.wrong_length``, ``input.not_a_buffer``; nothing about a block raises.

    Source: docs/formats.md, "Shards".
    """

# ── bundle ─
@final
class Resources:
    """What one FHIR R4 JSON document holds: each resource as the range of bytes it was received in.

    Lists and arrays are in entry order and of equal length, without the entries that were refused. Texts (ids, URLs,
    references) are what JSON says, escapes resolved; nothing else is changed.
    """

    @property
    def kind(self) -> str:
        """``"Bundle:<type>"`` for a Bundle, ``"resource"`` for a single resource, ``"ndjson"`` for lines."""

    def __len__(self) -> int:
        """How many resources were taken."""

    @property
    def data(self) -> bytes:
        """The document, the same object when it was given as ``bytes``."""

    @property
    def spans(self) -> NDArray[np.uint64]:
        """n x 2 byte ranges ``[start, end)`` of the resources in ``data``; read-only, fits ``seal_records``."""

    @property
    def entries(self) -> NDArray[np.uint64]:
        """n entry numbers (line numbers for NDJSON), 0-based, ascending; read-only."""

    def content(self, index: int) -> bytes:
        """The bytes of one resource as received. Raises IndexError."""

    def rows(self) -> list[tuple[str, str | None, str | None, str | None, str | None]]:
        """(type, id, fullUrl, patient reference, request method) of each resource.

        The patient reference is the one of the element that names whom the resource is about (``subject``,
        ``patient``, ``beneficiary``, ``for`` …), as written; where a type has several such places or the first is
        absent, the first reference that is a Patient's by its words, its ``type`` or the entry its fullUrl finds.
        A Patient gives ``Patient/<id>``, without id its fullUrl. A Group and types about nobody give None.
        Source: FHIR R4 Patient compartment definition and search parameters.
        """

    def request_urls(self) -> list[str | None]:
        """``entry.request.url`` of each resource."""

    def rejected(self) -> list[tuple[int, str]]:
        """(entry number, code) of each refused entry, ascending.

        Codes: ``fhir.entry_without_resource``, ``fhir.not_fhir``, ``fhir.unknown_type``, ``fhir.invalid_id``,
        ``fhir.invalid_full_url``, ``fhir.duplicate_key``, ``fhir.duplicate_full_url``, ``fhir.duplicate_id``,
        ``fhir.too_deep``, ``fhir.resource_too_large``; for NDJSON also ``fhir.invalid_json``, ``fhir.invalid_utf8``.
        Of two entries that collide the later one is refused; the same id with equal bytes, or with another
        ``meta.versionId``, does not collide, and in a history nothing does.
        """

def split_resources(data: Buffer, *, max_resource_bytes: int = 16 * 2**20) -> Resources:
    """Splits a Bundle of any type, or takes a single resource, in one pass with the GIL released.

    Nesting counts from each resource and is at most 64 deep. A Bundle inside a Bundle stays one resource.

    Raises:
        InvalidInputError: the document as a whole is refused, with the byte ``offset`` where known:
            ``fhir.invalid_utf8``, ``fhir.invalid_json`` (also for a byte order mark), ``fhir.not_fhir``,
            ``fhir.invalid_bundle`` (unknown ``type``, ``entry`` no array), ``fhir.duplicate_key``; a single resource
            also with the codes of ``Resources.rejected``, ``fhir.resource_too_large`` with ``bytes, limit_bytes``.

    Source: RFC 8259; FHIR R4 2.36 (Bundle), rule bdl-7.
    """

def split_ndjson(data: Buffer, *, max_resource_bytes: int = 16 * 2**20) -> Resources:
    """Splits a block of whole NDJSON lines, one resource a line; the last line feed may be absent.

    Blank lines are passed over. A bad line is refused by itself and listed by ``rejected``; nothing is raised. A line
    that holds a Bundle is one resource of type Bundle: give its content to ``split_resources``.

    Source: FHIR Bulk Data, NDJSON.
    """

def describe_resource(data: Buffer, *, max_resource_bytes: int = 16 * 2**20) -> tuple[str, str | None, str | None]:
    """(type, id, patient reference) of one resource, with the checks of ``split_resources``.

    Without a Bundle around it, a ``urn:uuid`` reference counts as the patient's only in the element that names whom
    the resource is about.

    Raises:
        InvalidInputError: as ``split_resources``.
    """

# ── segments, state database, key store, checkpoint file ─
# Every store refuses in the same words when the file system fails: UnavailableError store.full, store.read_only or
# store.io (details errno, and retryable = False for store.io); after close(): ConflictError ….closed.

@final
class SegmentLog:
    """The block log in a folder: one frame a block, one sync an append. It alone is the truth.

    Thread-safe; one process writes. Whatever touches a file runs without the GIL.

    Source: docs/formats.md, Block log.
    """

    @staticmethod
    def create(folder: str, chain_id: str, keys: KeyStore) -> SegmentLog:
        """Makes an empty log, and its folder where missing.

        Raises:
            ConflictError: ``log.exists``.
        """

    @staticmethod
    def open(
        folder: str, chain_id: str, keys: KeyStore, *, checkpoint_size: int = 0, read_only: bool = False
    ) -> SegmentLog:
        """Opens a log: reads every header, opens the last frame whole, cuts a torn tail. What it shows is durable.

        Args:
            folder: where the segment files are.
            chain_id: the chain; frames of another are damage.
            keys: holds the segments' keys; stays open as long as the log.
            checkpoint_size: tree size of the largest checkpoint known from anywhere; a log that ends before it is
                never cut to fit.
            read_only: changes nothing and takes no lock; beside a writer it shows the whole frames of this moment.

        Raises:
            NotFoundError: ``log.missing``.
            CorruptionError: ``log.damaged`` (segment, offset, height, section), ``log.key_missing``,
                ``log.shorter_than_checkpoint``.
        """

    @staticmethod
    def scan(folder: str, chain_id: str, keys: KeyStore) -> FrameScan:
        """Walks every frame on disk, damaged or not: opens all sections, follows heights and links.

        Gives (file name, byte offset, frame or fault) and goes on after a bad frame where the next header stands. A
        frame out of order comes after its fault. Works where ``open`` refuses and only reads. Beside a writer, the
        append in progress may show as a fault of the last height: one that no checkpoint covers.
        """

    @property
    def chain_id(self) -> str:
        """The chain."""

    @property
    def height(self) -> int | None:
        """Height of the last block, None while there is none."""

    @property
    def tree_size(self) -> int:
        """Leaves in the log."""

    def height_of(self, leaf_index: int) -> int | None:
        """Height of the block that holds a leaf; a search in memory."""

    def append(self, block: Block, packs: Sequence[SealedPack]) -> None:
        """Appends a block and the packs its transactions name: durable when it returns, at the cost of one sync.

        Raises:
            ConflictError: ``log.not_next``, ``log.leaves_do_not_follow``.
            InvalidInputError: ``log.wrong_chain``, ``log.block_too_large`` (1 GiB a section), ``log.read_only``.
            UnavailableError: ``store.…`` for the write that failed, ``log.poisoned`` for every later one: only opening
                again tells whether the failed block is there.
        """

    def read(self, height: int) -> Frame:
        """The block of a height. Its sections are read and opened when first asked for.

        Raises:
            NotFoundError: ``log.no_such_height``.
            CorruptionError: ``log.damaged``.
        """

    def read_part(self, height: int, pack: int | bytes, position: int) -> tuple[bytes | None, bytes | None, bytes]:
        """(sealed item, its digest, its wraps) out of a pack, named by its number in the block or its root.

        The item, or the digest where that is all there is.

        The opened sections of the blocks read last are kept, up to 64 MiB, so reads of one block share the work.

        Raises:
            NotFoundError: ``log.no_such_height``, ``log.no_such_item``, ``log.erased`` when the wraps are.
            CorruptionError: ``log.damaged``.
        """

    def find_traces(
        self, from_height: int, to_height: int, *, subjects: Sequence[bytes], custodian: bytes, paths: Sequence[bytes]
    ) -> tuple[list[tuple[int, int, int, bytes]], list[tuple[int, bytes]]]:
        """Looks through the blocks ``from_height..to_height``, the end excluded; one pass without the GIL.

        Args:
            subjects: whose wraps to look for, at the custodian; 16 bytes each. None: wraps are not opened.
            paths: trie paths whose values to look for; 32 bytes each. None: write sets are not opened.

        Returns:
            (height, number of the pack, number of the item, subject) of the wraps; (height, path) of the values.
        """

    def rewrite(
        self,
        *,
        transactions: Sequence[tuple[int, int]] = ...,
        writes: Sequence[tuple[int, bytes]] = ...,
        items: Sequence[tuple[int, int, int]] = ...,
        records: Sequence[tuple[int, int, int]] = ...,
        subjects: Sequence[tuple[int, int, int, bytes, bytes]] = ...,
        restores: Sequence[tuple[int, int, int, bytes]] = ...,
        forget: Sequence[tuple[str, bytes]] = ...,
        applied_erasure_height: int | None = None,
    ) -> tuple[int, int]:
        """Writes the segments concerned anew under fresh keys, with digests in place of what goes, then forgets the
        former keys and the named entries of the key store in one step.

        What is gone already is left alone. Reading and appending go on meanwhile. After a crash at any moment each
        segment is the old one or the new one; the named entries go only with the last step.

        Args:
            transactions: (height, number in the block).
            writes: (height, path); a later block must have written the path again.
            items: (height, number of the pack, number of the item): the item alone.
            records: the same: the item and its wraps.
            subjects: the same, subject, custodian: the subject's wraps; the item too where no other wraps are left.
            restores: the same, item: a removed item comes back.
            forget: (kind, id) of entries of the key store.
            applied_erasure_height: up to where the log's erasures are then applied; None leaves it.

        Returns:
            Segments written anew, and bytes they are shorter by.

        Raises:
            NotFoundError: ``log.no_such_height``, ``log.no_such_item``.
            InvalidInputError: ``log.other_item``: not the bytes that were removed; ``log.read_only``.
            UnavailableError: ``store.…``, ``log.poisoned``.
            CorruptionError: ``log.damaged``.
        """

    def roll(self) -> None:
        """Lets the next block begin a segment, under a key of its own; not kept over a close."""

    def leaf_hashes(self, from_height: int, to_height: int | None = None) -> NDArray[np.uint8]:
        """RFC 6962 leaf hashes (n x 32, leaf order) of the blocks ``from_height..to_height``, the end excluded."""

    def locate(self, height: int) -> tuple[str, int]:
        """(file name, byte offset) of a block's frame."""

    def extents(self) -> list[tuple[str, int]]:
        """(file name, bytes that its frames take up) of each segment, in order of height; only zeros follow them."""

    def read_stored(self, segment: str, offset: int, count: int) -> bytes:
        """Stored bytes of a segment file as it was when it was opened, whatever has been rewritten since.

        Raises:
            NotFoundError: ``log.missing``.
        """

    def bytes_on_disk(self) -> int:
        """Bytes of all segment files."""

    @property
    def last_segment_height(self) -> int | None:
        """First height in the last segment, None in an empty log."""

    def close(self) -> None:
        """Lets go of the files; frames already read stay usable."""

@final
class Frame:
    """A stored block. Each property reads and opens its section at the first access, then copies out of it.

    Every property may raise CorruptionError ``log.damaged`` (segment, offset, height, section).
    """

    @property
    def height(self) -> int:
        """The block's height."""

    @property
    def head(self) -> BlockLeaf:
        """The block leaf, decoded."""

    @property
    def tree_size(self) -> int:
        """Leaves in the log with this block."""

    @property
    def leaf_hash(self) -> bytes:
        """RFC 6962 leaf hash of the block leaf."""

    @property
    def previous_leaf_hash(self) -> bytes:
        """The same of the block before, zeros for block 0."""

    @property
    def leaves(self) -> list[bytes]:
        """Leaf preimages in log order, the block leaf last."""

    @property
    def transactions(self) -> list[bytes | None]:
        """The transactions as received, in leaf order; None where one was erased."""

    def decoded_transactions(self) -> list[Transaction | None]:
        """The same, decoded; signatures are not checked again."""

    @property
    def receipts(self) -> list[bytes]:
        """One receipt for each leaf but the block leaf; none for genesis."""

    @property
    def write_set(self) -> WriteSet:
        """What the block changed in the state."""

    @property
    def pack_roots(self) -> list[bytes]:
        """Roots of the packs, in the order they were appended."""

    def pack(self, pack: int | bytes) -> SealedPack:
        """A pack, named by its number or its root, without commitments: they are not stored.

        Raises:
            NotFoundError: ``log.no_such_item``, ``log.erased``.
        """

    def stored_pack(self, pack: int | bytes) -> StoredPack:
        """The same as far as it is still there, whatever was erased or pruned of it.

        Raises:
            NotFoundError: ``log.no_such_item``.
        """

    @property
    def erased(self) -> tuple[int, int, int, int]:
        """How many transactions, values, pack items and wraps are digests by now; wraps of which some went count."""

@final
class StoredPack:
    """A pack as the log still has it."""

    def __len__(self) -> int:
        """How many records, those that went included."""

    def item(self, position: int) -> bytes | None:
        """The COSE_Encrypt0 at this position, None where only its digest is left. Raises IndexError."""

    def wraps(self, position: int) -> bytes | None:
        """The COSE recipients beside it that are left, None where there are none. Raises IndexError."""

    def item_digest(self, position: int) -> bytes:
        """keyed["pack-item"] of the item as it was sealed. Raises IndexError."""

@final
class FrameScan:
    """The walk of `SegmentLog.scan`: (file name, byte offset, frame or fault), in the order on disk."""

    def __iter__(self) -> FrameScan: ...
    def __next__(self) -> tuple[str, int, Frame | Fault]: ...

@final
class Fault:
    """What stands in the place of a frame."""

    @property
    def kind(self) -> str:
        """frame.header, frame.section, frame.order, frame.missing, segment.key_missing, .unreadable or .tail."""

    @property
    def height(self) -> int | None:
        """The block concerned, where it is known."""

    @property
    def section(self) -> str | None:
        """The section that does not open, for ``frame.section``."""

@final
class StateDb:
    """The state after some block, and where each transaction is: a projection of the log.

    It knows the height it has applied, is never synced by itself, and is rebuilt from the log whenever in doubt.

    Source: docs/formats.md, Block log.
    """

    @staticmethod
    def open(folder: str, key: bytes) -> StateDb:
        """Opens the database, making it where missing. One process and one handle at a time.

        Raises:
            ConflictError: ``state.locked``.
            CorruptionError: ``state.damaged``, also for another key: ``discard`` it, open again and replay the log.
        """

    @staticmethod
    def in_memory() -> StateDb:
        """An empty one that keeps nothing on disk: beside a writer, and in tests."""

    @staticmethod
    def discard(folder: str) -> None:
        """Removes a closed database from the disk."""

    @property
    def applied_height(self) -> int | None:
        """Height of the last block applied, None for an empty state."""

    @property
    def applied_leaf_hash(self) -> bytes | None:
        """Leaf hash of that block's leaf: of which history this is the state."""

    def apply(self, block: Block) -> None:
        """Applies the next block, all or nothing. Call it once the block's frame is synced.

        Raises:
            ConflictError: ``state.not_next``.
            UnavailableError: ``store.…``, then ``state.poisoned``.
        """

    def publish(self, block: Block, trie: Trie, log: Log) -> None:
        """Applies the next block, lets the trie after it rest on the database, and moves whole tiles of the log there.

        Args:
            block: durable.
            trie: the version after it; from then on it need not keep in memory what it reads as the state of this
                block, whatever is applied later.
            log: its tree, with the block's leaves.

        Raises:
            ConflictError: ``state.not_next``.
            UnavailableError: ``store.…``, then ``state.poisoned``.
        """

    def keep_top(self, trie: Trie) -> None:
        """Keeps the hashes of a trie's buckets, so that the next open need not scan the state. It must be the version
        of the last block applied."""

    def restore(
        self, log: SegmentLog, progress: Callable[[int, int], object] | None = None
    ) -> tuple[Trie, Log]:
        """Brings the state to the log's last block, and gives the trie and the tree of the log.

        Blocks are read from where the database, the kept top and the kept tiles end; what does not fit the block
        leaves is thrown away and built from the log.

        Args:
            progress: called with (steps done, all steps); two steps a block to be read.

        Raises:
            CorruptionError: ``state.wrong_root``, ``log.broken_link`` (height), ``log.empty``, ``log.damaged``.
        """

    def known_transactions(self, ids: Sequence[bytes]) -> list[bytes]:
        """Those of the ids that were applied, ever."""

    def apply_frame(self, frame: Frame) -> None:
        """The same from a stored block."""

    def follow(self, log: SegmentLog) -> int:
        """Replays the log's write sets up to its last block; gives how many blocks.

        A state ahead of the log, or of another history, is thrown away first. The caller compares the root of
        ``Trie.from_state`` with the last block's state root.
        """

    def get(self, path: bytes) -> bytes | None:
        """blind ‖ value at a path of 32 bytes; about 4 us.

        Raises:
            CorruptionError: ``state.corrupt``.
        """

    def find_transaction(self, id: bytes) -> tuple[int, int] | None:
        """(height, leaf index) of an applied transaction."""

    def __len__(self) -> int:
        """How many paths hold a value; one scan, about 0.3 s per 10^6."""

    def clear(self) -> None:
        """Throws the state away, to be replayed."""

    def close(self) -> None:
        """Lets go of the files; views on it then raise UnavailableError ``state.unavailable``."""

@final
class KeyStore:
    """Every secret a node keeps: ``keys.slots`` and ``keys.entries`` in a folder.

    Thread-safe; one process writes. Opened read-only it shows the entries of that moment.

    Source: docs/formats.md, Key store.
    """

    @staticmethod
    def create(folder: str, root_key: bytes) -> KeyStore:
        """Makes an empty store, or finishes one whose making was cut off.

        Raises:
            ConflictError: ``keys.store_exists``.
            InvalidInputError: ``keys.root_key_length``.
        """

    @staticmethod
    def open(folder: str, root_key: bytes, *, read_only: bool = False) -> KeyStore:
        """Opens a store; finishes a forgetting that was cut off.

        Raises:
            NotFoundError: ``keys.missing_store``.
            DeniedError: ``keys.wrong_root_key``.
            CorruptionError: ``keys.slots_damaged``, ``keys.head_damaged``, ``keys.record_damaged`` (offset).
        """

    def get(self, kind: str, id: bytes) -> bytes | None:
        """The value kept under a kind and id."""

    def ids(self, kind: str) -> list[bytes]:
        """The ids of a kind, ascending."""

    def kinds(self) -> list[str]:
        """The kinds that have entries, ascending."""

    def __len__(self) -> int:
        """How many entries there are."""

    def put(self, entries: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Keeps entries (kind, id, value), all or none: durable when it returns, one sync for all of them.

        A kind is 1..32 bytes of ``a-z0-9-``, an id 1..64 bytes, a value up to 64 KiB. An entry that is there with
        the same value is left alone.

        Raises:
            ConflictError: ``keys.exists``, another value is kept under that kind and id.
            InvalidInputError: ``keys.invalid_entry``, ``keys.read_only``.
            UnavailableError: ``store.…``, after a failed sync then ``keys.poisoned``.
        """

    def forget(self, ids: Sequence[tuple[str, bytes]], applied_erasure_height: int) -> None:
        """Forgets entries: when it returns, no byte on the medium opens them any more. Rewrites the store.

        Args:
            ids: (kind, id); those not there are skipped.
            applied_erasure_height: up to where the log's erasures are applied by this; never goes back.

        Raises:
            ConflictError: ``keys.height_goes_back``.
        """

    def replace(self, kind: str, id: bytes, value: bytes) -> None:
        """Keeps another value under a kind and id; the former one is forgotten. Rewrites the store.

        After a crash exactly one of the two is there.

        Raises:
            InvalidInputError: ``keys.invalid_entry``, ``keys.read_only``.
            UnavailableError: ``store.…``, then ``keys.poisoned``.
        """

    def rotate_root(self, root_key: bytes) -> None:
        """Puts the store under another root key, with a new store key; the former root key opens it no longer.

        After a crash exactly one of the two opens it.

        Raises:
            InvalidInputError: ``keys.root_key_length``, ``keys.read_only``.
            UnavailableError: ``store.…``, then ``keys.poisoned``.
        """

    @property
    def applied_erasure_height(self) -> int:
        """Up to which height the log's erasures are applied."""

    @property
    def generation(self) -> int:
        """Grows with each forgetting, from 1."""

    @property
    def damaged_copies(self) -> int:
        """How many of the four copies of the store key were damaged at opening; the store works with one."""

    def close(self) -> None:
        """Wipes the secrets from memory once no log uses them any more."""

def derive_root_key(passphrase: str, salt: bytes) -> bytes:
    """A 32-byte root key from a passphrase: Argon2id version 0x13, 64 MiB, 3 passes, one lane; about 0.2 s.

    The passphrase is taken in NFC; the salt is 16..64 random bytes kept beside the store.

    Raises:
        InvalidInputError: ``keys.invalid_entry`` for an empty passphrase or a salt of another length.

    Source: RFC 9106.
    """

@final
class CheckpointFile:
    """The last checkpoint, in two 4 KiB slots: one always holds a whole note that was synced."""

    @staticmethod
    def open(path: str, *, read_only: bool = False) -> CheckpointFile:
        """Opens the file; for writing, makes it where missing.

        Raises:
            NotFoundError: ``checkpoint.missing_file`` when read-only.
            CorruptionError: ``checkpoint.file_damaged``.
        """

    def read(self) -> bytes | None:
        """The newest whole note, None when none was written yet."""

    def write(self, note: bytes, *, sync: bool) -> None:
        """Writes a note of up to 4,046 bytes.

        Without ``sync`` the process may die and the note stays; the machine may die and the last synced one stays.

        Raises:
            InvalidInputError: ``checkpoint.note_length``, ``checkpoint.read_only``.
        """

@final
class LockFile:
    """One owner for a node's folder: held by one handle at a time, gone with its process."""

    @staticmethod
    def acquire(path: str) -> LockFile:
        """Takes the lock and writes this process's pid into the file.

        Raises:
            ConflictError: ``node.locked`` with the owner's ``pid``.
        """

    def release(self) -> None:
        """Lets it go; the file stays."""

# ── snapshot ─
def snapshot_head(
    chain_id: str, height: int, tree_size: int, first_leaf: int, frontier: Sequence[bytes]
) -> bytes:
    """What begins a snapshot: the frontier of the log at ``first_leaf``, the first leaf that it brings.

    Raises:
        InvalidInputError: ``snapshot.hash_length``.
        VerificationError: ``snapshot.malformed``, for a chain id that is not NFC.

    Source: docs/formats.md, Snapshot.
    """

def snapshot_leaves(first_index: int, leaves: Sequence[bytes]) -> bytes:
    """Leaf preimages in log order, as one part."""

def snapshot_state(state: StateDb, trie: Trie, start: bytes, max_bytes: int = 1048576) -> tuple[bytes, bytes | None]:
    """One chunk of the state from a path on, with the proof that nothing is left out, and where the next one starts.

    Args:
        state: at the version of ``trie``.
        start: 32 bytes; all zeros for the first chunk.
        max_bytes: a chunk ends once its entries weigh that much.

    Raises:
        InvalidInputError: ``path.wrong_length``.
        CorruptionError: ``state.corrupt``.
    """

def verify_snapshot_state(state_root: bytes, chunk: Buffer) -> tuple[int, bytes, bytes | None]:
    """(entries, first path, first path after it) of a chunk, once it is found to be all that the state holds there.

    Raises:
        VerificationError: ``snapshot.malformed``, ``snapshot.wrong_state``.
        InvalidInputError: ``proof.hash_length``.
    """

@final
class SnapshotVerifier:
    """Takes the parts of a snapshot in their order, at most 4 MiB each, and checks each against one checkpoint.

    After an error nothing may be built on what was taken.
    """

    def __new__(cls, head: Buffer, chain_id: str, tree_size: int, root: bytes) -> SnapshotVerifier:
        """Begins with the head, under a checkpoint that was verified before.

        Raises:
            VerificationError: ``snapshot.malformed``, ``snapshot.other_checkpoint``.
        """

    @property
    def height(self) -> int:
        """The height it is of."""

    @property
    def block(self) -> BlockLeaf | None:
        """The block leaf, once all leaves are taken and lead to the checkpoint."""

    def take_leaves(self, chunk: Buffer) -> list[bytes]:
        """The leaves of the next part; with the last of them, all are checked.

        Raises:
            VerificationError: ``snapshot.malformed``, ``snapshot.not_next``, ``snapshot.root_mismatch``,
                ``snapshot.not_the_block``.
        """

    def take_state(self, chunk: Buffer, into: StateDb) -> int:
        """Checks the next chunk, fills it into a state without an applied block, and gives how many entries.

        Raises:
            VerificationError: ``snapshot.malformed``, ``snapshot.not_next``, ``snapshot.wrong_state``.
            ConflictError: ``state.not_next``.
        """

    def finish(self, into: StateDb) -> None:
        """Checks that nothing is missing, and names the block whose state it is; until then it opens as empty.

        Raises:
            VerificationError: ``snapshot.not_next``.
        """

def load_transactions(into: StateDb, height: int, first_index: int, leaves: Sequence[bytes]) -> None:
    """Fills in where the transactions of a block are, in a state without an applied block.

    Raises:
        ConflictError: ``state.not_next``.
    """

# ── sealed parts of a backup ─
def seal_part(key: bytes, aad: bytes, message: Buffer) -> bytes:
    """salt (32) ‖ AES-256-GCM under a key derived from ``key`` and the salt, which is drawn for this call.

    Raises:
        InvalidInputError: ``key.wrong_length``, ``backup.part_too_long``.
        UnavailableError: ``random.unavailable``.

    Source: docs/formats.md, Backup.
    """

def open_part(key: bytes, aad: bytes, sealed: Buffer) -> bytes:
    """Opens what `seal_part` gave.

    Raises:
        CorruptionError: ``backup.part_damaged``: changed, or another key or place.
    """
