"""What consents say, slow and readable: FHIR's JSON as it is, one element, one provision, one record at a time.

Written from the text of FHIR R4 Consent, IHE Privacy Consent on FHIR and the project's rules for health data; it shares
nothing with `ehrfast.policy`. Three answers: True, False, and None where it cannot be known.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from typing import Any

import cel

Json = dict[str, Any]
Interval = tuple[datetime, datetime]

PARENTS = {
    "HPAYMT": "PurposeOfUse", "HOPERAT": "PurposeOfUse", "HRESCH": "PurposeOfUse", "PATRQT": "PurposeOfUse",
    "TREAT": "PurposeOfUse", "HMARKT": "PurposeOfUse", "PUBHLTH": "PurposeOfUse", "ETREAT": "TREAT", "COC": "TREAT",
    "BTG": "ETREAT", "ERTREAT": "ETREAT", "CLINTRCH": "HRESCH", "PRECLINTRCH": "CLINTRCH", "COVERAGE": "HPAYMT",
    "ELIGVER": "COVERAGE", "FAMRQT": "PATRQT", "PWATRNY": "PATRQT", "CAREMGT": "HOPERAT",
}  # fmt: skip
SENSITIVITIES = {"ETHUD": ["ETH", "SUD"], "OPIOIDUD": ["ETH", "SUD"], "SUD": ["BH"], "PSY": ["BH"], "BH": ["SPI"]}
ORDER = "ULMNRV"
HL7 = (
    "http://terminology.hl7.org/CodeSystem/v3-ActReason",
    "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
    "http://terminology.hl7.org/CodeSystem/consentaction",
    "http://hl7.org/fhir/resource-types",
)
RECIPIENT_ROLES = {"IRCP", "PRCP", "GRANTEE", "DELEGATEE"}
OTHER_ROLES = {"CST", "AUT", "GRANTOR", "WIT"}
PEOPLE = {"Practitioner", "PractitionerRole", "Patient", "RelatedPerson", "Device"}
PROVISION = {
    "id", "type", "period", "actor", "action", "securityLabel", "purpose", "class", "code", "dataPeriod", "data",
    "provision", "modifierExtension",
}  # fmt: skip
CONSENT = {"resourceType", "id", "meta", "status", "scope", "category", "patient", "dateTime", "policyRule", "policy"}
CONSENT |= {"provision", "verification", "identifier", "organization", "performer"}


class Malformed(Exception):
    """Nobody can say what this consent means."""


# ── dates ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def interval(text: Any) -> Interval:
    """From the first moment a date may mean to the first it may not."""
    if not isinstance(text, str):
        raise Malformed
    try:
        if len(text) == 4:
            return datetime(int(text), 1, 1, tzinfo=UTC), datetime(int(text) + 1, 1, 1, tzinfo=UTC)
        if len(text) == 7:
            year, month = int(text[:4]), int(text[5:])
            days = calendar.monthrange(year, month)[1]
            first = datetime(year, month, 1, tzinfo=UTC)
            return first, first + timedelta(days=days)
        if len(text) == 10:
            day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
            return day, day + timedelta(days=1)
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, calendar.IllegalMonthError):
        raise Malformed from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment, moment + (timedelta(milliseconds=1) if "." in text else timedelta(seconds=1))


def validity(period: Any) -> tuple[datetime | None, datetime | None]:
    """Start included, end excluded; a date as end lasts through that date."""
    if period is None:
        return None, None
    if not isinstance(period, dict) or not set(period) & {"start", "end"}:
        raise Malformed
    start = interval(period["start"])[0] if "start" in period else None
    end = None
    if "end" in period:
        first, last = interval(period["end"])
        end = first if "T" in period["end"] else last
    if start is not None and end is not None and end < start:
        raise Malformed
    return start, end


def in_force(period: Any, now: datetime) -> bool:
    start, end = validity(period)
    return (start is None or start <= now) and (end is None or now < end)


# ── codes and references ────────────────────────────────────────────────────────────────────────────────────────────


def parse_code(text: str) -> tuple[str | None, str]:
    system, bar, code = text.rpartition("|")
    return (system.rstrip("/") if bar else None), code


def parse_coding(coding: Any) -> tuple[str | None, str]:
    if not isinstance(coding, dict) or not isinstance(coding.get("code"), str):
        raise Malformed
    system = coding.get("system")
    return (system.rstrip("/") if system else None), coding["code"]


def same_system(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


def same(one: tuple[str | None, str], other: tuple[str | None, str]) -> bool:
    return one[1] == other[1] and same_system(one[0], other[0])


def purpose_covers(rule: tuple[str | None, str], asked: tuple[str | None, str], permit: bool) -> bool:
    if not same_system(rule[0], asked[0]):
        return False
    word = asked[1]
    if permit and word == "BTG":
        return rule[1] == "BTG"
    if rule[0] not in (None, HL7[0]):
        return rule[1] == word
    while word is not None:
        if word == rule[1]:
            return True
        word = PARENTS.get(word)
    return False


def label_covers(rule: tuple[str | None, str], label: tuple[str | None, str], permit: bool) -> bool:
    if not same_system(rule[0], label[0]):
        return False
    if rule[1] in ORDER and len(rule[1]) == 1:
        if label[1] not in ORDER or len(label[1]) != 1:
            return False
        place, other = ORDER.index(rule[1]), ORDER.index(label[1])
        return other <= place if permit else other >= place
    above = [label[1]]
    for word in above:
        above += SENSITIVITIES.get(word, [])
    return rule[1] in above


def labels_of(record: Json) -> list[tuple[str | None, str]]:
    labels = [parse_code(each) for each in record.get("labels", [])]
    levels = [each for each in labels if len(each[1]) == 1 and each[1] in ORDER]
    kept = [each for each in labels if each not in levels]
    return kept + ([(None, max((each[1] for each in levels), key=ORDER.index))] if levels else [])


def same_reference(one: str, other: str) -> bool:
    """A relative reference and an absolute one agree in type and id."""
    if ("://" in one) == ("://" in other):
        return one == other
    return one.split("/")[-2:] == other.split("/")[-2:]


def groups(start: list[str], identifiers: list[str], directory: Json) -> tuple[list[str], list[str]]:
    """All references and identifiers somebody stands for."""
    references, known = list(start), list(identifiers)
    references += [name for name, entry in directory.items() if set(entry.get("identifiers", [])) & set(identifiers)]
    for reference in references:
        for name, entry in directory.items():
            if same_reference(name, reference):
                known += entry.get("identifiers", [])
                references += [each for each in entry.get("memberOf", []) if each not in references]
    return references, known


# ── the elements of a provision ─────────────────────────────────────────────────────────────────────────────────────


class Case:
    """One question about one record for one purpose."""

    def __init__(self, request: Json, purpose: str, record: Json, now: datetime) -> None:
        self.request, self.purpose, self.record, self.now = request, parse_code(purpose), record, now
        self.directory = request.get("directory") or {}

    # each: True, False or None

    def by_purpose(self, codings: list[Json], permit: bool) -> bool | None:
        return any(purpose_covers(parse_coding(each), self.purpose, permit) for each in codings)

    def by_action(self, concepts: list[Json], permit: bool) -> bool | None:
        asked = parse_code(self.request.get("action", "access"))
        return any(same(parse_coding(each), asked) for concept in concepts for each in concept["coding"])

    def by_actor(self, actors: list[Json], permit: bool) -> bool | None:
        answers = [self.one_actor(actor) for actor in actors]
        return True if True in answers else None if None in answers else False

    def one_actor(self, actor: Json) -> bool | None:
        asker = self.request["requester"]
        roles = [parse_coding(each) for each in actor.get("role", {}).get("coding", [])]
        if roles and not {code for _, code in roles} & RECIPIENT_ROLES:
            held = [parse_code(each) for each in asker.get("roles", [])]
            if not any(same(one, other) for one in roles for other in held):
                if held or "reference" not in actor:
                    return False
                return None if self.one_actor({"reference": actor["reference"]}) is not False else False
            if "reference" not in actor:
                return True
        start = [asker["reference"], *([asker["organization"]] if asker.get("organization") else [])]
        references, identifiers = groups(start, asker.get("identifiers", []), self.directory)
        named = actor["reference"]
        if "reference" not in named:
            wanted = f"{named['identifier']['system']}|{named['identifier']['value']}"
            return True if wanted in identifiers else (False if identifiers else None)
        if any(same_reference(named["reference"], each) for each in references):
            return True
        return False if self.told_apart(named["reference"]) else None

    def told_apart(self, named: str) -> bool:
        if self.request.get("directory") is not None:
            entries = self.directory.values()
            listed = [*self.directory, *(each for entry in entries for each in entry.get("memberOf", []))]
            return any(same_reference(named, each) for each in listed)
        kind, own = named.split("/")[-2], self.request["requester"]["reference"].split("/")[-2]
        if kind in PEOPLE:
            return own in PEOPLE or own == "Organization"
        return kind == "Organization" and (own == "Organization" or bool(self.request["requester"].get("organization")))

    def by_class(self, codings: list[Json], permit: bool) -> bool | None:
        mine = [(None, self.record["type"]), *map(parse_code, self.record.get("codes", []))]
        return any(same(parse_coding(each), other) for each in codings for other in mine)

    def by_code(self, concepts: list[Json], permit: bool) -> bool | None:
        mine = [parse_code(each) for each in self.record.get("codes", [])]
        return any(
            same(parse_coding(each), other) for concept in concepts for each in concept["coding"] for other in mine
        )

    def by_label(self, codings: list[Json], permit: bool) -> bool | None:
        mine = labels_of(self.record)
        return any(label_covers(parse_coding(each), label, permit) for each in codings for label in mine)

    def by_data_period(self, period: Json, permit: bool) -> bool | None:
        start = interval(period["start"])[0] if "start" in period else datetime.min.replace(tzinfo=UTC)
        end = interval(period["end"])[1] if "end" in period else datetime.max.replace(tzinfo=UTC)
        if self.record.get("date") is None:
            return None
        first, last = interval(self.record["date"])
        if start <= first and last <= end:
            return True
        return None if start < last and first < end else False

    def by_data(self, data: list[Json], permit: bool) -> bool | None:
        return any(self.one_datum(each["meaning"], each["reference"]["reference"]) for each in data)

    def one_datum(self, meaning: str, named: str) -> bool:
        if meaning == "authoredby":
            authors, _ = groups(self.record.get("author", []), [], self.directory)
            return any(same_reference(named, each) for each in authors)
        if same_reference(named, self.record["reference"]):
            return True
        refers = any(same_reference(named, each) for each in self.record.get("related", []))
        if meaning == "dependents":
            return refers
        others = self.request.get("resources", [])
        referred = any(
            same_reference(named, other["reference"])
            and any(same_reference(self.record["reference"], each) for each in other.get("related", []))
            for other in others
        )
        return meaning == "related" and (refers or referred)

    def by_condition(self, extensions: list[Json], permit: bool) -> bool | None:
        def words(codes: list[str]) -> list[str]:
            return [code.rpartition("|")[2] if code.rpartition("|")[0] in HL7 else code for code in codes]

        asker, record = self.request["requester"], self.record
        told: Json = {
            "request": {
                "action": self.request.get("action", "access"),
                "break_glass": "break_glass" in self.request,
                "purposes": words(self.request["purpose"]),
                "time": round(self.now.timestamp() * 1000),
            },
            "requester": {
                "authorised": bool(asker.get("authorised")),
                "clinician": bool(asker.get("clinician")),
                "reference": asker["reference"],
                "roles": words(asker.get("roles", [])),
            },
            "record": {
                "authors": record.get("author", []),
                "codes": words(record.get("codes", [])),
                "labels": words(record.get("labels", [])),
                "reference": record["reference"],
                "related": record.get("related", []),
                "type": record["type"],
            },
        }
        if asker.get("organization"):
            told["requester"]["organization"] = asker["organization"]
        if record.get("date"):
            told["record"]["date"] = round(interval(record["date"])[0].timestamp() * 1000)
        try:
            return bool(cel.evaluate(extensions[0]["valueExpression"]["expression"], told))
        except Exception:  # what it rests on is not there
            return None


ELEMENTS = {
    "purpose": Case.by_purpose, "actor": Case.by_actor, "action": Case.by_action, "class": Case.by_class,
    "code": Case.by_code, "securityLabel": Case.by_label, "dataPeriod": Case.by_data_period, "data": Case.by_data,
    "modifierExtension": Case.by_condition,
}  # fmt: skip
OF_RECORDS = ("class", "code", "securityLabel", "dataPeriod", "data")


def matches(provision: Json, case: Case, permit: bool) -> bool:
    """All elements together; the unknown counts for a denial only."""
    for name, element in ELEMENTS.items():
        if name in provision:
            answer = element(case, provision[name], permit)
            if answer is False or (answer is None and permit):
                return False
    return True


def verdict(provision: Json, effect: str, case: Case, silenced: bool = False) -> str | None:
    """What a provision says of a record: permit, deny or nothing; silenced, no exception softens a denial."""
    if not in_force(provision.get("period"), case.now):
        return None
    matched = matches(provision, case, effect == "permit")
    heard = []
    for child in provision.get("provision", []):
        if child["type"] != effect:
            if matched and not (silenced and effect == "deny"):
                heard.append(verdict(child, child["type"], case, silenced))
        else:
            heard.append(verdict(filled(child, provision), effect, case, silenced))
    if "deny" in heard:
        return "deny"
    if "permit" in heard:
        return "permit"
    return effect if matched else None


def filled(addition: Json, above: Json) -> Json:
    """More of the same effect: where it is silent, the terms of the provision above hold."""
    made = dict(addition)
    for name in ("purpose", "actor", "action", "modifierExtension"):
        if name in above:
            made.setdefault(name, above[name])
    if not set(addition) & set(OF_RECORDS):
        made |= {name: above[name] for name in OF_RECORDS if name in above}
    return made


# ── a consent ───────────────────────────────────────────────────────────────────────────────────────────────────────


def base_effect(consent: Json) -> str:
    rule = {
        {"OPTIN": "permit", "OPTOUT": "deny"}[each["code"]]
        for each in consent.get("policyRule", {}).get("coding", [])
        if each.get("code") in ("OPTIN", "OPTOUT")
    }
    told = consent.get("provision", {}).get("type")
    if told is not None:
        rule.add(told)
    if len(rule) != 1 or not rule <= {"permit", "deny"}:
        raise Malformed
    return str(next(iter(rule)))


def check(provision: Any, root: bool) -> None:
    """Raises for whatever this reading has no words for."""
    if not isinstance(provision, dict) or set(provision) - PROVISION:
        raise Malformed
    if not root and provision.get("type") not in ("permit", "deny"):
        raise Malformed
    for name in ("purpose", "securityLabel", "class", "actor", "action", "code", "data", "provision"):
        if name in provision and not (isinstance(provision[name], list) and provision[name]):
            raise Malformed
    validity(provision.get("period"))
    if "dataPeriod" in provision:
        for each in provision["dataPeriod"].values():
            interval(each)
    for name in ("purpose", "securityLabel", "class"):
        for coding in provision.get(name, []):
            parse_coding(coding)
    for name in ("action", "code"):
        for concept in provision.get(name, []):
            if not concept.get("coding"):
                raise Malformed
    for actor in provision.get("actor", []):
        words = {each["code"] for each in actor.get("role", {}).get("coding", [])}
        literal = actor.get("reference", {}).get("reference") or actor.get("reference", {}).get("identifier")
        if words & OTHER_ROLES or (not literal and (not words or words & RECIPIENT_ROLES)):
            raise Malformed
    for extension in provision.get("modifierExtension", []):
        if extension.get("url") != "urn:ehrfast:consent-condition":
            raise Malformed
    for each in provision.get("provision", []):
        check(each, False)


def patient_of(consent: Json, request: Json) -> bool | None:
    """Whether it is this patient's."""
    patient = consent.get("patient")
    if not isinstance(patient, dict):
        return None
    if "reference" in patient:
        return same_reference(patient["reference"], request["patient"])
    known = (request.get("directory") or {}).get(request["patient"], {}).get("identifiers", [])
    if f"{patient['identifier']['system']}|{patient['identifier']['value']}" in known:
        return True
    return False if known else None


