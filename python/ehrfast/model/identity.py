"""Who may act: roles, purposes, custody, and the identity a session is opened for.

Identities are random ids; names stay in the key store of the node that enrolled them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ehrfast.errors import InvalidInputError

ROLES: Final = frozenset(
    {
        "patient",
        "physician",
        "nurse",
        "pharmacist",
        "device",
        "researcher",
        "trial_monitor",
        "payer",
        "manufacturer",
        "distributor",
        "auditor",
        "organisation_admin",
        "consortium_governor",
        "gateway",
    }
)
"""The closed list of roles a credential may name."""

TREATING_ROLES: Final = ("physician", "nurse", "pharmacist")
"""Roles that take part in a patient's treatment."""

PURPOSES: Final = frozenset({"TREAT", "ETREAT", "HPAYMT", "HOPERAT", "HRESCH", "PATRQT", "FAMRQT", "PWATRNY", "BTG"})
"""Purposes of use. Source: HL7 v3 ActReason, value set PurposeOfUse."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody or something that can sign on a chain.

    Args:
        id: 16 random bytes, written as 32 hex digits wherever people see it.
        organisation: id of the organisation that enrolled it.
    """

    id: bytes
    organisation: bytes

    def __str__(self) -> str:
        return self.id.hex()

    def __repr__(self) -> str:
        return f"Identity({self.id.hex()})"


def parse_id(text: str, *, code: str) -> bytes:
    """Reads 32 hex digits as the 16 bytes of an id.

    Raises:
        InvalidInputError: ``code`` when the text is anything else.
    """
    try:
        value = bytes.fromhex(text)
    except ValueError:
        raise InvalidInputError(code) from None
    if len(value) != 16 or text != value.hex():
        raise InvalidInputError(code)
    return value
