"""Decides: consents, compiled once, a request and a site's policy give one decision; pure, the same on every node.

A rule matches when all its elements do. What cannot be known of an element counts as matching for a denial and as not
matching for a permit. An exception (a rule of the other effect below another) holds only where the rule above matches;
an addition (one of the same effect) stands beside it. Among what matches below one rule a denial wins.
Source: FHIR R4 Consent; IHE ITI Privacy Consent on FHIR, 53.2 and 53.4, and the residuals of its examples.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from ehrfast.model.decision import Basis, Decision, Narrowing, Obligation, RecordDecision
from ehrfast.policy import codes
from ehrfast.policy.conditions import prepare, reads, write_condition
from ehrfast.policy.consent import Actor, Consent, Named, Rule, Unreadable, walk
from ehrfast.policy.request import (
    AskedRecord,
    Entry,
    Request,
    Site,
    asked_references,
    named_references,
    resolvable,
    standing,
)
from ehrfast.policy.times import Span, write_instant

_NEVER: Final = -(2**62)
_EVER: Final = 2**62
_NOBODY: Final[dict[str, Entry]] = {}
PURPOSES_KEPT: Final = 256
"""For so many purposes it is remembered which consents speak of them."""


# ── compiling ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Rule:
    """A rule with everything that needs no request worked out; sets are compared with those of `_Asking`."""

    __slots__ = (
        "action_names",
        "actors",
        "additions",
        "condition",
        "condition_of_record",
        "exceptions",
        "from_ms",
        "is_of_records",
        "narrowings",
        "permit",
        "purposes",
        "recipients",
        "record_tests",
        "region",
        "until_ms",
    )  # fmt: skip

    def __init__(self, rule: Rule) -> None:
        self.permit = rule.effect == "permit"
        self.from_ms = _NEVER if rule.validity.start is None else rule.validity.start
        self.until_ms = _EVER if rule.validity.end is None else rule.validity.end
        self.purposes = codes.purposes(rule.purposes, permit=self.permit) if rule.purposes else None
        plain = all(not actor.roles for actor in rule.actors)
        self.recipients = frozenset().union(*map(_recipient, rule.actors)) if rule.actors and plain else None
        self.actors = rule.actors
        self.action_names = codes.named(rule.actions) if rule.actions else None
        attributes = reads(rule.condition) if rule.condition is not None else frozenset()
        self.condition = prepare(rule.condition) if rule.condition is not None else None
        self.condition_of_record = any(name.startswith("record.") for name in attributes)
        self.record_tests = _record_tests(rule, self.permit)
        self.is_of_records = bool(self.record_tests) or self.condition_of_record
        self.narrowings = _narrowings(rule, self.condition_of_record)
        self.region = Obligation("permit" if self.permit else "forbid", self.narrowings)
        below = [_Rule(_complete(each, rule)) for each in rule.rules]
        self.additions = tuple(each for each in below if each.permit is self.permit)
        self.exceptions = tuple(each for each in below if each.permit is not self.permit)

    def reach(self) -> frozenset[str] | None:
        """The purposes that it and its additions speak of; None when all. Exceptions hold only where it does."""
        found = self.purposes
        for each in self.additions:
            more = each.reach()
            found = None if found is None or more is None else found | more
        return found


def _complete(addition: Rule, above: Rule) -> Rule:
    """An addition says what is other than in the rule above; where it is silent, that rule's elements hold. Those that
    speak of records hold together."""
    if addition.effect != above.effect:
        return addition
    speaks = addition.types or addition.codes or addition.labels or addition.data_period or addition.data
    whose = addition if speaks else above
    return replace(
        addition,
        purposes=addition.purposes or above.purposes,
        actors=addition.actors or above.actors,
        actions=addition.actions or above.actions,
        condition=addition.condition or above.condition,
        types=whose.types,
        codes=whose.codes,
        labels=whose.labels,
        data_period=whose.data_period,
        data=whose.data,
    )


def _recipient(actor: Actor) -> frozenset[str]:
    if actor.reference is not None:
        return named_references((actor.reference,))
    return frozenset({f"={actor.identifier}"})


def _record_tests(rule: Rule, permit: bool) -> tuple[Any, ...]:
    """One function of `_Record` for each element that speaks of records."""
    tests: list[Any] = []
    if rule.types:
        types = codes.named(rule.types)
        tests.append(lambda record: not types.isdisjoint(record.types))
    if rule.codes:
        named = codes.named(rule.codes)
        tests.append(lambda record: not named.isdisjoint(record.codes))
    if rule.labels:
        labels = codes.labels(rule.labels, permit=permit)
        tests.append(lambda record: not labels.isdisjoint(record.labels))
    if rule.data_period is not None:
        within = _lies_in if permit else _touches
        tests.append(lambda record, period=rule.data_period: within(record.asked.date, period))
    if rule.data:
        tests.append(_data_test(rule.data))
    return tuple(tests)


def _lies_in(date: Span | None, period: Span) -> bool:
    """Whether all that a date may mean lies in the period."""
    if date is None or date.start is None or date.end is None:
        return False
    return (period.start is None or period.start <= date.start) and (period.end is None or date.end <= period.end)


def _touches(date: Span | None, period: Span) -> bool:
    """Whether anything that a date may mean lies in the period."""
    if date is None or date.start is None or date.end is None:
        return True
    return (period.start is None or period.start < date.end) and (period.end is None or date.start < period.end)


def _data_test(data: Sequence[Named]) -> Any:
    """FHIR says `related` reaches what the record refers to, PCF reads it as what refers to the record: both count."""
    named = {
        meaning: named_references(each.reference for each in data if each.meaning == meaning)
        for meaning in ("instance", "related", "dependents", "authoredby")
    }
    itself = named["instance"] | named["related"] | named["dependents"]
    referring = named["related"] | named["dependents"]
    referred, authors = named["related"], named["authoredby"]

    def test(record: _Record) -> bool:
        return not (
            itself.isdisjoint(record.itself)
            and referring.isdisjoint(record.refers_to)
            and referred.isdisjoint(record.referred_by)
            and authors.isdisjoint(record.authors)
        )

    return test


def _narrowings(rule: Rule, by_condition: bool) -> tuple[Narrowing, ...]:
    """How a rule narrows records, as an obligation tells it."""
    found = []
    if rule.types:
        found.append(Narrowing("type", tuple(_word(each, codes.RESOURCE_TYPES) for each in rule.types)))
    if rule.codes:
        found.append(Narrowing("code", rule.codes))
    if rule.labels:
        words = tuple(_word(each, codes.CONFIDENTIALITY, codes.SENSITIVITY) for each in rule.labels)
        found.append(Narrowing("label", words))
    if rule.data_period is not None:
        found.append(Narrowing("period", _write_span(rule.data_period)))
    if rule.data:
        meanings = {each.meaning for each in rule.data}
        references = tuple(each.reference for each in rule.data)
        if meanings <= {"authoredby"}:
            found.append(Narrowing("author", references))
        elif meanings <= {"instance"}:
            found.append(Narrowing("data", references))
        else:
            found.append(Narrowing("data", references, tuple(each.meaning for each in rule.data)))
    if by_condition and rule.condition is not None:
        found.append(Narrowing("condition", (write_condition(rule.condition),)))
    return tuple(found)


def _word(code: str, *usual: str) -> str:
    system, word = codes.split(code)
    return word if system in usual else code


def _write_span(span: Span) -> tuple[str, ...]:
    start = "" if span.start is None else write_instant(span.start)
    return start, "" if span.end is None else write_instant(span.end)


class _Held:
    """A consent, or an unreadable one, as decisions look at it."""

    __slots__ = (
        "basis",
        "edges",
        "for_research",
        "patients",
        "purposes",
        "restless",
        "rule",
        "unreadable",
        "verified",
        "written",
    )

    def __init__(self, consent: Consent | Unreadable) -> None:
        self.basis = Basis(consent.name, consent.version)
        self.written = consent.written
        self.unreadable = isinstance(consent, Unreadable)
        if isinstance(consent, Unreadable):
            rule = Rule("deny", validity=consent.validity)
            self.verified, self.for_research = True, False
        else:
            rule = consent.rule
            self.verified, self.for_research = consent.verified, consent.scope == "research"
        self.patients = None if consent.patient is None else _patient(consent.patient)
        self.rule = _Rule(rule)
        self.purposes = self.rule.reach()
        ends = {edge for each in walk(rule) for edge in each.validity if edge is not None}
        self.edges = tuple(sorted(ends))
        self.restless = any(
            each.condition is not None and "request.time" in reads(each.condition) for each in walk(rule)
        )


def _patient(reference: str) -> frozenset[str]:
    return frozenset({f"={reference}"}) if "|" in reference else named_references((reference,))


class _Group:
    """The consents that concern one request's patient, in order."""

    __slots__ = ("_by_purpose", "edges", "held", "restless")

    def __init__(self, held: Sequence[_Held]) -> None:
        self.held = held
        self.edges = sorted({edge for each in held for edge in each.edges})
        self.restless = any(each.restless for each in held)
        self._by_purpose: dict[str, list[_Held]] = {}

    def speaking_of(self, purpose: str, names: frozenset[str]) -> list[_Held]:
        """Those whose purposes include one, so that the others need not be asked at all."""
        found = self._by_purpose.get(purpose)
        if found is None:
            found = [each for each in self.held if each.purposes is None or not each.purposes.isdisjoint(names)]
            if len(self._by_purpose) < PURPOSES_KEPT:
                self._by_purpose[purpose] = found
        return found