def scope_of(consent: Json) -> str:
    for coding in consent.get("scope", {}).get("coding", []):
        return str(coding["code"])
    return "patient-privacy"


def is_research(purpose: str) -> bool:
    system, word = parse_code(purpose)
    return purpose_covers((HL7[0], "HRESCH"), (system, word), False) or word not in (*PARENTS, "PurposeOfUse")


def standing(consent: Json, case: Case, purpose: str) -> str | None:
    """The base rule of a consent that rules on this request; `malformed`; or None where it does not rule."""
    if consent.get("status") in ("draft", "proposed", "rejected", "inactive", "entered-in-error"):
        return None
    if patient_of(consent, case.request) is False or scope_of(consent) in ("adr", "treatment"):
        return None
    try:
        if consent.get("status") != "active" or set(consent) - CONSENT or not isinstance(consent.get("patient"), dict):
            raise Malformed
        if "provision" in consent:
            check(consent["provision"], True)
        if "dateTime" in consent:
            interval(consent["dateTime"])
        effect = base_effect(consent)
    except Malformed:
        return "malformed" if may_be_in_force(consent, case.now) else None
    return None if scope_of(consent) == "research" and not is_research(purpose) else effect


def is_silenced(consent: Json, request: Json, purpose: str) -> bool:
    """Whether nothing it permits counts: nobody verified it, or the purpose may not be claimed."""
    unverified = "verification" in consent and not any(each["verified"] for each in consent["verification"])
    return unverified or not may_claim(request, purpose)


