"""The answer of a rule: more than a boolean, and it names what it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Outcome = Literal["permit", "deny", "no_consent"]
ScopeKind = Literal["label", "data", "author", "period", "type", "code", "condition"]


class Basis(NamedTuple):
    """A consent or rule that a decision rests on, and its version where it has one."""

    consent: str
    version: str | None = None


class Narrowing(NamedTuple):
    """Records of which one of the values is true.

    Args:
        meanings: by `data` FHIR's meaning of each value, where one is not `instance`.
        like: as whose element it matches, where that is not the obligation's own effect: confidentiality reaches down
            for a permit and up for a denial, and what is not known matches a denial only.
    """

    by: ScopeKind
    values: tuple[str, ...]
    meanings: tuple[str, ...] = ()
    like: Literal["", "permit", "forbid"] = ""


@dataclass(frozen=True, slots=True)
class Obligation:
    """A residual filter: with a permit, a record leaves when no forbidding one matches it, and a permitting one does
    or there is none.

    Args:
        effect: permit or forbid.
        narrowings: what must all be true of a record for it to match; none matches every record.
        unless: what takes records out of it again.
    """

    effect: Literal["permit", "forbid"]
    narrowings: tuple[Narrowing, ...] = ()
    unless: tuple[Obligation, ...] = ()


class RecordDecision(NamedTuple):
    """What becomes of one record asked for: whether it leaves, and which of its elements do not."""

    reference: str
    release: bool
    redact: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says to one request.

    Args:
        outcome: permit, deny, or no_consent when no rule speaks.
        reason: stable code, for the audit trail and the asker.
        basis: the rules or consents it rests on, with their versions.
        obligations: residual filters the enforcement point must apply.
        expires_ms: when it must be asked again, Unix milliseconds, or None.
        access: whether anything may be released; where no rule speaks, the site's policy says so.
        records: what becomes of each record asked for, in the order asked.
    """

    outcome: Outcome
    reason: str
    basis: tuple[Basis, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    expires_ms: int | None = None
    access: bool = False
    records: tuple[RecordDecision, ...] = ()

    @property
    def permits(self) -> bool:
        """Whether a rule permits that anything be released."""
        return self.outcome == "permit"