class Policies:
    """Consents made ready for deciding: compiled once, asked often."""

    __slots__ = ("_anybodys", "_by_patient", "_groups", "_held")

    def __init__(self, consents: Iterable[Consent | Unreadable]) -> None:
        self._held = [_Held(consent) for consent in consents]
        self._by_patient: dict[str, list[int]] = {}
        self._anybodys: list[int] = []
        self._groups: dict[str, _Group] = {}
        for place, held in enumerate(self._held):
            if held.patients is None or any(name.startswith("=") for name in held.patients):
                self._anybodys.append(place)
            else:
                for name in held.patients:
                    self._by_patient.setdefault(name, []).append(place)
        if not self._anybodys:
            self._groups = {
                name: _Group([self._held[place] for place in places]) for name, places in self._by_patient.items()
            }

    def of(self, asking: _Asking) -> _Group:
        """Those of the patient asked for; of one whose patient cannot be told, those too."""
        if not self._anybodys and len(asking.patient) == 1:
            (name,) = asking.patient
            return self._groups.get(name, _NO_CONSENTS)
        places = {place for name in asking.patient for place in self._by_patient.get(name, ())}
        places.update(place for place in self._anybodys if self._may_concern(self._held[place], asking))
        return _Group([self._held[place] for place in sorted(places)])

    @staticmethod
    def _may_concern(held: _Held, asking: _Asking) -> bool:
        if held.patients is None or not held.patients.isdisjoint(asking.patient):
            return True
        return not asking.patient_is_known


