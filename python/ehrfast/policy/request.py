"""A request for records as the rules see it: who asks, for whom, why, what, and what is known of the people named.

Refuses what is no request. Owns how references and memberships are compared: a relative reference and an absolute one
agree in their last two parts; a person stands for all groups and organisations the directory puts it in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ehrfast.errors import InvalidInputError
from ehrfast.policy import codes
from ehrfast.policy.fhir import plain_reference
from ehrfast.policy.times import Span, read_date

SiteDefault = Literal["deny", "permit_authorised", "clinicians_only", "break_glass_only"]
Combining = Literal["deny_overrides", "most_recent"]

RECORDS_MAX: Final = 10_000
LIST_MAX: Final = 1_000
TEXT_MAX: Final = 4_096
_SITE_DEFAULTS: Final = ("deny", "permit_authorised", "clinicians_only", "break_glass_only")
_COMBININGS: Final = ("deny_overrides", "most_recent")
_READING: Final = frozenset({"read", "vread", "search", "list", "history", "count"})
"""Interactions that FHIR's consent actions call access."""
_PERSONS: Final = frozenset({"Practitioner", "PractitionerRole", "Patient", "RelatedPerson", "Device", "Person"})


@dataclass(frozen=True, slots=True)
class Site:
    """What the site rules where patients have not.

    Args:
        no_consent: who gets access where no consent speaks.
        combining: which consent wins where several speak.
    """

    no_consent: SiteDefault = "deny"
    combining: Combining = "deny_overrides"


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, as the login established it.

    Args:
        reference: ``Type/id``.
        identifiers: ``system|value`` by which it is known.
        roles: functional roles.
        organization: for whom it acts.
        authorised: whether the site's own access control lets it ask at all.
        clinician: whether it treats patients.
        break_glass: whether it may break the glass; None where nobody said.
    """

    reference: str
    identifiers: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    organization: str | None = None
    authorised: bool = False
    clinician: bool = False
    break_glass: bool | None = None


@dataclass(frozen=True, slots=True)
class AskedRecord:
    """One record asked for, by what rules go by; `date` is None where it has none."""

    reference: str
    type: str
    codes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    date: Span | None = None
    authors: tuple[str, ...] = ()
    related: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """A declared override: why, and until when."""

    reason: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What the directory says of somebody."""

    member_of: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the rules.

    Args:
        time_ms: the moment it is judged at, block time on a chain.
        directory: what is known of people, groups and organisations; None where there is none to ask.
    """

    patient: str
    requester: Requester
    purposes: tuple[str, ...]
    action: str
    time_ms: int
    records: tuple[AskedRecord, ...] = ()
    break_glass: BreakGlass | None = None
    directory: Mapping[str, Entry] | None = field(default=None, hash=False)


# ── comparing references ────────────────────────────────────────────────────────────────────────────────────────────


def _tail(reference: str) -> str | None:
    """``Type/id`` of an absolute URL."""
    if "://" not in reference:
        return None
    parts = reference.rsplit("/", 2)
    return f"{parts[-2]}/{parts[-1]}" if len(parts) == 3 else None


def named_references(references: Iterable[str]) -> frozenset[str]:
    """What a rule's references are compared by."""
    found = set()
    for reference in references:
        tail = _tail(reference)
        found |= {reference, f"*{reference}"} if tail is None else {reference, tail}
    return frozenset(found)


def asked_references(references: Collection[str]) -> frozenset[str]:
    """What a request's references are compared by."""
    found = list(references)
    for reference in references:
        if (tail := _tail(reference)) is not None:
            found.append(f"*{tail}")
    return frozenset(found)