def heard(consent: Json, case: Case, purpose: str) -> str | None:
    """What one consent says of one record."""
    effect = standing(consent, case, purpose)
    if effect in (None, "malformed"):
        return effect and "deny"
    silenced = is_silenced(consent, case.request, purpose)
    said = verdict(consent.get("provision", {}), str(effect), case, silenced)
    return None if said == "permit" and silenced else said


def may_be_in_force(consent: Json, now: datetime) -> bool:
    provision = consent.get("provision")
    try:
        return in_force(provision.get("period"), now) if isinstance(provision, dict) else True
    except Malformed:
        return True


def written(consent: Json) -> Interval | None:
    try:
        return interval(consent["dateTime"]) if "dateTime" in consent else None
    except Malformed:
        return None


def speaking(request: Json, said: list[tuple[Json, str]]) -> list[tuple[Json, str]]:
    """Those that count: all of them, or of those that speak only the newest."""
    if request.get("site", {}).get("combining", "deny_overrides") == "deny_overrides":
        return said
    dates = [written(consent) for consent, _ in said]
    kept = []
    for consent, word in said:
        mine = written(consent)
        if mine is None:
            outdone = word == "permit" and any(date is not None for date in dates)
        else:
            outdone = any(date is not None and date[0] >= mine[1] for date in dates)
        if not outdone:
            kept.append((consent, word))
    return kept