_NO_CONSENTS: Final = _Group(())


# ── what is asked ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Asking:
    """A request with its sets for comparing."""

    __slots__ = (
        "actions", "attributes", "now", "patient", "patient_is_known", "purpose_names", "request",
        "requester_roles", "who",
    )  # fmt: skip

    def __init__(self, request: Request) -> None:
        requester = request.requester
        directory = request.directory or _NOBODY
        self.request = request
        self.now = request.time_ms
        references: tuple[str, ...] = (requester.reference,)
        if requester.organization is not None:
            references = (requester.reference, requester.organization)
        self.who = standing(references, requester.identifiers, directory)
        self.requester_roles = codes.asked(requester.roles)
        self.actions = codes.asked_action(request.action)
        if "|" in request.patient:
            self.patient, self.patient_is_known = frozenset({f"={request.patient}"}), True
        else:
            entry = directory.get(request.patient)
            self.patient = asked_references((request.patient,))
            self.patient_is_known = entry is not None and bool(entry.identifiers)
            if entry is not None:
                self.patient = self.patient.union(f"={each}" for each in entry.identifiers)
        self.purpose_names: frozenset[str] = frozenset()
        self.attributes: dict[str, object] | None = None

    def of_request(self) -> dict[str, object]:
        """What a condition may read of the request."""
        if self.attributes is None:
            request, requester = self.request, self.request.requester
            self.attributes = {
                "request.action": request.action,
                "request.break_glass": request.break_glass is not None,
                "request.purposes": [codes.plain(each) for each in request.purposes],
                "request.time": request.time_ms,
                "requester.authorised": requester.authorised,
                "requester.clinician": requester.clinician,
                "requester.organization": requester.organization,
                "requester.reference": requester.reference,
                "requester.roles": [codes.plain(each) for each in requester.roles],
            }
        return self.attributes