def standing(
    references: Collection[str], identifiers: Collection[str], directory: Mapping[str, Entry]
) -> frozenset[str]:
    """All that somebody stands for: its references and identifiers, and by the directory those of whatever it is a
    member of, however far up."""
    if not directory:
        found_plainly = asked_references(references)
        return found_plainly.union(_marked(identifiers)) if identifiers else found_plainly
    known = set(identifiers)
    waiting = [*references, *(name for name, entry in directory.items() if known.intersection(entry.identifiers))]
    found: set[str] = set()
    while waiting:
        reference = waiting.pop()
        if reference in found:
            continue
        found.add(reference)
        entry = directory.get(reference) or directory.get(_tail(reference) or "")
        if entry is not None:
            known.update(entry.identifiers)
            waiting.extend(entry.member_of)
    return asked_references(found).union(_marked(known))


def _marked(identifiers: Iterable[str]) -> list[str]:
    return [f"={identifier}" for identifier in identifiers]


def resolvable(reference: str, request: Request) -> bool:
    """Whether it can be told of a recipient named by a rule that the asker is not it.

    With a directory, when the directory knows it; without one, when both are persons, or it is an organisation and the
    asker's own is known. What cannot be told is left to the side that is safe: a denial holds, a permit does not.
    """
    directory, requester = request.directory, request.requester
    if directory is not None:
        listed = {name for entry in directory.values() for name in entry.member_of}.union(directory)
        return not named_references((reference,)).isdisjoint(asked_references(listed))
    kind = (_tail(reference) or reference).partition("/")[0]
    own = (_tail(requester.reference) or requester.reference).partition("/")[0]
    if kind in _PERSONS:
        return own in _PERSONS or own == "Organization"
    return kind == "Organization" and (requester.organization is not None or own == "Organization")


# ── reading a request ───────────────────────────────────────────────────────────────────────────────────────────────


def read_request(value: object, time_ms: int) -> tuple[Request, Site]:
    """A request and its site's policy out of JSON.

    Raises:
        InvalidInputError: ``request.malformed`` with the path of the member.
    """
    told = _object(value, "request")
    purposes = _codes(told, "purpose", "request")
    if not purposes:
        raise _malformed("request.purpose")
    records = told.get("resources", [])
    if not isinstance(records, list) or len(records) > RECORDS_MAX:
        raise _malformed("request.resources")
    request = Request(
        patient=plain_reference(_text(told, "patient", "request")),
        requester=_requester(_object(told.get("requester"), "request.requester")),
        purposes=purposes,
        action=_action(_text(told, "action", "request") if "action" in told else "access"),
        time_ms=time_ms,
        records=tuple(_record(each, f"request.resources[{place}]") for place, each in enumerate(records)),
        break_glass=_break_glass(told.get("break_glass")),
        directory=_directory(told.get("directory")),
    )
    return request, _site(told.get("site"))


def read_now(text: object) -> int:
    """The moment to judge at, out of ISO 8601.

    Raises:
        InvalidInputError: ``request.malformed``.
    """
    try:
        start = read_date(text)[0].start
    except InvalidInputError:
        raise _malformed("now") from None
    return start or 0


def _malformed(path: str) -> InvalidInputError:
    return InvalidInputError("request.malformed", {"path": path})