# ── break-glass and the site ────────────────────────────────────────────────────────────────────────────────────────


def declared(request: Json, now: datetime) -> bool | None:
    """Whether break-glass was declared properly; None when nobody declared it."""
    told = request.get("break_glass")
    if told is None:
        return None
    first, last = interval(told["until"])
    return bool(told.get("reason", "").strip()) and now < (first if "T" in told["until"] else last)


def is_glass(purpose: str) -> bool:
    system, word = parse_code(purpose)
    return word == "BTG" and system in (None, HL7[0])


def may_claim(request: Json, purpose: str) -> bool:
    if not is_glass(purpose):
        return True
    now = datetime.fromisoformat(request["now"])
    return request["requester"].get("break_glass") is not False and declared(request, now) is not False


def broken(request: Json, now: datetime) -> bool:
    glass = any(map(is_glass, request["purpose"]))
    return glass and request["requester"].get("break_glass") is True and declared(request, now) is True


def site_gives(request: Json, now: datetime) -> bool:
    asker, policy = request["requester"], request.get("site", {}).get("no_consent", "deny")
    if policy == "break_glass_only":
        return broken(request, now)
    if any(map(is_glass, request["purpose"])) and not broken(request, now):
        return False
    if policy == "permit_authorised":
        return bool(asker.get("authorised"))
    if policy == "clinicians_only":
        treating = all(purpose_covers((HL7[0], "TREAT"), parse_code(each), False) for each in request["purpose"])
        return bool(asker.get("clinician")) and treating
    return False