class _Record:
    """A record asked for; its sets for comparing are made when a rule first needs them."""

    __slots__ = (
        "asked",
        "asking",
        "authors",
        "codes",
        "itself",
        "labels",
        "readable",
        "referred_by",
        "referring",
        "refers_to",
        "types",
    )

    def __init__(self, asked: AskedRecord, asking: _Asking, referring: Sequence[str]) -> None:
        self.asked = asked
        self.asking = asking
        self.referring = referring

    def __getattr__(self, name: str) -> Any:
        made = _SETS[name](self)
        setattr(self, name, made)
        return made


def _readable(record: _Record) -> dict[str, object]:
    """What a condition may read of the record and the request."""
    asked = record.asked
    return {
        **record.asking.of_request(),
        "record.authors": asked.authors,
        "record.codes": [codes.plain(each) for each in asked.codes],
        "record.date": None if asked.date is None else asked.date.start,
        "record.labels": [codes.plain(each) for each in asked.labels],
        "record.reference": asked.reference,
        "record.related": asked.related,
        "record.type": asked.type,
    }


_SETS: Final[Mapping[str, Callable[[_Record], Any]]] = {
    "authors": lambda record: standing(record.asked.authors, (), record.asking.request.directory or _NOBODY),
    "codes": lambda record: codes.asked(record.asked.codes),
    "itself": lambda record: asked_references((record.asked.reference,)),
    "labels": lambda record: codes.asked(codes.label_marks(record.asked.labels)),
    "readable": _readable,
    "referred_by": lambda record: asked_references(record.referring),
    "refers_to": lambda record: asked_references(record.asked.related),
    "types": lambda record: codes.asked((record.asked.type, *record.asked.codes)),
}


# ── matching ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _suits(rule: _Rule, asking: _Asking) -> bool:
    """Whether a rule's elements match all that is asked but the records."""
    if rule.purposes is not None and rule.purposes.isdisjoint(asking.purpose_names):
        return False
    if rule.recipients is not None:
        if rule.recipients.isdisjoint(asking.who) and (rule.permit or not _may_be(rule.actors, asking)):
            return False
    elif rule.actors and not any(_is_actor(actor, asking, rule.permit) for actor in rule.actors):
        return False
    if rule.action_names is not None and rule.action_names.isdisjoint(asking.actions):
        return False
    if rule.condition is None or rule.condition_of_record:
        return True
    answer = rule.condition(asking.of_request(), ())
    return answer is True or (answer is None and not rule.permit)


def _is_actor(actor: Actor, asking: _Asking, permit: bool) -> bool:
    named = actor.reference is not None or actor.identifier is not None
    if actor.roles and codes.named(actor.roles).isdisjoint(asking.requester_roles):
        untold = named and not permit and not asking.requester_roles
        if not untold:
            return False
    if not named:
        return True
    return not _recipient(actor).isdisjoint(asking.who) or (not permit and _may_be((actor,), asking))


def _may_be(actors: Sequence[Actor], asking: _Asking) -> bool:
    """Whether one of the recipients named could be the asker for all that is known."""
    request = asking.request
    for actor in actors:
        if actor.reference is not None:
            if not resolvable(actor.reference, request):
                return True
        elif not any(name.startswith("=") for name in asking.who):
            return True
    return False


