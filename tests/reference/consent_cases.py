"""Questions to the rules, drawn from a seed: few words, so that consents, requests and records often meet."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.reference.consent import HL7

Json = dict[str, Any]

PURPOSES = ("TREAT", "ETREAT", "BTG", "HPAYMT", "ELIGVER", "HRESCH", "CLINTRCH", "PATRQT", "FAMRQT", "HMARKT", "FooBar")
LABELS = ("N", "R", "V", "PSY", "ETH", "ETHUD", "SUD", "BH", "HIV", "SDV")
TYPES = ("Observation", "Condition", "MedicationStatement")
CODES = ("http://loinc.org|8480-6", "http://loinc.org|42828-4", "http://snomed.info/sct|5602001", "local")
ACTIONS = ("access", "disclose", "correct")
PEOPLE = ("Practitioner/a", "Practitioner/b", "http://far.example/fhir/Practitioner/c", "RelatedPerson/g", "Device/d")
BODIES = ("Organization/o1", "Organization/o2", "Group/g1", "Group/g2", "CareTeam/t")
RECORDS = ("Observation/1", "Observation/2", "Condition/3", "MedicationStatement/4")
THINGS = (*RECORDS, "Encounter/e1", "http://far.example/fhir/Encounter/e2", "CarePlan/p1")
PATIENTS = ("Patient/p", "Patient/q", "http://far.example/fhir/Patient/p")
ROLES = ("physician", "nurse")
DATES = (
    "2021",
    "2021-12-31",
    "2022-01",
    "2022-06-13",
    "2022-06-13T10:00:00Z",
    "2022-06-13T10:00:00.500Z",
    "2022-12-31",
)
NOWS = (
    "2022-06-13T10:00:00Z",
    "2022-12-31T23:59:59Z",
    "2023-01-01T00:00:00Z",
    "2022-06-13",
    "2021-12-31T12:00:00+02:00",
)
CONDITIONS = (
    "request.time < 1655114400000",
    "has(record.date) && record.date >= 1640995200000",
    "record.date >= 1640995200000 || requester.clinician",
    "record.labels.exists(l, l == 'PSY') && !requester.authorised",
    "'nurse' in requester.roles || requester.organization == 'Organization/o1'",
    "record.codes.all(c, c != 'local') && request.action in ['access', 'correct']",
    "'TREAT' in request.purposes && record.type != 'Condition'",
    "record.authors.exists(a, record.related.all(r, r != a)) || 9223372036854775807 - record.date > 0 - 1",
)
SYSTEM_OF = {"N": HL7[2], "R": HL7[2], "V": HL7[2]}


def coding(draw: Random, code: str, system: str | None) -> Json:
    if "|" in code:
        system, code = code.split("|")
    return {"code": code} if system is None or draw.random() < 0.2 else {"system": system, "code": code}


def some(draw: Random, values: tuple[str, ...], most: int = 2) -> list[str]:
    return draw.sample(values, draw.randint(1, most))


def purpose(draw: Random, code: str) -> Json:
    return coding(draw, code, "http://example.org/purposes" if code == "FooBar" else HL7[0])


def period(draw: Random) -> Json:
    start, end = sorted((draw.choice(DATES), draw.choice(DATES)))
    made = {"start": start, "end": end}
    if draw.random() < 0.6:
        del made[draw.choice(("start", "end"))]
    return made


def actor(draw: Random) -> Json:
    found = draw.random()
    if found < 0.15:
        return {"role": {"coding": [{"code": draw.choice(ROLES)}]}}
    role = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}]}
    if found < 0.25:
        return {"role": role, "reference": {"identifier": {"system": "http://ids", "value": draw.choice("12")}}}
    if found < 0.32:
        role = {"coding": [{"code": draw.choice(ROLES)}]}
    return {"role": role, "reference": {"reference": draw.choice((*PEOPLE, *BODIES))}}


def provision(draw: Random, depth: int) -> Json:
    made: Json = {"type": draw.choice(("permit", "deny"))}
    chance = 0.25

    def sometimes(share: float = 1.0) -> bool:
        return draw.random() < chance * share

    if sometimes(0.5):
        made["period"] = period(draw)
    if sometimes(1.4):
        made["purpose"] = [purpose(draw, each) for each in some(draw, PURPOSES)]
    if sometimes():
        made["actor"] = [actor(draw) for _ in range(draw.randint(1, 2))]
    if sometimes(0.4):
        made["action"] = [{"coding": [coding(draw, each, HL7[3])]} for each in some(draw, ACTIONS)]
    if sometimes():
        made["securityLabel"] = [coding(draw, each, SYSTEM_OF.get(each, HL7[1])) for each in some(draw, LABELS)]
    if sometimes(0.4):
        made["class"] = [coding(draw, each, HL7[4]) for each in some(draw, TYPES)]
    if sometimes(0.4):
        concepts = range(draw.randint(1, 2))
        made["code"] = [{"coding": [coding(draw, code, None) for code in some(draw, CODES)]} for _ in concepts]
    if sometimes(0.4):
        made["dataPeriod"] = period(draw)
    if sometimes(0.6):
        made["data"] = [
            {
                "meaning": draw.choice(("instance", "related", "dependents", "authoredby")),
                "reference": {"reference": draw.choice((*THINGS, *PEOPLE, *BODIES))},
            }
            for _ in range(draw.randint(1, 2))
        ]
    if sometimes(0.25):
        expression = {"language": "text/cel", "expression": draw.choice(CONDITIONS)}
        made["modifierExtension"] = [{"url": "urn:ehrfast:consent-condition", "valueExpression": expression}]
    if depth < 4 and draw.random() < 0.55 / depth:
        made["provision"] = [provision(draw, depth + 1) for _ in range(draw.randint(1, 2))]
    return made


def spoil(draw: Random, consent: Json) -> None:
    """Makes a consent that nobody can understand."""
    root = consent["provision"]
    kind = draw.randrange(9)
    if kind == 0:
        root["type"] = "perhaps"
    elif kind == 1:
        root.setdefault("provision", []).append({"securityLabel": [{"code": "R"}]})
    elif kind == 2:
        root["period"] = {"start": "13.6.2022"}
    elif kind == 3:
        root["modifierExtension"] = [{"url": "http://example.org/unless", "valueBoolean": True}]
    elif kind == 4:
        root["purpose"] = []
    elif kind == 5:
        consent["dateTime"] = "yesterday"
    elif kind == 6:
        root["except"] = []
    elif kind == 7:
        root["actor"] = [{"role": {"coding": [{"code": "CST"}]}, "reference": {"reference": "Practitioner/a"}}]
    else:
        del consent["patient"]


def consent(draw: Random, number: int) -> Json:
    made: Json = {
        "resourceType": "Consent",
        "id": f"c{number}",
        "status": "active" if draw.random() < 0.93 else draw.choice(("inactive", "draft", "entered-in-error")),
        "scope": {"coding": [{"code": draw.choices(("patient-privacy", "research", "treatment"), (18, 2, 1))[0]}]},
        "patient": {"reference": draw.choices(PATIENTS, (18, 1, 2))[0]},
        "provision": provision(draw, 1),
    }
    if draw.random() < 0.05:
        made["patient"] = {"identifier": {"system": "http://mrn", "value": draw.choice("78")}}
    if draw.random() < 0.9:
        made["dateTime"] = draw.choice(DATES)
    if draw.random() < 0.15:
        made["policyRule"] = {"coding": [{"code": draw.choice(("OPTIN", "OPTOUT"))}]}
        if draw.random() < 0.6:
            del made["provision"]["type"]
    if draw.random() < 0.06:
        made["verification"] = [{"verified": draw.random() < 0.5}]
    if draw.random() < 0.05:
        spoil(draw, made)
    return made


def record(draw: Random, reference: str) -> Json:
    made: Json = {
        "reference": reference,
        "type": reference.split("/")[0],
        "codes": some(draw, CODES) if draw.random() < 0.6 else [],
        "labels": some(draw, LABELS, 3) if draw.random() < 0.7 else [],
        "author": some(draw, PEOPLE) if draw.random() < 0.6 else [],
        "related": some(draw, THINGS) if draw.random() < 0.5 else [],
    }
    if draw.random() < 0.8:
        made["date"] = draw.choice(DATES)
    return made


def request(draw: Random) -> Json:
    asker: Json = {"reference": draw.choice((*PEOPLE, "Organization/o1"))}
    if draw.random() < 0.4:
        asker["identifiers"] = [f"http://ids|{each}" for each in some(draw, ("1", "2", "3"))]
    if draw.random() < 0.5:
        asker["organization"] = draw.choice(BODIES[:2])
    if draw.random() < 0.5:
        asker["roles"] = some(draw, ROLES)
    for flag in ("authorised", "clinician", "break_glass"):
        if draw.random() < 0.6:
            asker[flag] = draw.random() < 0.6
    made: Json = {
        "patient": "Patient/p",
        "requester": asker,
        "purpose": some(draw, PURPOSES)
        if draw.random() < 0.1
        else [draw.choice(draw.choice((PURPOSES[:4], PURPOSES)))],
        "action": draw.choices(ACTIONS, (6, 1, 1))[0],
        "resources": [record(draw, each) for each in some(draw, RECORDS, 3)],
        "site": {
            "no_consent": draw.choice(("deny", "permit_authorised", "clinicians_only", "break_glass_only")),
            "combining": draw.choice(("deny_overrides", "most_recent")),
        },
    }
    if draw.random() < 0.2:
        made["purpose"] = [f"{HL7[0]}|{each}" if each != "FooBar" else each for each in made["purpose"]]
    if draw.random() < 0.25:
        made["break_glass"] = {
            "reason": draw.choice(("unconscious", "unconscious", " ")),
            "until": draw.choice(DATES[3:]),
        }
        if draw.random() < 0.7:
            made["purpose"], asker["break_glass"] = ["BTG"], draw.random() < 0.8
    if draw.random() < 0.5:
        made["directory"] = directory(draw)
    return made


def directory(draw: Random) -> Json:
    listed: Json = {"Patient/p": {"identifiers": ["http://mrn|7"]}} if draw.random() < 0.5 else {}
    for name in draw.sample((*PEOPLE, *BODIES), draw.randint(2, 9)):
        listed[name] = {"memberOf": some(draw, BODIES) if draw.random() < 0.5 else []}
        if draw.random() < 0.3:
            listed[name]["identifiers"] = [f"http://ids|{draw.choice('1234')}"]
    return listed


def case(seed: int) -> tuple[list[Json], Json, str]:
    """Consents, a request and the moment it is judged at."""
    draw = Random(seed)
    consents = [consent(draw, number) for number in range(draw.choice((0, 1, 1, 1, 2, 2, 3, 4)))]
    return consents, request(draw), draw.choice(NOWS)
