"""AuditEvents for reads: who, when, for what purpose, which record versions, with what outcome.

They hold random ids, codes and counts; never a name, a logical id or the text of a query.
Source: FHIR R4 AuditEvent; IHE Basic Audit Log Patterns (BALP).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal

RECORD_SYSTEM: Final = "urn:ehrfast:record"
IDENTITY_SYSTEM: Final = "urn:ehrfast:identity"
SUBJECT_SYSTEM: Final = "urn:ehrfast:subject"
_PURPOSE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"

Interaction = Literal["read", "vread", "search", "history", "create", "update", "prove", "export"]
_ACTIONS: Final = {"create": "C", "update": "U", "search": "E", "export": "E"}
_OUTCOMES: Final = {"success": "0", "denied": "4"}


def audit_event(
    interaction: Interaction,
    *,
    recorded_ms: int,
    identity: bytes,
    purpose: str,
    outcome: Literal["success", "denied"],
    subject: bytes | None,
    entities: Sequence[tuple[bytes, int]],
    count: int | None = None,
    reason: str | None = None,
) -> bytes:
    """One AuditEvent as FHIR JSON.

    Args:
        recorded_ms: Unix milliseconds.
        identity: who asked.
        subject: the patient concerned, None when it is nobody's record or not known.
        entities: (record id, version) of each record touched.
        count: how many records a list or export gave.
        reason: the decision's reason code.
    """
    recorded = datetime.fromtimestamp(recorded_ms / 1000, tz=UTC).isoformat(timespec="milliseconds")
    touched: list[dict[str, object]] = [
        {"what": _identified(RECORD_SYSTEM, f"{record.hex()}/{version}")} for record, version in entities
    ]
    if subject is not None:
        touched.append({"what": _identified(SUBJECT_SYSTEM, subject.hex()), "role": {"code": "1"}})
    details = [("count", str(count))] if count is not None else []
    details += [("reason", reason)] if reason is not None else []
    if details:
        touched.append({"detail": [{"type": name, "valueString": value} for name, value in details]})
    event = {
        "resourceType": "AuditEvent",
        "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
        "subtype": [{"system": "http://hl7.org/fhir/restful-interaction", "code": interaction}],
        "action": _ACTIONS.get(interaction, "R"),
        "recorded": recorded.replace("+00:00", "Z"),
        "outcome": _OUTCOMES[outcome],
        "purposeOfEvent": [{"coding": [{"system": _PURPOSE_SYSTEM, "code": purpose}]}],
        "agent": [{"who": _identified(IDENTITY_SYSTEM, identity.hex()), "requestor": True}],
        "source": {"observer": {"display": "ehrfast"}},
        "entity": touched,
    }
    return json.dumps(event, separators=(",", ":")).encode()


def _identified(system: str, value: str) -> dict[str, object]:
    return {"identifier": {"system": system, "value": value}}
