"""The answer of a rule: more than a boolean, and it names what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["permit", "deny", "no_consent"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says to one request.

    Args:
        outcome: permit, deny, or no_consent when no rule speaks.
        reason: stable code, for the audit trail and the asker.
        basis: the rules or consents it rests on, with their versions.
        obligations: residual filters the enforcement point must apply.
        expires_ms: when it must be asked again, Unix milliseconds, or None.
    """

    outcome: Outcome
    reason: str
    basis: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()
    expires_ms: int | None = None

    @property
    def permits(self) -> bool:
        """Whether anything may be released at all."""
        return self.outcome == "permit"