def _concerns(rule: _Rule, record: _Record) -> bool:
    """Whether a rule's elements match a record."""
    for test in rule.record_tests:
        if not test(record):
            return False
    if not rule.condition_of_record or rule.condition is None:
        return True
    answer = rule.condition(record.readable, ())
    return answer is True or (answer is None and not rule.permit)


class _Residual(NamedTuple):
    """What is left of a rule once the request is known: it depends on the record."""

    rule: _Rule
    suits: bool
    additions: tuple[bool | _Residual, ...]
    exceptions: tuple[bool | _Residual, ...]


_Left = bool | _Residual | None
"""Permit, deny, what depends on the record, or nothing."""


def _reduce(rule: _Rule, asking: _Asking, may_permit: bool) -> _Left:
    """Where nothing may be permitted, no exception takes anything out of a denial."""
    if not rule.from_ms <= asking.now < rule.until_ms:
        return None
    suits = _suits(rule, asking)
    additions: tuple[bool | _Residual, ...] = ()
    exceptions: tuple[bool | _Residual, ...] = ()
    if rule.additions:
        additions = tuple(left for each in rule.additions if (left := _reduce(each, asking, may_permit)) is not None)
    if suits and rule.exceptions and (may_permit or rule.permit):
        exceptions = tuple(left for each in rule.exceptions if (left := _reduce(each, asking, may_permit)) is not None)
    if not additions and not exceptions:
        if not suits:
            return None
        return _Residual(rule, True, (), ()) if rule.is_of_records else rule.permit
    if any(not isinstance(each, bool) for each in (*additions, *exceptions)) or (suits and rule.is_of_records):
        return _Residual(rule, suits, additions, exceptions)
    return False not in additions and False not in exceptions


def _judge(left: _Left, record: _Record) -> bool | None:
    """Permit, deny or nothing, for one record."""
    if left is None or isinstance(left, bool):
        return left
    matched = left.suits and _concerns(left.rule, record)
    answers = [_judge(each, record) for each in left.additions]
    if matched:
        answers += [_judge(each, record) for each in left.exceptions]
    if False in answers:
        return False
    if True in answers:
        return True
    return left.rule.permit if matched else None


# ── combining ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Voice(NamedTuple):
    """A consent that says something on this request; its permits count only where it is verified and the purpose may
    be claimed."""

    held: _Held
    left: bool | _Residual
    may_permit: bool


def _later(one: Span | None, other: Span | None) -> bool:
    """Whether one date is surely after another."""
    return one is not None and other is not None and (one.start or 0) >= (other.end or 0)


def _stands(voice: _Voice, answer: bool, others: Iterable[_Voice]) -> bool:
    """Whether no other consent that says something is newer. Undated, a permit yields to any dated one and a denial to
    none."""
    written = voice.held.written
    if written is None:
        return not answer or all(other.held.written is None for other in others)
    return not any(_later(other.held.written, written) for other in others)


def _hear(voices: Sequence[_Voice], record: _Record | None, newest: bool) -> list[tuple[_Voice, bool]]:
    """The consents that decide on a record, with what each says."""
    said = []
    for voice in voices:
        answer = voice.left if record is None else _judge(voice.left, record)
        if answer is True and not voice.may_permit:
            continue
        if isinstance(answer, bool):
            said.append((voice, answer))
    if newest and len(said) > 1:
        speaking = [voice for voice, _ in said]
        said = [(voice, answer) for voice, answer in said if _stands(voice, answer, speaking)]
    return said


@dataclass(slots=True)
class _Ground:
    """What the consents say for one purpose."""

    voices: list[_Voice]
    permits: list[Obligation]
    forbids: list[Obligation]


class _Finding(NamedTuple):
    """What becomes of a record, or of the request where none is asked for: permit, deny, uncovered, nothing."""

    kind: str
    reason: str
    basis: tuple[Basis, ...]


_NOTHING: Final = _Finding("nothing", "consent.none", ())
_WORST: Final = ("deny", "uncovered", "nothing", "permit")


