"""FHIR R4 Consent to policy and back; an element that cannot be expressed is refused with its path, never left out.

Owns the reading IHE PCF gives: the root provision is the base rule, its effect from `type` or else from `policyRule`.
Source: FHIR R4 Consent; IHE ITI Privacy Consent on FHIR, volume 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ehrfast.errors import InvalidInputError
from ehrfast.policy import codes
from ehrfast.policy.conditions import parse_condition, write_condition
from ehrfast.policy.consent import DEPTH_MAX, Actor, Consent, Effect, Meaning, Named, Rule, Scope, Unreadable
from ehrfast.policy.times import ALWAYS, Span, read_coverage, read_date, read_validity, write_instant

CONDITION_URL: Final = "urn:ehrfast:consent-condition"
"""The modifier extension of a provision that holds a condition: an Expression in ``text/cel``."""

_SCOPE_SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/consentscope"
_PARTICIPATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_STATUSES: Final = frozenset({"draft", "proposed", "active", "rejected", "inactive", "entered-in-error"})
_BASE_RULES: Final[Mapping[str, Effect]] = {"OPTIN": "permit", "OPTINR": "permit", "OPTOUT": "deny", "OPTOUTE": "deny"}
_SCOPES: Final[Mapping[str, Scope]] = {"patient-privacy": "privacy", "research": "research"}
_OTHER_SCOPES: Final = frozenset({"adr", "treatment"})
_MEANINGS: Final[Mapping[str, Meaning]] = {
    "instance": "instance",
    "related": "related",
    "dependents": "dependents",
    "authoredby": "authoredby",
}
_INVOLVEMENTS: Final = frozenset(
    {
        _PARTICIPATION,
        "http://terminology.hl7.org/CodeSystem/v3-ParticipationFunction",
        "http://terminology.hl7.org/CodeSystem/v3-RoleClass",
        "http://terminology.hl7.org/CodeSystem/v3-RoleCode",
        "http://terminology.hl7.org/CodeSystem/contractsignertypecodes",
        "http://terminology.hl7.org/CodeSystem/extra-security-role-type",
    }
)
"""Systems that say how somebody named is involved, not what role the asker must have."""
_RECIPIENTS: Final = frozenset({"IRCP", "PRCP", "TRC", "NOT", "GRANTEE", "DELEGATEE", "RCT"})
"""Roles by which an actor receives records."""
_NOT_RECIPIENTS: Final = frozenset(
    {
        "AMENDER", "COAUTH", "CONT", "EVTWIT", "PRIMAUTH", "REVIEWER", "SOURCE", "TRANS", "VALID", "VERF", "AUT", "CST",
        "INF", "ENT", "LA", "WIT", "CONSENTER", "CONSWIT", "COPART", "DECLASSIFIER", "DELEGATOR", "DOWNGRDER",
        "GRANTOR", "CLASSIFIER", "PROMSK", "AUCG", "AULR", "AUTM", "AUWA", "INTPRTER",
    }
)  # fmt: skip
"""Roles that say something else of an actor than that it receives records; no rule here can hold them."""

_ELEMENTS: Final = frozenset(
    {
        "resourceType", "id", "meta", "language", "text", "contained", "extension", "identifier", "status", "scope",
        "category", "patient", "dateTime", "performer", "organization", "sourceAttachment", "sourceReference", "policy",
        "policyRule", "verification", "provision",
    }
)  # fmt: skip
_PROVISION_ELEMENTS: Final = frozenset(
    {
        "id", "extension", "modifierExtension", "type", "period", "actor", "action", "securityLabel", "purpose",
        "class", "code", "dataPeriod", "data", "provision",
    }
)  # fmt: skip

Json = Mapping[str, Any]


class _PathError(Exception):
    """What is refused, where, and why."""

    def __init__(self, path: str, code: str) -> None:
        super().__init__(path, code)
        self.path = path
        self.code = code


def read_consents(value: object) -> tuple[Consent | Unreadable, ...]:
    """The consents to decide by: an array of Consent resources, a Bundle of them, or one.

    Consents that are not active, or consent to something else than the use of records, are left out: they rule nothing.
    One that is to be in force and cannot be understood becomes `Unreadable`, which denies.

    Raises:
        InvalidInputError: ``consent.not_a_list`` when it is none of the three.
    """
    found: list[Consent | Unreadable | None] = []
    for resource in _resources(value):
        if not isinstance(resource, Mapping):
            found.append(Unreadable("", None, "Consent", "consent.not_a_resource"))
        elif resource.get("resourceType", "Consent") == "Consent" and _may_rule(resource):
            found.append(_read(resource))
    return tuple(each for each in found if each is not None)


def read_consent(resource: Json) -> Consent:
    """One active consent, for submission.

    Raises:
        InvalidInputError: ``consent.not_active``, ``consent.other_scope``, or why it cannot be expressed, with the
            ``path`` of the element in the details.
    """
    if not _may_rule(resource):
        raise InvalidInputError("consent.not_active", {"path": "Consent.status"})
    read = _read(resource)
    if read is None:
        raise InvalidInputError("consent.other_scope", {"path": "Consent.scope"})
    if isinstance(read, Unreadable):
        raise InvalidInputError(read.code, {"path": read.path})
    return read


def _resources(value: object) -> Sequence[object]:
    if isinstance(value, Mapping) and value.get("resourceType") == "Bundle":
        entries = value.get("entry", [])
        if isinstance(entries, list):
            return [each.get("resource") if isinstance(each, Mapping) else each for each in entries]
    elif isinstance(value, Mapping) and value.get("resourceType") == "Consent":
        return [value]
    elif isinstance(value, list):
        return value
    raise InvalidInputError("consent.not_a_list")


def _may_rule(resource: Json) -> bool:
    """An unknown status may mean active, and is refused later."""
    status = resource.get("status")
    return status == "active" or not isinstance(status, str) or status not in _STATUSES


def _read(resource: Json) -> Consent | Unreadable | None:
    identifier, version = _id(resource), _version(resource)
    try:
        scope = _scope(resource)
        if scope is None:
            return None
        _only(resource, _ELEMENTS, "Consent")
        if resource.get("status") != "active":
            raise _PathError("Consent.status", "consent.unknown_status")
        return Consent(
            id=identifier,
            version=version,
            patient=_patient(resource),
            rule=_base(resource),
            written=_written(resource),
            verified=_verified(resource),
            scope=scope,
        )
    except _PathError as error:
        return Unreadable(
            id=identifier,
            version=version,
            path=error.path,
            code=error.code,
            patient=_readable(_patient, resource, None),
            written=_readable(_written, resource, None),
            validity=_readable(_root_validity, resource, ALWAYS),
        )


def _readable(read: Any, resource: Json, otherwise: Any) -> Any:
    try:
        return read(resource)
    except _PathError:
        return otherwise


def _id(resource: Json) -> str:
    found = resource.get("id")
    if isinstance(found, str):
        return found
    for each in _dicts(resource.get("identifier")):
        if isinstance(each.get("value"), str):
            return str(each["value"])
    return ""


def _version(resource: Json) -> str | None:
    meta = resource.get("meta")
    found = meta.get("versionId") if isinstance(meta, Mapping) else None
    return found if isinstance(found, str) else None


def _dicts(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _only(holder: Json, known: frozenset[str], path: str) -> None:
    for name in holder:
        if name not in known and not (name[:1] == "_" and name[1:] in known and name[1:] in holder):
            code = "consent.modifier" if name in ("modifierExtension", "implicitRules") else "consent.unknown_element"
            raise _PathError(f"{path}.{name}", code)


def _scope(resource: Json) -> Scope | None:
    """What is consented to; None when that is not the use of records. Some say so in category instead of scope."""
    concepts = [resource["scope"]] if "scope" in resource else list(_dicts(resource.get("category")))
    told = []
    for concept in concepts:
        if not isinstance(concept, Mapping):
            raise _PathError("Consent.scope", "consent.malformed")
        for coding in _dicts(concept.get("coding")):
            if "scope" in resource or str(coding.get("system", "")).rstrip("/") == _SCOPE_SYSTEM:
                told.append(str(coding.get("code")))
    for code in told:
        if code in _SCOPES:
            return _SCOPES[code]
    if told and all(code in _OTHER_SCOPES for code in told):
        return None
    if "scope" in resource:
        raise _PathError("Consent.scope", "consent.unknown_scope")
    return "privacy"


def _patient(resource: Json) -> str:
    reference, identifier = _reference(resource.get("patient"), "Consent.patient")
    return reference or str(identifier)


def _reference(value: object, path: str) -> tuple[str | None, str | None]:
    """Literal reference and identifier of a Reference; one of the two is there."""
    if not isinstance(value, Mapping):
        raise _PathError(path, "consent.missing" if value is None else "consent.malformed")
    literal = value.get("reference")
    if literal is not None:
        if not isinstance(literal, str) or not literal:
            raise _PathError(f"{path}.reference", "consent.malformed")
        return plain_reference(literal), None
    identifier = value.get("identifier")
    if not isinstance(identifier, Mapping) or not isinstance(identifier.get("value"), str):
        raise _PathError(path, "consent.unresolvable_reference")
    system = identifier.get("system")
    return None, codes.join(system if isinstance(system, str) else None, identifier["value"])


def plain_reference(text: str) -> str:
    """A reference without the version it may name."""
    return text.split("/_history/", 1)[0]


def _written(resource: Json) -> Span | None:
    return None if resource.get("dateTime") is None else _date(resource["dateTime"], "Consent.dateTime")


def _date(value: object, path: str) -> Span:
    try:
        return read_date(value)[0]
    except InvalidInputError as error:
        raise _PathError(path, error.code) from None


def _verified(resource: Json) -> bool:
    if "verification" not in resource:
        return True
    told = [each.get("verified") for each in _many(resource, "verification", "Consent")]
    if not all(isinstance(each, bool) for each in told):
        raise _PathError("Consent.verification.verified", "consent.malformed")
    return any(told)


def _root_validity(resource: Json) -> Span:
    provision = resource.get("provision")
    return _validity(provision, "Consent.provision") if isinstance(provision, Mapping) else ALWAYS


def _base(resource: Json) -> Rule:
    told = _base_effect(resource)
    provision = resource.get("provision")
    if provision is None:
        if told is None:
            raise _PathError("Consent.provision", "consent.missing")
        return Rule(told)
    if not isinstance(provision, Mapping):
        raise _PathError("Consent.provision", "consent.malformed")
    return _rule(provision, "Consent.provision", told, 1)


def _base_effect(resource: Json) -> Effect | None:
    policy = resource.get("policyRule")
    if policy is None:
        return None
    if not isinstance(policy, Mapping):
        raise _PathError("Consent.policyRule", "consent.malformed")
    words = [str(each.get("code")) for each in _dicts(policy.get("coding"))]
    told = {_BASE_RULES[word] for word in words if word in _BASE_RULES}
    if len(told) > 1:
        raise _PathError("Consent.policyRule", "consent.contradiction")
    return told.pop() if told else None


def _rule(provision: Json, path: str, base: Effect | None, depth: int) -> Rule:
    if depth > DEPTH_MAX:
        raise _PathError(path, "consent.too_deep")
    _only(provision, _PROVISION_ELEMENTS, path)
    return Rule(
        effect=_effect(provision, path, base, depth == 1),
        validity=_validity(provision, path),
        purposes=_codings(provision, "purpose", path),
        actors=tuple(_actor(each, where) for each, where in _each(provision, "actor", path)),
        actions=_concepts(provision, "action", path),
        types=_types(provision, path),
        codes=_concepts(provision, "code", path),
        labels=_codings(provision, "securityLabel", path),
        data_period=_data_period(provision, path),
        data=tuple(_data(each, where) for each, where in _each(provision, "data", path)),
        condition=_condition(provision, path),
        rules=tuple(_rule(each, where, None, depth + 1) for each, where in _each(provision, "provision", path)),
    )


def _effect(provision: Json, path: str, base: Effect | None, root: bool) -> Effect:
    told = provision.get("type")
    if told is None and root and base is not None:
        return base
    if told not in ("permit", "deny"):
        raise _PathError(f"{path}.type", "consent.missing" if told is None else "consent.unknown_type")
    if base is not None and told != base:
        raise _PathError(f"{path}.type", "consent.contradiction")
    return "permit" if told == "permit" else "deny"


def _many(holder: Json, name: str, path: str) -> list[Json]:
    """The values of a repeating element. One alone is taken for a list of it: there is no other meaning."""
    if name not in holder:
        return []
    value = holder[name]
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, Mapping) and each for each in values):
        raise _PathError(f"{path}.{name}", "consent.malformed")
    return values


def _each(holder: Json, name: str, path: str) -> Iterator[tuple[Json, str]]:
    for place, value in enumerate(_many(holder, name, path)):
        yield value, f"{path}.{name}[{place}]"


def _coding(value: Json, path: str) -> str:
    code, system = value.get("code"), value.get("system")
    if not isinstance(code, str) or not code or not (system is None or isinstance(system, str)):
        raise _PathError(path, "consent.no_code")
    return codes.join(system, code)


def _codings(holder: Json, name: str, path: str) -> tuple[str, ...]:
    return tuple(_coding(each, where) for each, where in _each(holder, name, path))


def _concept(value: Json, path: str) -> tuple[str, ...]:
    found = _codings(value, "coding", path)
    if not found:
        raise _PathError(path, "consent.no_code")
    return found


def _concepts(holder: Json, name: str, path: str) -> tuple[str, ...]:
    """All codes of the concepts: the codings of one are synonyms, and the concepts are joined by or."""
    return tuple(code for each, where in _each(holder, name, path) for code in _concept(each, where))


def _types(provision: Json, path: str) -> tuple[str, ...]:
    found = []
    for each, where in _each(provision, "class", path):
        code = _coding(each, where)
        system, word = codes.split(code)
        if system == "http://hl7.org/fhir/StructureDefinition" or word.startswith("http"):
            raise _PathError(where, "consent.profile_class")
        found.append(code)
    return tuple(found)


def _actor(value: Json, path: str) -> Actor:
    roles: tuple[str, ...] = ()
    if "role" in value:
        if not isinstance(value["role"], Mapping):
            raise _PathError(f"{path}.role", "consent.malformed")
        roles = _concept(value["role"], f"{path}.role")
    words = {codes.split(role)[1] for role in roles}
    if words & _NOT_RECIPIENTS:
        raise _PathError(f"{path}.role", "consent.actor_is_no_recipient")
    involved = "reference" in value and all(codes.split(role)[0] in _INVOLVEMENTS for role in roles)
    functional = () if involved or words & _RECIPIENTS else roles
    if functional and "reference" not in value:
        return Actor(roles=functional)
    reference, identifier = _reference(value.get("reference"), f"{path}.reference")
    return Actor(functional, reference, identifier)


def _validity(provision: Json, path: str) -> Span:
    return _period(provision, "period", path, read_validity) or ALWAYS


def _data_period(provision: Json, path: str) -> Span | None:
    return _period(provision, "dataPeriod", path, read_coverage)


def _period(holder: Json, name: str, path: str, read: Any) -> Span | None:
    if name not in holder:
        return None
    value = holder[name]
    if not isinstance(value, Mapping) or not ("start" in value or "end" in value):
        raise _PathError(f"{path}.{name}", "consent.malformed")
    try:
        span: Span = read(value.get("start"), value.get("end"))
    except InvalidInputError as error:
        raise _PathError(f"{path}.{name}", error.code) from None
    return span


def _data(value: Json, path: str) -> Named:
    meaning = _MEANINGS.get(str(value.get("meaning")))
    if meaning is None:
        raise _PathError(f"{path}.meaning", "consent.unknown_meaning")
    reference, _ = _reference(value.get("reference"), f"{path}.reference")
    if reference is None:
        raise _PathError(f"{path}.reference", "consent.unresolvable_reference")
    return Named(meaning, reference)


def _condition(provision: Json, path: str) -> Any:
    found = None
    for each, where in _each(provision, "modifierExtension", path):
        expression = each.get("valueExpression")
        if each.get("url") != CONDITION_URL or not isinstance(expression, Mapping) or found is not None:
            raise _PathError(where, "consent.modifier")
        text = expression.get("expression")
        if expression.get("language") != "text/cel" or not isinstance(text, str):
            raise _PathError(where, "consent.condition_not_cel")
        try:
            found = parse_condition(text)
        except InvalidInputError as error:
            raise _PathError(where, error.code) from None
    return found


# ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_consent(consent: Consent) -> dict[str, Any]:
    """The consent as an active FHIR R4 resource; `read_consent` gives the same policy again."""
    resource: dict[str, Any] = {"resourceType": "Consent"}
    if consent.id:
        resource["id"] = consent.id
    if consent.version is not None:
        resource["meta"] = {"versionId": consent.version}
    scope = "patient-privacy" if consent.scope == "privacy" else "research"
    resource |= {
        "status": "active",
        "scope": {"coding": [{"system": _SCOPE_SYSTEM, "code": scope}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": _write_reference(consent.patient if "|" not in consent.patient else None, consent.patient),
    }
    if consent.written is not None:
        resource["dateTime"] = _write_date(consent.written)
    base = "OPTIN" if consent.rule.effect == "permit" else "OPTOUT"
    resource["policyRule"] = {"coding": [{"system": codes.SENSITIVITY, "code": base}]}
    if not consent.verified:
        resource["verification"] = [{"verified": False}]
    resource["provision"] = _write_rule(consent.rule)
    return resource


def _write_rule(rule: Rule) -> dict[str, Any]:
    made: dict[str, Any] = {"type": rule.effect}
    if rule.condition is not None:
        expression = {"language": "text/cel", "expression": write_condition(rule.condition)}
        made["modifierExtension"] = [{"url": CONDITION_URL, "valueExpression": expression}]
    if rule.validity != ALWAYS:
        made["period"] = _write_period(rule.validity, 0)
    if rule.data_period is not None:
        made["dataPeriod"] = _write_period(rule.data_period, 1)
    repeating = {
        "actor": [_write_actor(actor) for actor in rule.actors],
        "action": [{"coding": [_write_coding(code)]} for code in rule.actions],
        "securityLabel": [_write_coding(code) for code in rule.labels],
        "purpose": [_write_coding(code) for code in rule.purposes],
        "class": [_write_coding(code) for code in rule.types],
        "code": [{"coding": [_write_coding(code)]} for code in rule.codes],
        "data": [{"meaning": each.meaning, "reference": {"reference": each.reference}} for each in rule.data],
        "provision": [_write_rule(each) for each in rule.rules],
    }
    return made | {name: values for name, values in repeating.items() if values}


def _write_coding(code: str) -> dict[str, str]:
    system, word = codes.split(code)
    return {"code": word} if system is None else {"system": system, "code": word}


def _write_actor(actor: Actor) -> dict[str, Any]:
    roles = [_write_coding(role) for role in actor.roles] or [{"system": _PARTICIPATION, "code": "IRCP"}]
    made: dict[str, Any] = {"role": {"coding": roles}}
    if actor.reference is not None or actor.identifier is not None:
        made["reference"] = _write_reference(actor.reference, actor.identifier)
    return made


def _write_reference(reference: str | None, identifier: str | None) -> dict[str, Any]:
    if reference is not None:
        return {"reference": reference}
    system, value = codes.split(identifier or "")
    return {"identifier": {"value": value} if system is None else {"system": system, "value": value}}


def _write_period(span: Span, included: int) -> dict[str, str]:
    made = {} if span.start is None else {"start": write_instant(span.start)}
    return made if span.end is None else made | {"end": write_instant(span.end - included)}


def _write_date(span: Span) -> str:
    """With the precision that gives the same span again."""
    instant = write_instant(span.start or 0)
    for text in (instant[:4], instant[:7], instant[:10], f"{instant[:16]}Z", f"{instant[:19]}Z"):
        if read_date(text)[0] == span:
            return text
    return instant
