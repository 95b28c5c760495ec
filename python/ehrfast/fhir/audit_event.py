"""AuditEvents for reads: who, when, for what purpose, which record versions, with what outcome.

They hold random ids, codes and counts; never a name, a logical id or the text of a query.
Source: FHIR R4 AuditEvent; IHE Basic Audit Log Patterns (BALP).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _text
from typing import Final, Literal

RECORD_SYSTEM: Final = "urn:ehrfast:record"
IDENTITY_SYSTEM: Final = "urn:ehrfast:identity"
SUBJECT_SYSTEM: Final = "urn:ehrfast:subject"
_PURPOSE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"

Interaction = Literal["read", "vread", "search", "history", "create", "update", "prove", "export", "operation"]
_ACTIONS: Final = {"create": "C", "update": "U", "search": "E", "export": "E", "operation": "E"}
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
    # Written by hand: a read waits for its event, and making a tree to be dumped costs three times as much. The tests
    # hold it against the tree.
    recorded = datetime.fromtimestamp(recorded_ms / 1000, tz=UTC).isoformat(timespec="milliseconds")
    touched = [f'{{"what":{_identified(RECORD_SYSTEM, f"{record.hex()}/{version}")}}}' for record, version in entities]
    if subject is not None:
        touched.append(f'{{"what":{_identified(SUBJECT_SYSTEM, subject.hex())},"role":{{"code":"1"}}}}')
    details = [f'{{"type":"count","valueString":"{count}"}}'] if count is not None else []
    details += [f'{{"type":"reason","valueString":{_text(reason)}}}'] if reason is not None else []
    if details:
        touched.append(f'{{"detail":[{",".join(details)}]}}')
    return (
        '{"resourceType":"AuditEvent",'
        '"type":{"system":"http://terminology.hl7.org/CodeSystem/audit-event-type","code":"rest"},'
        f'"subtype":[{{"system":"http://hl7.org/fhir/restful-interaction","code":{_text(interaction)}}}],'
        f'"action":"{_ACTIONS.get(interaction, "R")}",'
        f'"recorded":"{recorded.replace("+00:00", "Z")}",'
        f'"outcome":"{_OUTCOMES[outcome]}",'
        f'"purposeOfEvent":[{{"coding":[{{"system":"{_PURPOSE_SYSTEM}","code":{_text(purpose)}}}]}}],'
        f'"agent":[{{"who":{_identified(IDENTITY_SYSTEM, identity.hex())},"requestor":true}}],'
        '"source":{"observer":{"display":"ehrfast"}},'
        f'"entity":[{",".join(touched)}]}}'
    ).encode()


def _identified(system: str, value: str) -> str:
    """An identifier of hexadecimal digits; nothing in it needs escaping."""
    return f'{{"identifier":{{"system":"{system}","value":"{value}"}}}}'
