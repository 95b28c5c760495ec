"""How a chain begins: the bytes that are hashed into its id, and the signatures beside them.

Genesis = CBOR [1, name, time_ms, engine, organisations, governors, contract set hash, CPython minor, parameters,
parent].
The chain id is self-certifying: name, a hyphen, 32 hex digits of BLAKE3(genesis).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from ehrfast._core import SigningKey, blake3_digest, cbor_decode, cbor_encode, cose_sign, cose_verify
from ehrfast.errors import InvalidInputError, VerificationError

GENESIS_AAD = b"ehrfast/genesis/v1"
MAX_GENESIS_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z0-9-]{1,17}\Z")


@dataclass(frozen=True, slots=True)
class Organisation:
    """A member at genesis.

    Args:
        id: 16 random bytes.
        admins: (identity id, public key) of each administrator.
        threshold: how many of them must agree.
    """

    id: bytes
    admins: tuple[tuple[bytes, bytes], ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class Genesis:
    """The agreed beginning of a chain.

    Args:
        name: 1 to 17 of ``a-z0-9-``.
        time_ms: block time of height 0.
        engine: the consensus engine's name.
        organisations: the founding members.
        governors: (keys, how many of them must agree).
        contract_set_hash: 32 bytes over the contracts in force.
        python_minor: CPython minor version all nodes run.
        parameters: closed list of numbers, by name.
        parent: (chain id, tree size, root) of the chain it succeeds, or None.
    """

    name: str
    time_ms: int
    engine: str
    organisations: tuple[Organisation, ...]
    governors: tuple[tuple[bytes, ...], int]
    contract_set_hash: bytes
    python_minor: int
    parameters: tuple[tuple[str, int], ...] = ()
    parent: tuple[str, int, bytes] | None = None

    def encode(self) -> bytes:
        """The bytes that are hashed; signatures are not among them.

        Raises:
            InvalidInputError: ``genesis.name`` for a name the id cannot carry.
        """
        if not _NAME.match(self.name):
            raise InvalidInputError("genesis.name")
        organisations = tuple((o.id, o.admins, o.threshold) for o in self.organisations)
        return cbor_encode(
            (
                1,
                self.name,
                self.time_ms,
                self.engine,
                organisations,
                self.governors,
                self.contract_set_hash,
                self.python_minor,
                self.parameters,
                self.parent,
            )
        )

    @property
    def chain_id(self) -> str:
        """At most 50 characters; the origin of the chain's checkpoints."""
        return chain_id_of(self.encode())

    @staticmethod
    def decode(data: bytes) -> Genesis:
        """Reads genesis bytes.

        Raises:
            InvalidInputError: ``genesis.malformed``.
        """
        value = cbor_decode(data, MAX_GENESIS_BYTES)
        if not (isinstance(value, tuple) and len(value) == 10 and value[0] == 1 and _is_shaped(*value[1:])):
            raise InvalidInputError("genesis.malformed")
        _, name, time_ms, engine, organisations, governors, contracts, minor, parameters, parent = value
        members = tuple(Organisation(*row) for row in organisations)
        genesis = Genesis(name, time_ms, engine, members, governors, contracts, minor, parameters, parent)
        if genesis.encode() != data:
            raise InvalidInputError("genesis.malformed")
        return genesis


def _is_shaped(
    name: object,
    time_ms: object,
    engine: object,
    organisations: object,
    governors: object,
    contract_set_hash: object,
    python_minor: object,
    parameters: object,
    parent: object,
) -> bool:
    """Whether each field is what its name says."""
    return (
        _are((name, time_ms, engine, contract_set_hash, python_minor), str, int, str, bytes, int)
        and isinstance(organisations, tuple)
        and all(_are(row, bytes, tuple, int) for row in organisations)
        and all(_are(admin, bytes, bytes) for row in organisations for admin in row[1])
        and _are(governors, tuple, int)
        and all(isinstance(key, bytes) for key in governors[0])
        and isinstance(parameters, tuple)
        and all(_are(parameter, str, int) for parameter in parameters)
        and (parent is None or _are(parent, str, int, bytes))
    )


def _are(row: object, *types: type) -> TypeGuard[tuple[Any, ...]]:
    """Whether a row has exactly these types; true and false are no numbers."""
    if not (isinstance(row, tuple) and len(row) == len(types)):
        return False
    return all(type(field) is wanted for field, wanted in zip(row, types, strict=True))


def chain_id_of(genesis: bytes) -> str:
    """Name, hyphen, the first 16 bytes of BLAKE3(genesis) in hex."""
    value = cbor_decode(genesis, MAX_GENESIS_BYTES)
    if not (isinstance(value, tuple) and len(value) == 10 and isinstance(value[1], str)):
        raise InvalidInputError("genesis.malformed")
    return f"{value[1]}-{blake3_digest(genesis)[:16].hex()}"


def sign_genesis(genesis: Genesis, keys: Sequence[SigningKey]) -> bytes:
    """COSE_Sign over the genesis bytes by all administrators."""
    return cose_sign(keys, genesis.encode(), GENESIS_AAD)


def open_genesis(signed: bytes) -> Genesis:
    """Checks every administrator's signature and gives the genesis.

    Raises:
        VerificationError: ``genesis.unsigned`` when an administrator's signature is missing.
    """
    payload, signers = cose_verify(signed, GENESIS_AAD)
    genesis = Genesis.decode(payload)
    wanted = {key for organisation in genesis.organisations for _, key in organisation.admins}
    if set(signers) != wanted:
        raise VerificationError("genesis.unsigned")
    return genesis
