"""The file of a chain's former checkpoint keys, and a change of key: stated and kept first, in force only afterwards.

Invariant: the last key of the history is the one in the key store. After a crash in between, the last statement names a
key that nobody holds and that has signed nothing; it is left out, and taken off at the next open for writing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ehrfast.errors import CorruptionError, InvalidInputError, VerificationError
from ehrfast.model.checkpoint import LOG_SIGNATURE, VerifierKey
from ehrfast.model.durable import sync_folder, write_synced
from ehrfast.model.key_history import KeyHistory

FILE: Final = "key-history"


def load_history(folder: Path, chain_id: str, public_key: bytes, *, read_only: bool = True) -> KeyHistory:
    """The keys of a chain, the one in the key store last.

    Raises:
        CorruptionError: ``keys.history_damaged``: not a history of this chain that ends with that key.
    """
    current = VerifierKey(chain_id, LOG_SIGNATURE, public_key)
    try:
        history = KeyHistory.parse((folder / FILE).read_bytes())
    except FileNotFoundError:
        return KeyHistory.of(current)
    except (InvalidInputError, VerificationError):
        raise CorruptionError("keys.history_damaged", {"file": FILE}) from None
    if history.current == current:
        return history
    if history.rotations[-1].former != current:
        raise CorruptionError("keys.history_damaged", {"file": FILE})
    history = history.without_last()
    if not read_only:
        keep_history(folder, history)
    return history


def keep_history(folder: Path, history: KeyHistory) -> None:
    """Durable when it returns; a chain that has had one key has no file."""
    if history.rotations:
        write_synced(folder / FILE, history.render(), 0o644)
        return
    (folder / FILE).unlink(missing_ok=True)
    sync_folder(folder)


def require_founder(history: KeyHistory, proposer: bytes) -> None:
    """Returns when the history begins with the key that proposed block 0.

    Raises:
        CorruptionError: ``keys.history_missing``.
    """
    if history.founding.public_key != proposer:
        raise CorruptionError("keys.history_missing", {"file": FILE})