def _find(ground: _Ground, record: _Record | None, newest: bool) -> _Finding:
    said = _hear(ground.voices, record, newest)
    denying = tuple(voice.held for voice, answer in said if not answer)
    if denying:
        unread = all(held.unreadable for held in denying)
        basis = tuple(held.basis for held in denying)
        return _Finding("deny", "consent.unreadable" if unread else "consent.deny", basis)
    if said:
        return _Finding("permit", "consent.permit", tuple(voice.held.basis for voice, _ in said))
    if not ground.permits:
        return _NOTHING
    permitting = tuple(voice.held.basis for voice in ground.voices if voice.may_permit)
    if record is None:
        return _Finding("permit", "consent.permit", permitting)
    return _Finding("uncovered", "consent.not_covered", permitting)


# ── obligations ─────────────────────────────────────────────────────────────────────────────────────────────────────


_EVERYTHING: Final = Obligation("permit")
_NOTHING_LEAVES: Final = Obligation("forbid")


def _regions(left: bool | _Residual) -> tuple[list[Obligation], list[Obligation]]:
    """The records a consent permits and those it forbids; what is in both is forbidden."""
    if isinstance(left, bool):
        return ([_EVERYTHING], []) if left else ([], [_NOTHING_LEAVES])
    rule = left.rule
    permits: list[Obligation] = []
    forbids: list[Obligation] = []
    taken_out: list[Obligation] = []
    for each in left.additions:
        more, less = _regions(each)
        permits += more
        forbids += less
        taken_out += _less(more, less)
    for each in left.exceptions:
        more, less = ([_narrow(one, rule) for one in part] for part in _regions(each))
        forbids += less
        if not rule.permit:
            permits += more
            taken_out += _less(more, less)
    if left.suits and rule.permit:
        permits.append(rule.region)
    elif left.suits:
        forbids.append(replace(rule.region, unless=tuple(taken_out)) if taken_out else rule.region)
    return permits, forbids


def _less(permits: list[Obligation], forbids: list[Obligation]) -> list[Obligation]:
    """What is permitted and not forbidden, as it is taken out of a denial."""
    return [Obligation(one.effect, one.narrowings, (*one.unless, *forbids)) for one in permits]


def _narrow(one: Obligation, above: _Rule) -> Obligation:
    """An exception holds only where the rule of the other effect above it matches."""
    if not above.narrowings:
        return one
    return Obligation(one.effect, (*_crossed(above.region), *one.narrowings), one.unless)


def _crossed(region: Obligation) -> tuple[Narrowing, ...]:
    """Its narrowings inside an obligation of the other effect, where they reach as far as they did."""
    return tuple(
        each._replace(like=region.effect) if each.by in ("label", "period", "condition") and not each.like else each
        for each in region.narrowings
    )


def _filters(voices: Sequence[_Voice], newest: bool) -> tuple[list[Obligation], list[Obligation]]:
    """All that is permitted and all that is forbidden; of a consent, what a newer one speaks of is taken out."""
    parts = []
    for voice in voices:
        more, less = _regions(voice.left)
        parts.append((voice, more if voice.may_permit else [], less))
    permits: list[Obligation] = []
    forbids: list[Obligation] = []
    for voice, more, less in parts:
        if not newest:
            permits += more
            forbids += less
            continue
        for kept, part, answer in ((permits, more, True), (forbids, less, False)):
            newer = [
                term
                for other, permitted, forbidden in parts
                if not _stands(voice, answer, (other,))
                for term in (*permitted, *forbidden)
            ]
            if not any(_is_total(term) for term in newer):
                kept += [Obligation(one.effect, one.narrowings, (*one.unless, *newer)) for one in part]
    return permits, forbids


def _is_total(term: Obligation) -> bool:
    return not term.narrowings and not term.unless


def _write_filters(grounds: Sequence[_Ground]) -> tuple[Obligation, ...]:
    """The obligations of a permit, without those that change nothing."""
    found: list[Obligation] = []
    for place, ground in enumerate(grounds):
        permits = [] if any(_is_total(term) for term in ground.permits) else ground.permits
        forbids = [
            term for term in ground.forbids if term.narrowings or not permits or set(term.unless) != set(permits)
        ]
        if len(permits) == 1:
            forbids = [_within(term, _crossed(permits[0])) for term in forbids]
        if permits and place:  # a record must be permitted for each purpose
            forbids.append(Obligation("forbid", (), tuple(permits)))
            permits = []
        found += [*permits, *forbids]
    return tuple(dict.fromkeys(found))