# ── the whole ───────────────────────────────────────────────────────────────────────────────────────────────────────


def could_permit(policies: list[Json], request: Json, purpose: str, now: datetime) -> bool:
    """Whether some consent would let some record go for this purpose: then those it leaves out are kept back."""
    return any(permits_somewhere(consent, request, purpose, now) for consent in policies)


def permits_somewhere(consent: Json, request: Json, purpose: str, now: datetime) -> bool:
    anything = Case(request, purpose, {"reference": "Basic/any", "type": "Basic"}, now)
    effect = standing(consent, anything, purpose)
    if effect in (None, "malformed") or is_silenced(consent, request, purpose):
        return False
    return reaches_permit(consent.get("provision", {}), str(effect), anything)


def bare(provision: Json) -> Json:
    """Without whatever speaks of records, as if there were one that suited."""
    made = {name: value for name, value in provision.items() if name not in OF_RECORDS}
    extension = made.get("modifierExtension")
    if extension and "record." in extension[0].get("valueExpression", {}).get("expression", ""):
        del made["modifierExtension"]
    if "provision" in made and isinstance(made["provision"], list):
        made["provision"] = [bare(each) if isinstance(each, dict) else each for each in made["provision"]]
    return made


def speaks_of_records(provision: Json) -> bool:
    conditions = [each["valueExpression"]["expression"] for each in provision.get("modifierExtension", [])]
    return bool(set(provision) & set(OF_RECORDS)) or any("record." in text for text in conditions)


