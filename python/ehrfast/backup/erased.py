"""The erased list of a target: what was erased after a backup was made, so that no restore brings it back.

Owns its entries, signed by the checkpoint key and only ever appended. Refuses a list with a gap or a false signature.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ehrfast._core import SigningKey, cbor_decode, cbor_encode, cose_sign1, cose_verify1
from ehrfast.backup.target import BackupTarget
from ehrfast.errors import CorruptionError, EhrfastError, VerificationError

ERASED: Final = "erased/"
AAD: Final = b"ehrfast/erased/v1"
MAX_ENTRY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Erasure:
    """Something erased: random ids only.

    Args:
        chain_id: the chain whose block erased it.
        height: of that block.
        time_ms: when it was listed here.
        keys: (kind, id) in the key store that must not come back; the id of a subject takes its aliases along.
        items: pack items whose bytes are gone: (height, pack root, position).
    """

    chain_id: str
    height: int
    time_ms: int
    keys: tuple[tuple[str, bytes], ...] = ()
    items: tuple[tuple[int, bytes, int], ...] = ()

    def encode(self) -> bytes:
        """CBOR; see docs/formats.md."""
        return cbor_encode((1, self.chain_id, self.height, self.time_ms, self.keys, self.items))

    @staticmethod
    def decode(data: bytes) -> Erasure:
        """Reads what `encode` gives.

        Raises:
            CorruptionError: ``backup.erased_list_damaged``.
        """
        try:
            value: Any = cbor_decode(data, MAX_ENTRY_BYTES)
            version, chain_id, height, time_ms, keys, items = value
            erasure = Erasure(chain_id, height, time_ms, keys, items)
            if version != 1 or erasure.encode() != data:
                raise ValueError
        except (EhrfastError, ValueError, TypeError):
            raise CorruptionError("backup.erased_list_damaged") from None
        return erasure


def append_erasures(
    target: BackupTarget, erasures: Sequence[Erasure], signer: SigningKey, former: Collection[bytes] = ()
) -> None:
    """Appends to the list; durable when it returns. What is listed already is left alone.

    Args:
        former: public keys that the node signed with before.
    """
    known = {each.encode() for each in _read(target, {signer.public_key, *former})}
    number = len(target.sizes(ERASED))
    for erasure in erasures:
        if erasure.encode() not in known:
            number += 1
            target.put(f"{ERASED}{number:08d}", cose_sign1(signer, erasure.encode(), AAD))


def read_erasures(target: BackupTarget, signers: Collection[bytes]) -> list[Erasure]:
    """The list, in the order in which it was written.

    Args:
        signers: public checkpoint keys of the node, former ones included.

    Raises:
        CorruptionError: ``backup.erased_list_damaged``: an entry is missing, changed, or not signed by one of them.
    """
    return _read(target, signers)


def _read(target: BackupTarget, signers: Collection[bytes]) -> list[Erasure]:
    names = sorted(target.sizes(ERASED))
    if names != [f"{ERASED}{number + 1:08d}" for number in range(len(names))]:
        raise CorruptionError("backup.erased_list_damaged")
    found = []
    for name in names:
        try:
            payload, by = cose_verify1(target.get(name), AAD)
        except (VerificationError, ValueError):
            raise CorruptionError("backup.erased_list_damaged", {"part": name}) from None
        if by not in signers:
            raise CorruptionError("backup.erased_list_damaged", {"part": name})
        found.append(Erasure.decode(payload))
    return found
