"""An AuditEvent written by hand is byte for byte the tree it stands for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from ehrfast.fhir.audit_event import (
    IDENTITY_SYSTEM,
    RECORD_SYSTEM,
    SUBJECT_SYSTEM,
    audit_event,
)
from hypothesis import given
from hypothesis import strategies as st

ACTIONS = {"create": "C", "update": "U", "search": "E", "export": "E", "operation": "E"}
IDS = st.binary(min_size=16, max_size=16)


def tree(told: dict[str, Any]) -> dict[str, Any]:
    """The event as FHIR lays it out."""
    recorded = datetime.fromtimestamp(told["recorded_ms"] / 1000, tz=UTC).isoformat(timespec="milliseconds")
    entity: list[dict[str, Any]] = [
        {"what": {"identifier": {"system": RECORD_SYSTEM, "value": f"{record.hex()}/{version}"}}}
        for record, version in told["entities"]
    ]
    if told["subject"] is not None:
        what = {"identifier": {"system": SUBJECT_SYSTEM, "value": told["subject"].hex()}}
        entity.append({"what": what, "role": {"code": "1"}})
    details = [
        {"type": name, "valueString": str(told[name])} for name in ("count", "reason") if told[name] is not None
    ]
    if details:
        entity.append({"detail": details})
    who = {"identifier": {"system": IDENTITY_SYSTEM, "value": told["identity"].hex()}}
    reason = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": told["purpose"]}
    return {
        "resourceType": "AuditEvent",
        "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
        "subtype": [{"system": "http://hl7.org/fhir/restful-interaction", "code": told["interaction"]}],
        "action": ACTIONS.get(told["interaction"], "R"),
        "recorded": recorded.replace("+00:00", "Z"),
        "outcome": {"success": "0", "denied": "4"}[told["outcome"]],
        "purposeOfEvent": [{"coding": [reason]}],
        "agent": [{"who": who, "requestor": True}],
        "source": {"observer": {"display": "ehrfast"}},
        "entity": entity,
    }


@given(
    st.fixed_dictionaries(
        {
            "interaction": st.sampled_from([*ACTIONS, "read", "history", "prove"]),
            "recorded_ms": st.integers(0, 2**42),
            "identity": IDS,
            "purpose": st.text(max_size=12),
            "outcome": st.sampled_from(["success", "denied"]),
            "subject": st.none() | IDS,
            "entities": st.lists(st.tuples(IDS, st.integers(1, 9)), max_size=3),
            "count": st.none() | st.integers(0, 10**6),
            "reason": st.none() | st.text(max_size=20),
        }
    )
)
def test_it_is_the_tree_dumped(told: dict[str, Any]) -> None:
    arguments = {name: value for name, value in told.items() if name != "interaction"}
    written = audit_event(told["interaction"], **arguments)
    assert written == json.dumps(tree(told), separators=(",", ":")).encode()