def _within(forbid: Obligation, permitted: tuple[Narrowing, ...]) -> Obligation:
    """Without saying again what the only permit says."""
    length = len(permitted)
    if forbid.narrowings[:length] != permitted or len(forbid.narrowings) == length:
        return forbid
    return replace(forbid, narrowings=forbid.narrowings[length:])


# ── deciding ────────────────────────────────────────────────────────────────────────────────────────────────────────


def decide(policies: Policies, request: Request, site: Site) -> Decision:
    """Judges one request.

    Returns:
        The decision: with `no_consent`, `access` says what the site's policy gives. Its obligations hold for records
        that were not asked for by name as well; `records` applies them to those that were.
    """
    asking = _Asking(request)
    group = policies.of(asking)
    newest = site.combining == "most_recent"
    grounds = [_ground(group, asking, purpose, newest) for purpose in request.purposes]
    records = _records(request, asking)
    findings = [_worst(grounds, record, newest) for record in records or (None,)]
    kinds = {finding.kind for finding in findings}
    overriding = _overrides(request)
    expires = _expires(group, request)
    refused = kinds & {"deny", "uncovered"}
    if overriding and refused:
        return _overridden(request, findings, expires)
    if "permit" in kinds:
        return _permitted(grounds, records, findings, expires)
    if "nothing" in kinds:
        access, reason = _site_gives(site, request, overriding)
        if access or not refused:
            return _unruled(grounds, records, findings, access, reason, expires)
    verdicts = _verdicts(records, [(False, finding.reason) for finding in findings])
    first = next(finding for finding in findings if finding.kind in refused)
    return Decision("deny", first.reason, _basis(findings), (), expires, False, verdicts)


def _ground(group: _Group, asking: _Asking, purpose: str, newest: bool) -> _Ground:
    asking.purpose_names, break_glass, research = codes.asked_purpose(purpose)
    claimed = not break_glass or _may_claim_break_glass(asking.request)
    voices = []
    constant = True
    for each in group.speaking_of(purpose, asking.purpose_names):
        if each.for_research and not research:
            continue
        may_permit = claimed and each.verified
        left = _reduce(each.rule, asking, may_permit)
        if left is None:
            continue
        voices.append(_Voice(each, left, may_permit))
        constant = constant and isinstance(left, bool)
    if constant:  # no filters to be worked out
        said = _hear(voices, None, newest)
        permits = [_EVERYTHING] if any(answer for _, answer in said) else []
        return _Ground(voices, permits, [])
    return _Ground(voices, *_filters(voices, newest))


def _may_claim_break_glass(request: Request) -> bool:
    """Named by a consent, break-glass is a purpose like others, unless one is barred from it or one's time is up."""
    declared = request.break_glass
    if request.requester.break_glass is False:
        return False
    return declared is None or (bool(declared.reason) and request.time_ms < declared.until_ms)


def _overrides(request: Request) -> bool:
    """Whether the glass is broken: by who may, for a stated reason, within the time named."""
    declared = request.break_glass
    return (
        declared is not None
        and request.requester.break_glass is True
        and bool(declared.reason)
        and request.time_ms < declared.until_ms
        and any(codes.asked_purpose(purpose).break_glass for purpose in request.purposes)
    )


def _records(request: Request, asking: _Asking) -> list[_Record]:
    if len(request.records) == 1:
        return [_Record(request.records[0], asking, ())]
    referring: dict[str, list[str]] = {}
    for record in request.records:
        for reference in record.related:
            referring.setdefault(reference, []).append(record.reference)
    return [_Record(record, asking, referring.get(record.reference, ())) for record in request.records]


