"""The consents of row `consent_decide` as policies of two general engines, compiled beforehand like ours.

They answer for one record what is permitted; none of them names obligations, the consents' versions or an expiry.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cedarpy
import regopy
from ehrfast.policy import codes

_START, _END = 1_577_836_800_000, 1_893_456_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """One consent in the words all three engines share.

    Args:
        permit: or deny.
        purpose: the purpose it speaks of, with those under it.
        organization: to whom.
        but: a label its one exception names; a denial has none.
        role: what the condition demands of the asker's roles, or None without condition.
    """

    permit: bool
    purpose: str
    organization: str
    but: str
    role: str | None

    @property
    def purposes(self) -> list[str]:
        """With those under it, as the engines know no tree."""
        reached = codes.purposes((self.purpose,), permit=self.permit)
        return sorted(name for name in reached if "|" not in name)


@dataclass(frozen=True, slots=True)
class Question:
    """One record asked for."""

    purpose: str
    organization: str
    roles: tuple[str, ...]
    labels: tuple[str, ...]
    now_ms: int


class Cedar:
    """cedarpy, its policy set parsed once."""

    def __init__(self, consents: Sequence[Terms]) -> None:
        self._policies = cedarpy.PolicySet.from_str("\n".join(map(_cedar, consents)))

    def permits(self, question: Question) -> bool:
        """Whether the record may leave."""
        request = {
            "principal": 'Person::"a"', "action": 'Action::"access"', "resource": 'Record::"1"',
            "context": {
                "purpose": question.purpose, "organization": question.organization, "roles": list(question.roles),
                "labels": list(question.labels), "now": question.now_ms,
            },
        }  # fmt: skip
        return bool(cedarpy.is_authorized(request, self._policies, []).allowed)


def _cedar(terms: Terms) -> str:
    words = ", ".join(f'"{each}"' for each in terms.purposes)
    role = "" if terms.role is None else f' && context.now < {_END} && context.roles.contains("{terms.role}")'
    when = (
        f'[{words}].contains(context.purpose) && context.organization == "{terms.organization}" '
        f"&& context.now >= {_START} && context.now < {_END}{role} "
    )
    if terms.permit:
        when += f' && !(context.labels.contains("{terms.but}"))'
    return (
        f'{"permit" if terms.permit else "forbid"}(principal, action == Action::"access", resource) when {{ {when} }};'
    )


_REGO: Final = """package consent

in_force(from, until) if {{
    input.now >= from
    input.now < until
}}

allow if {{
    permitted
    not denied
}}

{rules}
"""


class Rego:
    """regopy, its bundle built once."""

    def __init__(self, consents: Sequence[Terms]) -> None:
        self._engine = regopy.Interpreter()
        self._engine.add_module("consent", _REGO.format(rules="\n\n".join(map(_rego, consents))))
        self._bundle = self._engine.build("data.consent.allow")

    def permits(self, question: Question) -> bool:
        """Whether the record may leave."""
        told = {
            "purpose": question.purpose, "organization": question.organization, "roles": list(question.roles),
            "labels": list(question.labels), "now": question.now_ms,
        }  # fmt: skip
        self._engine.set_input_term(json.dumps(told))
        return str(self._engine.query_bundle(self._bundle)) == '{"expressions":[true]}'


def _rego(terms: Terms) -> str:
    words = ", ".join(f'"{each}"' for each in terms.purposes)
    lines = [
        f"input.purpose in {{{words}}}",
        f'input.organization == "{terms.organization}"',
        f"in_force({_START}, {_END})",
    ]
    if terms.permit:
        lines.append(f'not "{terms.but}" in input.labels')
    if terms.role is not None:
        lines += [f"input.now < {_END}", f'"{terms.role}" in input.roles']
    body = "\n    ".join(lines)
    return f"{'permitted' if terms.permit else 'denied'} if {{\n    {body}\n}}"
