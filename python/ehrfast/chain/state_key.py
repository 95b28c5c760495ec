"""The key of a chain's state database, and its rotation after an erasure: database files remember what was overwritten.

The id of each key tells the erasure height it was drawn at. Invariant: the newest key is in force, and an older one is
forgotten only once no file sealed under it is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ehrfast._core import KeyStore, StateDb, random_bytes
from ehrfast.errors import CorruptionError
from ehrfast.model.durable import sync_folder

STATE_KEY_KIND: Final = "state"
FOLDER: Final = "state"
_AT: Final = b"@"


def draw(keys: KeyStore, chain_id: str, *, height: int = 0) -> None:
    """Keeps a fresh key; durable when it returns."""
    name = chain_id.encode() + (_AT + str(height).encode() if height else b"")
    keys.put([(STATE_KEY_KIND, name, random_bytes(32))])


def state_key(keys: KeyStore, chain_id: str) -> bytes:
    """The key in force.

    Raises:
        CorruptionError: ``keys.missing``.
    """
    names = _names(keys, chain_id)
    key = keys.get(STATE_KEY_KIND, names[-1]) if names else None
    if key is None:
        raise CorruptionError("keys.missing", {"kind": STATE_KEY_KIND})
    return key


def mark_rotation(keys: KeyStore, chain_id: str, *, height: int) -> None:
    """Draws the key that follows the one in force; the database moves to it when it is closed or opened next.

    What nothing was written under since the same height needs no other. Durable when it returns.
    """
    names = _names(keys, chain_id)
    if not names or _drawn_at(names[-1]) < height:
        draw(keys, chain_id, height=height)


def segment_mark(keys: KeyStore, chain_id: str) -> int:
    """The height behind which a new segment begins: no block after it is sealed under a key from before the mark."""
    names = _names(keys, chain_id)
    return _drawn_at(names[-1]) if names else 0


def is_due(keys: KeyStore, chain_id: str) -> bool:
    """Whether an erasure was applied since the key in force was drawn, or a rotation was cut off."""
    names = _names(keys, chain_id)
    return bool(names) and (len(names) > 1 or _drawn_at(names[-1]) < keys.applied_erasure_height)


def rotate(folder: Path, keys: KeyStore, chain_id: str) -> bool:
    """Throws the closed database away with its key, if that is due; the next open makes it anew out of the log.

    Returns:
        Whether it was due.
    """
    if not is_due(keys, chain_id):
        return False
    if _drawn_at(_names(keys, chain_id)[-1]) < keys.applied_erasure_height:
        draw(keys, chain_id, height=keys.applied_erasure_height)
    StateDb.discard(str(folder / FOLDER))
    sync_folder(folder)
    former = [(STATE_KEY_KIND, name) for name in _names(keys, chain_id)[:-1]]
    keys.forget(former, keys.applied_erasure_height)
    return True


def _names(keys: KeyStore, chain_id: str) -> list[bytes]:
    own = chain_id.encode()
    return sorted((name for name in keys.ids(STATE_KEY_KIND) if name.partition(_AT)[0] == own), key=_drawn_at)


def _drawn_at(name: bytes) -> int:
    return int(name.partition(_AT)[2] or b"0")
