"""A consent as a structured policy: who may do what, for which purpose, with which records, and the exceptions to it.

Owns the canonical bytes that a contract stores; refuses whatever `encode` does not write. It knows nothing of FHIR's
JSON, which `fhir` reads and writes, and nothing of how it is decided, which `decide` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from ehrfast.errors import InvalidInputError
from ehrfast.model.codec import cbor_decode, cbor_encode
from ehrfast.policy.conditions import Flat, Node, flatten, unflatten
from ehrfast.policy.times import ALWAYS, Span

FORMAT: Final = 1
RULES_MAX: Final = 256
DEPTH_MAX: Final = 16
BYTES_MAX: Final = 64 * 1024

Effect = Literal["permit", "deny"]
Scope = Literal["privacy", "research"]
Meaning = Literal["instance", "related", "dependents", "authoredby"]


@dataclass(frozen=True, slots=True)
class Actor:
    """A recipient a rule names; whatever is given must be true of the asker.

    Args:
        roles: functional roles, any of which will do.
        reference: ``Type/id`` of a person, organisation, group or device.
        identifier: ``system|value`` instead.
    """

    roles: tuple[str, ...] = ()
    reference: str | None = None
    identifier: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """Records a rule names: one, those it refers to, those that refer to it, or those somebody wrote."""

    meaning: Meaning
    reference: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One provision: its elements are joined by and, the values of one by or; an empty element does not constrain.

    Args:
        effect: what holds when it matches and no exception does.
        validity: when it, and all below it, is in force.
        data_period: when the data concerned were made.
        condition: what CEL demands besides.
        rules: exceptions, where their effect is the other one, or additions.
    """

    effect: Effect
    validity: Span = ALWAYS
    purposes: tuple[str, ...] = ()
    actors: tuple[Actor, ...] = ()
    actions: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    data_period: Span | None = None
    data: tuple[Named, ...] = ()
    condition: Node | None = None
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Consent:
    """One consent in force, apart from time.

    Args:
        id: logical id, empty where there is none.
        version: version id.
        patient: ``Type/id``, or ``system|value`` of an identifier.
        written: when it was given, as far as its date tells; None where it does not.
        verified: False where the consent itself says that nobody verified it; then it denies but permits nothing.
        scope: what it consents to.
    """

    id: str
    version: str | None
    patient: str
    rule: Rule
    written: Span | None = None
    verified: bool = True
    scope: Scope = "privacy"

    @property
    def name(self) -> str:
        """How a decision names it."""
        return f"Consent/{self.id}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A consent that was to be in force and cannot be understood: it denies, for nobody knows what it forbids.

    Args:
        path: the element that could not be expressed.
        code: why.
        patient: whose it is, None where not even that can be read; then it may be anybody's.
        validity: when it is in force, as far as that can be read.
    """

    id: str
    version: str | None
    path: str
    code: str
    patient: str | None = None
    written: Span | None = None
    validity: Span = ALWAYS

    @property
    def name(self) -> str:
        """How a decision names it."""
        return f"Consent/{self.id}"


def walk(rule: Rule) -> Iterator[Rule]:
    """A rule and all rules below it."""
    yield rule
    for each in rule.rules:
        yield from walk(each)


# ── canonical bytes ─────────────────────────────────────────────────────────────────────────────────────────────────

_EFFECTS: Final = ("deny", "permit")
_SCOPES: Final = ("privacy", "research")
_MEANINGS: Final = ("instance", "related", "dependents", "authoredby")


def encode(consent: Consent) -> bytes:
    """The one form of a consent in bytes: rules in a flat list, each with the number of the rule above it.

    Raises:
        InvalidInputError: ``consent.too_large``.
    """
    rules: list[tuple[object, ...]] = []

    def add(rule: Rule, above: int | None, depth: int) -> None:
        if depth > DEPTH_MAX or len(rules) == RULES_MAX:
            raise InvalidInputError("consent.too_large")
        place = len(rules)
        rules.append(_rule_row(rule, above))
        for each in rule.rules:
            add(each, place, depth + 1)

    add(consent.rule, None, 1)
    head = (FORMAT, consent.id, consent.version, consent.patient, _SCOPES.index(consent.scope))
    content = cbor_encode((*head, consent.written and tuple(consent.written), consent.verified, tuple(rules)))
    if len(content) > BYTES_MAX:
        raise InvalidInputError("consent.too_large")
    return content


def _rule_row(rule: Rule, above: int | None) -> tuple[object, ...]:
    return (
        above,
        _EFFECTS.index(rule.effect),
        tuple(rule.validity),
        rule.purposes,
        tuple((actor.roles, actor.reference, actor.identifier) for actor in rule.actors),
        rule.actions,
        rule.types,
        rule.codes,
        rule.labels,
        rule.data_period and tuple(rule.data_period),
        tuple((_MEANINGS.index(each.meaning), each.reference) for each in rule.data),
        rule.condition and flatten(rule.condition),
    )


def decode(content: bytes) -> Consent:
    """Reads what `encode` wrote, and nothing else.

    Raises:
        InvalidInputError: ``consent.malformed``, ``consent.too_large``, or a code of the CBOR reader.
    """
    if len(content) > BYTES_MAX:
        raise InvalidInputError("consent.too_large")
    value = cbor_decode(content)
    try:
        consent = _consent(value)
        same = encode(consent) == content
    except (LookupError, TypeError, ValueError):
        raise InvalidInputError("consent.malformed") from None
    if not same:
        raise InvalidInputError("consent.malformed")
    return consent


def _consent(value: Any) -> Consent:
    version_of_format, identifier, version, patient, scope, written, verified, rows = _tuple(value, 8)
    if version_of_format != FORMAT or not 0 < len(rows) <= RULES_MAX or type(verified) is not bool:
        raise ValueError
    below: dict[int | None, list[int]] = {}
    for place, row in enumerate(rows):
        above = row[0]
        if (above is None) != (place == 0) or (above is not None and not 0 <= above < place):
            raise ValueError
        below.setdefault(above, []).append(place)

    def build(place: int, depth: int) -> Rule:
        if depth > DEPTH_MAX:
            raise ValueError
        return _rule(rows[place], tuple(build(each, depth + 1) for each in below.get(place, ())))

    return Consent(
        id=_text(identifier),
        version=_optional(_text, version),
        patient=_text(patient),
        rule=build(0, 1),
        written=_optional(_span, written),
        verified=verified,
        scope=_SCOPES[scope],
    )


def _rule(row: Any, rules: tuple[Rule, ...]) -> Rule:
    _, effect, validity, purposes, actors, actions, types, codes, labels, period, data, condition = _tuple(row, 12)
    return Rule(
        effect=_EFFECTS[effect],
        validity=_span(validity),
        purposes=_texts(purposes),
        actors=tuple(
            Actor(_texts(roles), _optional(_text, reference), _optional(_text, identifier))
            for roles, reference, identifier in actors
        ),
        actions=_texts(actions),
        types=_texts(types),
        codes=_texts(codes),
        labels=_texts(labels),
        data_period=_optional(_span, period),
        data=tuple(Named(_MEANINGS[meaning], _text(reference)) for meaning, reference in data),
        condition=_optional(_condition, condition),
        rules=rules,
    )


def _tuple(value: Any, length: int) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)) or len(value) != length:
        raise ValueError
    return tuple(value)


def _text(value: object) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_text(each) for each in values)


def _span(value: Any) -> Span:
    start, end = _tuple(value, 2)
    if any(each is not None and type(each) is not int for each in (start, end)):
        raise TypeError
    return Span(start, end)


def _condition(value: Any) -> Node:
    flat: Flat = tuple(tuple(node) for node in value)
    return unflatten(flat)


def _optional(read: Callable[[Any], Any], value: object) -> Any:
    return None if value is None else read(value)
