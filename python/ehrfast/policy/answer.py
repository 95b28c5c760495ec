"""A decision as the JSON that outside programs read; its members are fixed."""

from __future__ import annotations

from ehrfast.model.decision import Decision, Narrowing, Obligation
from ehrfast.policy.times import write_instant


def answer_of(decision: Decision) -> dict[str, object]:
    """The decision as JSON values."""
    return {
        "decision": decision.outcome,
        "access": decision.access,
        "resources": [
            {
                "reference": record.reference,
                "release": record.release,
                "redact": list(record.redact),
                "reason": record.reason,
            }
            for record in decision.records
        ],
        "total": sum(record.release for record in decision.records),
        "obligations": [_obligation(each) for each in decision.obligations],
        "basis": [{"consent": each.consent, "version": each.version} for each in decision.basis],
        "reason": decision.reason,
        "expires": None if decision.expires_ms is None else write_instant(decision.expires_ms),
    }


def _obligation(obligation: Obligation) -> dict[str, object]:
    """Most narrow by one thing; further ones stand under `and`, what is taken out again under `unless`."""
    first, *others = obligation.narrowings or (Narrowing("type", ("*",)),)
    made: dict[str, object] = {"effect": obligation.effect, **_narrowing(first)}
    if others:
        made["and"] = [_narrowing(each) for each in others]
    if obligation.unless:
        made["unless"] = [_obligation(each) for each in obligation.unless]
    return made


def _narrowing(narrowing: Narrowing) -> dict[str, object]:
    made: dict[str, object] = {"by": narrowing.by, "values": list(narrowing.values)}
    if narrowing.meanings:
        made["meanings"] = list(narrowing.meanings)
    return made | {"as": narrowing.like} if narrowing.like else made