def _object(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(path)
    return value


def _known(holder: Mapping[str, Any], members: set[str], path: str) -> None:
    """For what rules go by: a misspelt label would be no label."""
    for name in holder:
        if name not in members:
            raise _malformed(f"{path}.{name}" if len(name) <= 64 else path)


def _text(holder: Mapping[str, Any], name: str, path: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_MAX:
        raise _malformed(f"{path}.{name}")
    return value


def _optional_text(holder: Mapping[str, Any], name: str, path: str) -> str | None:
    return None if holder.get(name) is None else _text(holder, name, path)


def _texts(holder: Mapping[str, Any], name: str, path: str) -> tuple[str, ...]:
    values = holder.get(name)
    if values is None:
        return ()
    if not isinstance(values, list) or len(values) > LIST_MAX:
        raise _malformed(f"{path}.{name}")
    if not all(isinstance(each, str) and 0 < len(each) <= TEXT_MAX for each in values):
        raise _malformed(f"{path}.{name}")
    return tuple(values)


def _codes(holder: Mapping[str, Any], name: str, path: str) -> tuple[str, ...]:
    """Codes, each ``system|code``, ``code``, or a FHIR Coding."""
    values = holder.get(name)
    if not isinstance(values, list):
        return tuple(codes.tidy(each) for each in _texts(holder, name, path))
    written = [_coding(each) if isinstance(each, dict) else each for each in values]
    return tuple(codes.tidy(each) for each in _texts({name: written}, name, path))


def _coding(value: Mapping[str, Any]) -> object:
    system, code = value.get("system"), value.get("code")
    return codes.join(system, code) if isinstance(system, str) and isinstance(code, str) else code


def _flag(holder: Mapping[str, Any], name: str, path: str) -> bool | None:
    value = holder.get(name)
    if not (value is None or isinstance(value, bool)):
        raise _malformed(f"{path}.{name}")
    return value


def _references(holder: Mapping[str, Any], name: str, path: str) -> tuple[str, ...]:
    return tuple(plain_reference(each) for each in _texts(holder, name, path))


def _identifiers(holder: Mapping[str, Any], path: str) -> tuple[str, ...]:
    return tuple(codes.tidy(each) for each in _texts(holder, "identifiers", path))


def _requester(told: Mapping[str, Any]) -> Requester:
    path = "request.requester"
    organization = _optional_text(told, "organization", path)
    identifiers = _identifiers(told, path)
    if "reference" not in told and identifiers:  # known by nothing else
        told = {**told, "reference": identifiers[0]}
    return Requester(
        reference=plain_reference(_text(told, "reference", path)),
        identifiers=identifiers,
        roles=_codes(told, "roles", path),
        organization=organization and plain_reference(organization),
        authorised=bool(_flag(told, "authorised", path)),
        clinician=bool(_flag(told, "clinician", path)),
        break_glass=_flag(told, "break_glass", path),
    )


def _action(text: str) -> str:
    return "access" if text in _READING else codes.tidy(text)


def _record(value: object, path: str) -> AskedRecord:
    told = _object(value, path)
    _known(told, {"reference", "type", "codes", "labels", "date", "author", "related"}, path)
    reference = plain_reference(_text(told, "reference", path))
    kind = (_tail(reference) or reference).partition("/")[0]
    try:
        date = None if told.get("date") is None else read_date(told["date"])[0]
    except InvalidInputError:
        raise _malformed(f"{path}.date") from None
    return AskedRecord(
        reference=reference,
        type=_optional_text(told, "type", path) or kind,
        codes=_codes(told, "codes", path),
        labels=_codes(told, "labels", path),
        date=date,
        authors=_references(told, "author", path),
        related=_references(told, "related", path),
    )


def _break_glass(value: object) -> BreakGlass | None:
    if value is None:
        return None
    told = _object(value, "request.break_glass")
    _known(told, {"reason", "until"}, "request.break_glass")
    reason = told.get("reason", "")
    if not isinstance(reason, str):
        raise _malformed("request.break_glass.reason")
    try:
        span, timed = read_date(told.get("until"))
    except InvalidInputError:
        raise _malformed("request.break_glass.until") from None
    return BreakGlass(reason.strip(), (span.start if timed else span.end) or 0)


def _directory(value: object) -> dict[str, Entry] | None:
    if value is None:
        return None
    told = _object(value, "request.directory")
    if len(told) > RECORDS_MAX:
        raise _malformed("request.directory")
    found = {}
    for number, (name, entry) in enumerate(told.items()):
        path = f"request.directory[{number}]"
        held = _object(entry, path)
        found[plain_reference(name)] = Entry(_references(held, "memberOf", path), _identifiers(held, path))
    return found


def _site(value: object) -> Site:
    if value is None:
        return Site()
    told = _object(value, "request.site")
    _known(told, {"no_consent", "combining"}, "request.site")
    no_consent, combining = told.get("no_consent", "deny"), told.get("combining", "deny_overrides")
    if no_consent not in _SITE_DEFAULTS:
        raise _malformed("request.site.no_consent")
    if combining not in _COMBININGS:
        raise _malformed("request.site.combining")
    return Site(no_consent, combining)
