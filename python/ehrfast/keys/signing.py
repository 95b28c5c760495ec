"""Signing keys this organisation holds: people's and machines' (custody: custodial) by identity, and the node's own.

Names live here and only here: sealed in the key store, never on the chain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ehrfast._core import KeyStore, SigningKey, cbor_decode, cbor_encode
from ehrfast.errors import CorruptionError, NotFoundError

IDENTITY_KIND: Final = "identity"
NODE_KIND: Final = "node"
CHECKPOINT_KEY: Final = b"checkpoint"


@dataclass(frozen=True, slots=True)
class HeldIdentity:
    """One identity whose signing key this node holds."""

    id: bytes
    role: str
    key: SigningKey = field(repr=False)
    name: str = field(repr=False)


class SigningKeys:
    """The custodial signing keys in a key store."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    def put(self, held: HeldIdentity) -> None:
        """Keeps a key; durable when it returns."""
        value = cbor_encode((held.key.seed(), held.role, held.name))
        self._store.put([(IDENTITY_KIND, held.id, value)])

    def get(self, identity: bytes) -> HeldIdentity:
        """The key of an identity.

        Raises:
            NotFoundError: ``identity.not_held``: its key is somewhere else, or nowhere.
        """
        value = self._store.get(IDENTITY_KIND, identity)
        if value is None:
            raise NotFoundError("identity.not_held", {"identity": identity.hex()})
        row = cbor_decode(value)
        if not (isinstance(row, tuple) and len(row) == 3):
            raise CorruptionError("keys.malformed_entry", {"kind": IDENTITY_KIND})
        seed, role, name = row
        return HeldIdentity(identity, role, SigningKey.from_seed(seed), name)

    def all(self) -> list[HeldIdentity]:
        """Every held identity, in the order of their ids."""
        return [self.get(identity) for identity in sorted(self._store.ids(IDENTITY_KIND))]


def checkpoint_key(store: KeyStore) -> SigningKey:
    """The key the node signs checkpoints with.

    Raises:
        CorruptionError: ``keys.missing``.
    """
    seed = store.get(NODE_KIND, CHECKPOINT_KEY)
    if seed is None:
        raise CorruptionError("keys.missing", {"kind": NODE_KIND})
    return SigningKey.from_seed(seed)