def _worst(grounds: Sequence[_Ground], record: _Record | None, newest: bool) -> _Finding:
    """A record leaves only when every purpose it is asked for admits it."""
    if record is None:
        found = [_find_without_records(ground, newest) for ground in grounds]
    else:
        found = [_find(ground, record, newest) for ground in grounds]
    if len(found) == 1:
        return found[0]
    return min(found, key=lambda finding: _WORST.index(finding.kind))


def _find_without_records(ground: _Ground, newest: bool) -> _Finding:
    total = [term for term in ground.forbids if _is_total(term)]
    if total:
        denying = tuple(voice.held for voice in ground.voices if not voice.left)
        unread = all(held.unreadable for held in denying)
        return _Finding(
            "deny", "consent.unreadable" if unread else "consent.deny", tuple(held.basis for held in denying)
        )
    return _find(ground, None, newest)


def _basis(findings: Iterable[_Finding]) -> tuple[Basis, ...]:
    return tuple(dict.fromkeys(basis for finding in findings for basis in finding.basis))


def _permitted(
    grounds: Sequence[_Ground], records: Sequence[_Record], findings: Sequence[_Finding], expires: int | None
) -> Decision:
    verdicts = _verdicts(records, [(finding.kind == "permit", finding.reason) for finding in findings])
    return Decision("permit", "consent.permit", _basis(findings), _write_filters(grounds), expires, True, verdicts)


def _overridden(request: Request, findings: Sequence[_Finding], expires: int | None) -> Decision:
    reason = "break_glass.override"
    verdicts = tuple(RecordDecision(record.reference, True, (), reason) for record in request.records)
    return Decision("permit", reason, _basis(findings), (), expires, True, verdicts)


def _unruled(
    grounds: Sequence[_Ground],
    records: Sequence[_Record],
    findings: Sequence[_Finding],
    access: bool,
    reason: str,
    expires: int | None,
) -> Decision:
    told = [
        (access, reason) if finding.kind == "nothing" else (False, finding.reason) for finding in findings
    ]  # fmt: skip
    filters = tuple(dict.fromkeys(term for ground in grounds for term in ground.forbids)) if access else ()
    return Decision("no_consent", reason, _basis(findings), filters, expires, access, _verdicts(records, told))


def _site_gives(site: Site, request: Request, overriding: bool) -> tuple[bool, str]:
    """What the site's policy gives where no consent speaks. Source: IHE PCF 53.2.1."""
    requester = request.requester
    glass = any(codes.asked_purpose(purpose).break_glass for purpose in request.purposes)
    if site.no_consent == "break_glass_only":
        access = overriding
    elif glass and not overriding:
        access = False
    elif site.no_consent == "permit_authorised":
        access = requester.authorised
    elif site.no_consent == "clinicians_only":
        access = requester.clinician and all(codes.is_under(each, codes.TREATMENT) for each in request.purposes)
    else:
        access = False
    return access, f"site.{site.no_consent}"


def _verdicts(records: Sequence[_Record], told: Sequence[tuple[bool, str]]) -> tuple[RecordDecision, ...]:
    """What becomes of each record; a reference to one that is withheld does not leave either."""
    if not records:
        return ()
    if len(records) == 1:
        ((release, reason),) = told
        return (RecordDecision(records[0].asked.reference, release, (), reason),)
    withheld = {record.asked.reference for record, (release, _) in zip(records, told, strict=True) if not release}
    return tuple(
        RecordDecision(
            record.asked.reference,
            release,
            _references_to(withheld, record.asked) if release else (),
            reason,
        )
        for record, (release, reason) in zip(records, told, strict=True)
    )


def _references_to(withheld: set[str], record: AskedRecord) -> tuple[str, ...]:
    return tuple(f"related[{place}]" for place, other in enumerate(record.related) if other in withheld)


def _expires(group: _Group, request: Request) -> int | None:
    """When the answer may be another: at the next edge of a period, or the end of an override."""
    now = request.time_ms
    if group.restless:
        return now
    next_edge = bisect_right(group.edges, now)
    soonest = group.edges[next_edge] if next_edge < len(group.edges) else _EVER
    if request.break_glass is not None and request.break_glass.until_ms > now:
        soonest = min(soonest, request.break_glass.until_ms)
    return None if soonest == _EVER else soonest