def always(provision: Json, effect: str, case: Case) -> str | None:
    """What a provision says of every record alike: permit, deny, nothing, or that it varies."""
    if not in_force(provision.get("period"), case.now):
        return None
    suits = matches(bare(provision), case, effect == "permit")
    below = []
    for child in provision.get("provision", []):
        if child["type"] == effect:
            below.append(always(filled(child, provision), effect, case))
        elif suits:
            below.append(always(child, child["type"], case))
    if "varies" in below or (suits and speaks_of_records(provision)):
        return "varies"
    if "deny" in below or "permit" in below:
        return "deny" if "deny" in below else "permit"
    return effect if suits else None


def reaches_permit(provision: Json, effect: str, case: Case) -> bool:
    if always(provision, effect, case) != "varies":
        return always(provision, effect, case) == "permit"
    suits = matches(bare(provision), case, effect == "permit")
    if suits and effect == "permit":
        return True
    for child in provision.get("provision", []):
        if child["type"] == effect:
            if reaches_permit(filled(child, provision), effect, case):
                return True
        elif suits and reaches_permit(child, child["type"], case):
            return True
    return False


KINDS = ("deny", "uncovered", "nothing", "permit")
"""From the worst: a record leaves only when every purpose admits it."""


def judge(policies: list[Json], request: Json, now_text: str) -> Json:
    """The answer, for a request with records."""
    now = interval(now_text)[0]
    request = {**request, "now": now.isoformat()}
    kinds: list[str] = []
    for record in request["resources"]:
        worst = len(KINDS) - 1
        for purpose in request["purpose"]:
            case = Case(request, purpose, record, now)
            said = [(consent, word) for consent in policies if (word := heard(consent, case, purpose)) is not None]
            counted = speaking(request, said)
            words = [word for _, word in counted]
            if "deny" in words:
                kind = "deny"
            elif "permit" in words:
                kind = "permit"
            elif could_permit(policies, request, purpose, now):
                kind = "uncovered"
            else:
                kind = "nothing"
            worst = min(worst, KINDS.index(kind))
        kinds.append(KINDS[worst])
    refused = {"deny", "uncovered"} & set(kinds)
    if broken(request, now) and refused:
        decision, released = "permit", [True] * len(kinds)
    elif "permit" in kinds:
        decision, released = "permit", [kind == "permit" for kind in kinds]
    elif "nothing" in kinds and (site_gives(request, now) or not refused):
        decision, released = "no_consent", [kind == "nothing" and site_gives(request, now) for kind in kinds]
    else:
        decision, released = "deny", [False] * len(kinds)
    return {"decision": decision, "access": any(released), "released": released}


def redactions(request: Json, released: list[bool]) -> list[list[str]]:
    """References to records that are kept back."""
    hidden = {record["reference"] for record, leaves in zip(request["resources"], released, strict=True) if not leaves}
    return [
        [f"related[{place}]" for place, other in enumerate(record.get("related", [])) if leaves and other in hidden]
        for record, leaves in zip(request["resources"], released, strict=True)
    ]
