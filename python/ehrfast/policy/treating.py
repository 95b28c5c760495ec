"""The rule in force until patients' consents replace it: a record opens to its patient and to those who treat at its
custodian."""

from __future__ import annotations

from dataclasses import dataclass

from ehrfast.model.decision import Basis, Decision
from ehrfast.model.identity import TREATING_ROLES

_RULE = (Basis("site.treating", "1"),)
_AUDIT_ROLES = frozenset({"auditor"})


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """One question to the rule.

    Args:
        roles: the asker's roles at the custodian, valid now.
        own_subject: the subject the asker is, when it is a patient.
        subject: whose record it is.
        custodian: the organisation that keeps it.
        record_class: see `records.classes`.
        purpose: purpose of use.
    """

    roles: frozenset[str]
    own_subject: bytes | None
    subject: bytes
    custodian: bytes
    record_class: str
    purpose: str


def may_read_anything(roles: frozenset[str], own_subject: bytes | None) -> bool:
    """Whether the rule could permit any read at all; where it could not, refusing openly reveals nothing."""
    return own_subject is not None or not roles.isdisjoint(TREATING_ROLES) or not roles.isdisjoint(_AUDIT_ROLES)


def decide(request: AccessRequest) -> Decision:
    """Permit for the patient's own records, and for treating roles at the custodian; the audit class only for its
    patient and auditors."""
    if request.purpose == "BTG":
        return _decision(False, "purpose.break_glass_unavailable")
    if request.own_subject is not None and request.own_subject == request.subject:
        return _decision(True, "patient.own_record")
    if request.record_class == "audit":
        return _decision(not request.roles.isdisjoint(_AUDIT_ROLES), "audit.role")
    if request.roles.isdisjoint(TREATING_ROLES):
        return _decision(False, "role.not_treating")
    return _decision(True, "role.treating")


def _decision(permitted: bool, reason: str) -> Decision:
    return Decision("permit" if permitted else "deny", reason, _RULE, access=permitted)
