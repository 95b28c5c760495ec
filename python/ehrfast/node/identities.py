"""The people and machines whose signing keys a node holds: their names stay in its key store, never on the chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ehrfast._core import SigningKey, random_bytes
from ehrfast.errors import InvalidInputError
from ehrfast.keys.signing import HeldIdentity
from ehrfast.model.identity import ROLES, Identity, parse_id

if TYPE_CHECKING:
    from ehrfast.node.node import Node

CUSTODIAL: Final = 1


def enrolment(held: HeldIdentity, subject: bytes | None = None) -> dict[str, object]:
    """The arguments of ``identity.enrol`` for a key in this node's custody.

    Args:
        subject: which patient they are, for the role ``patient``.
    """
    return {
        "identity": held.id,
        "key": held.key.public_key,
        "custody": CUSTODIAL,
        "role": held.role,
        "from_ms": None,
        "until_ms": None,
        "subject": subject,
    }


class Identities:
    """The identities whose signing keys this node holds."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def enrol(self, name: str, *, role: str, patient: str | None = None) -> Identity:
        """Enrols somebody at this organisation, their signing key in its custody.

        Args:
            name: kept sealed in the key store, never on the chain.
            role: one of the closed list of roles.
            patient: for the role ``patient``, the reference of their Patient resource.

        Raises:
            InvalidInputError: ``role.unknown``, or ``identity.patient_needed``.
        """
        if role not in ROLES:
            raise InvalidInputError("role.unknown", {"known": sorted(ROLES)})
        if (role == "patient") != (patient is not None):
            raise InvalidInputError("identity.patient_needed")
        self._node.chain.require_writable()  # before a key is kept that the chain would never hear of
        subject = None if patient is None else self._node.subjects.of(patient).id
        held = HeldIdentity(random_bytes(16), role, SigningKey.generate(), name)
        self._node.signing_keys.put(held)
        self._node.call("identity", "enrol", enrolment(held, subject))
        return Identity(held.id, self._node.settings.organisation)

    def get(self, identity: str) -> Identity:
        """The identity with that id (32 hex digits)."""
        value = parse_id(identity, code="identity.malformed")
        return Identity(value, self._node.settings.organisation)

    def all(self) -> list[HeldIdentity]:
        """Every identity held here, by id."""
        return self._node.signing_keys.all()

    @property
    def gateway(self) -> Identity:
        """The organisation's machine: it may write, not read."""
        return Identity(self._node.settings.gateway, self._node.settings.organisation)

    @property
    def administrator(self) -> Identity:
        """Who enrols others."""
        return Identity(self._node.settings.administrator, self._node.settings.organisation)
