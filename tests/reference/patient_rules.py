"""Owns what must hold in the Bundle of one patient, said slowly: FHIR R4 rules, dates, arithmetic, clinical sense.

Knows nothing of how the Bundle was made; every check reads parsed JSON alone and raises AssertionError.
Sources: FHIR R4 (4.0.1) resource pages and value sets; KDIGO 2012; CKD-EPI 2021; ADA criteria as far as used.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Any

Json = dict[str, Any]

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?")

# Elements of R4 with a minimum of one, and those our own readers count on; a tuple asks for one of several.
MANDATORY: dict[str, tuple[str | tuple[str, ...], ...]] = {
    "Organization": ("name", "identifier"),
    "Practitioner": ("name", "identifier"),
    "Patient": ("identifier", "name", "gender", "birthDate", "telecom", "address", "managingOrganization"),
    "Encounter": ("status", "class", "subject", "period", "type", "participant", "serviceProvider"),
    "Observation": ("status", "code", "category", "subject", "effectiveDateTime",
                    ("valueQuantity", "valueCodeableConcept", "component")),
    "DiagnosticReport": ("status", "code", "category", "subject", "effectiveDateTime", "result"),
    "Condition": ("subject", "clinicalStatus", "verificationStatus", "code", "onsetDateTime", "recordedDate"),
    "MedicationRequest": ("status", "intent", "medicationCodeableConcept", "subject", "authoredOn", "reasonReference"),
    "AllergyIntolerance": ("patient", "clinicalStatus", "verificationStatus", "code", "recordedDate"),
    "Immunization": ("status", "vaccineCode", "patient", "occurrenceDateTime"),
    "Procedure": ("status", "subject", "code", "performedPeriod"),
    "DocumentReference": ("status", "content", "type", "subject", "date"),
    "Coverage": ("status", "beneficiary", "payor", "period"),
    "Claim": ("status", "type", "use", "patient", "created", "provider", "priority", "insurance", "item", "total"),
    "ExplanationOfBenefit": ("status", "type", "use", "patient", "created", "insurer", "provider", "outcome",
                             "insurance", "item", "total", "payment"),
}  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STATUS: dict[str, frozenset[str]] = {
    "Encounter": _words("planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown"),
    "Observation": _words("registered preliminary final amended corrected cancelled entered-in-error unknown"),
    "DiagnosticReport": _words(
        "registered partial preliminary final amended corrected appended cancelled entered-in-error unknown"
    ),
    "MedicationRequest": _words("active on-hold cancelled completed entered-in-error stopped draft unknown"),
    "Immunization": _words("completed entered-in-error not-done"),
    "Procedure": _words("preparation in-progress not-done on-hold stopped completed entered-in-error unknown"),
    "DocumentReference": _words("current superseded entered-in-error"),
    "Coverage": _words("active cancelled draft entered-in-error"),
    "Claim": _words("active cancelled draft entered-in-error"),
    "ExplanationOfBenefit": _words("active cancelled draft entered-in-error"),
}

# Element paths of closed code lists (required bindings of R4, and code systems those elements are bound to).
CODES: dict[str, dict[str, frozenset[str]]] = {
    "Patient": {"gender": _words("male female other unknown")},
    "Practitioner": {"gender": _words("male female other unknown")},
    "Condition": {
        "clinicalStatus.coding.code": _words("active recurrence relapse inactive remission resolved"),
        "verificationStatus.coding.code": _words(
            "unconfirmed provisional differential confirmed refuted entered-in-error"
        ),
    },
    "AllergyIntolerance": {
        "type": frozenset({"allergy", "intolerance"}),
        "category": _words("food medication environment biologic"),
        "criticality": _words("low high unable-to-assess"),
        "clinicalStatus.coding.code": _words("active inactive resolved"),
    },
    "MedicationRequest": {
        "intent": _words("proposal plan order original-order reflex-order filler-order instance-order option")
    },
    "DocumentReference": {"docStatus": _words("preliminary final amended entered-in-error")},
    "Claim": {
        "use": _words("claim preauthorization predetermination"),
        "type.coding.code": _words("institutional oral pharmacy professional vision"),
    },
    "ExplanationOfBenefit": {
        "use": _words("claim preauthorization predetermination"),
        "outcome": _words("queued complete error partial"),
    },
}

SUBJECT = {"AllergyIntolerance": "patient", "Immunization": "patient", "Claim": "patient",
           "ExplanationOfBenefit": "patient", "Coverage": "beneficiary"}  # fmt: skip
SHARED = frozenset({"Organization", "Practitioner"})


def parse(bundle: bytes) -> Json:
    """The Bundle with its decimals exact; a name twice in one object is refused."""

    def pairs(members: list[tuple[str, Any]]) -> Json:
        assert len({name for name, _ in members}) == len(members), "a name occurs twice in one object"
        return dict(members)

    parsed: Json = json.loads(bundle.decode("utf-8"), parse_float=Decimal, object_pairs_hook=pairs)
    return parsed


def resources(bundle: Json, kind: str | None = None) -> list[Json]:
    """The resources of a Bundle, of one type if asked."""
    found = [entry["resource"] for entry in bundle["entry"]]
    return [resource for resource in found if kind is None or resource["resourceType"] == kind]


def patient_of(bundle: Json) -> Json:
    [patient] = resources(bundle, "Patient")
    return patient


def at(node: Any, path: str) -> list[Any]:
    """Everything a dotted path leads to, through arrays."""
    nodes = [node]
    for name in path.split("."):
        nodes = [child[name] for child in nodes if name in child]
        nodes = [item for child in nodes for item in (child if isinstance(child, list) else [child])]
    return nodes


def leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar with the name it stands under; no object and no array may be empty (R4 JSON)."""
    if isinstance(node, dict):
        assert node, f"{name} is an empty object"
        for key, child in node.items():
            yield from leaves(child, key)
    elif isinstance(node, list):
        assert node, f"{name} is an empty array"
        for child in node:
            yield from leaves(child, name)
    else:
        assert node is not None, f"{name} is null"
        assert node != "", f"{name} is an empty string"
        yield name, node


def code_of(resource: Json, element: str = "code") -> str:
    code: str = resource[element]["coding"][0]["code"]
    return code


def day(text: str) -> date:
    return date.fromisoformat(text[:10])


def check_bundle(bundle: Json) -> None:
    """Entries of a transaction as R4 wants them, each id good, unique, and the one of its full URL."""
    assert bundle["resourceType"] == "Bundle"
    assert bundle["type"] == "transaction"
    seen = set()
    for entry in bundle["entry"]:
        resource = entry["resource"]
        assert ID.fullmatch(resource["id"])
        assert UUID.fullmatch(resource["id"])
        assert entry["fullUrl"] == "urn:uuid:" + resource["id"]
        assert entry["fullUrl"] not in seen
        seen.add(entry["fullUrl"])
        assert entry["request"]["method"] == "POST"
        assert entry["request"]["url"] == resource["resourceType"]
        assert ("ifNoneExist" in entry["request"]) == (resource["resourceType"] in SHARED)


def check_elements(bundle: Json) -> None:
    """Mandatory elements, closed code lists, and the R4 invariants con-3, con-4, con-5, obs-7."""
    for resource in resources(bundle):
        kind = resource["resourceType"]
        for wanted in MANDATORY[kind]:
            alternatives = (wanted,) if isinstance(wanted, str) else wanted
            assert sum(name in resource for name in alternatives) == 1, f"{kind} lacks {wanted}"
        if kind in STATUS:
            assert resource["status"] in STATUS[kind]
        for path, allowed in CODES.get(kind, {}).items():
            found = at(resource, path)
            assert found, f"{kind} lacks {path}"
            assert allowed.issuperset(found), f"{kind}.{path} holds {found}"
        for coding in at(resource, "code.coding"):
            assert coding["system"].startswith("http")
            assert coding["code"]
            assert coding["display"]
        if kind == "Condition":
            state = code_of(resource, "clinicalStatus")
            assert ("abatementDateTime" in resource) == (state in {"inactive", "resolved", "remission"})
        for name, _ in leaves(resource):
            assert name


def check_references(bundle: Json) -> None:
    """Every reference leads to an entry; every clinical resource is this patient's; encounters belong together."""
    by_url = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    patient = "urn:uuid:" + patient_of(bundle)["id"]
    for resource in resources(bundle):
        for name, value in leaves(resource):
            if name == "reference":
                assert value in by_url, f"{resource['resourceType']} refers to nothing"
        kind = resource["resourceType"]
        if kind not in SHARED | {"Patient"}:
            assert resource[SUBJECT.get(kind, "subject")]["reference"] == patient
        for encounter in at(resource, "encounter.reference"):
            assert by_url[encounter]["resourceType"] == "Encounter"
    expected = {
        "DiagnosticReport": ("result", "Observation"), "MedicationRequest": ("reasonReference", "Condition"),
        "Coverage": ("payor", "Organization"), "Claim": ("insurance.coverage", "Coverage"),
        "ExplanationOfBenefit": ("claim", "Claim"), "Encounter": ("serviceProvider", "Organization"),
    }  # fmt: skip
    for kind, (path, target) in expected.items():
        for resource in resources(bundle, kind):
            assert {by_url[node["reference"]]["resourceType"] for node in at(resource, path)} == {target}
    for report in resources(bundle, "DiagnosticReport"):
        for node in report["result"]:
            assert by_url[node["reference"]]["encounter"] == report["encounter"]
            assert by_url[node["reference"]]["effectiveDateTime"] == report["effectiveDateTime"]


def check_dates(bundle: Json, last: date) -> None:
    """Nothing before birth, nothing after death or `last`; what belongs to a visit is dated within it."""
    patient = patient_of(bundle)
    birth = day(patient["birthDate"])
    death = day(patient["deceasedDateTime"]) if "deceasedDateTime" in patient else None
    assert death is None or birth < death <= last
    visits = {"urn:uuid:" + visit["id"]: visit["period"] for visit in resources(bundle, "Encounter")}
    for resource in resources(bundle):
        kind = resource["resourceType"]
        if kind in SHARED | {"Patient"}:
            continue
        dates = [value for _, value in leaves(resource) if isinstance(value, str) and DATE_TIME.fullmatch(value)]
        assert dates, f"{kind} has no date"
        for value in dates:
            assert day(value) >= birth
            if kind != "Coverage":
                assert day(value) <= last
                assert death is None or day(value) < death
        for name in ("period", "performedPeriod", "billablePeriod"):
            if name in resource:
                assert resource[name]["start"] <= resource[name]["end"]
        if kind in {"Observation", "DiagnosticReport", "Immunization", "Procedure", "MedicationRequest"}:
            visit = visits[resource["encounter"]["reference"]]
            for value in dates:
                assert visit["start"] <= value <= visit["end"]
        if kind == "Condition":
            assert resource["onsetDateTime"][:10] <= resource["recordedDate"][:10]
            if "abatementDateTime" in resource:
                assert resource["recordedDate"][:10] <= resource["abatementDateTime"]
    starts = [visit["start"] for visit in visits.values()]
    assert starts == sorted(starts)
    assert len({start[:10] for start in starts}) == len(starts), "two visits on one day"


def _quantities(bundle: Json) -> dict[str, dict[str, Decimal]]:
    """Values by encounter and code."""
    values: dict[str, dict[str, Decimal]] = defaultdict(dict)
    for observation in resources(bundle, "Observation"):
        encounter = observation["encounter"]["reference"]
        for part in (observation, *observation.get("component", ())):
            if "valueQuantity" in part:
                assert part["valueQuantity"]["system"] == "http://unitsofmeasure.org"
                assert code_of(part) not in values[encounter], "one visit measures a thing twice"
                values[encounter][code_of(part)] = Decimal(part["valueQuantity"]["value"])
    return values


def check_measures(bundle: Json) -> None:
    """BMI, LDL, eGFR and interpretations agree with what they are worked out from."""
    patient = patient_of(bundle)
    born = day(patient["birthDate"])
    dates = {"urn:uuid:" + visit["id"]: day(visit["period"]["start"]) for visit in resources(bundle, "Encounter")}
    for encounter, values in _quantities(bundle).items():
        if "39156-5" in values:
            metres = values["8302-2"] / 100
            exact = values["29463-7"] / (metres * metres)
            assert values["39156-5"] == exact.quantize(Decimal("0.1"), ROUND_HALF_UP)
        if "8480-6" in values:
            assert 30 < values["8462-4"] < values["8480-6"] < 220
        if "13457-7" in values:
            assert values["13457-7"] == values["2093-3"] - values["2085-9"] - values["2571-8"] / 5
        if "98979-8" in values:
            on = dates[encounter]
            years = on.year - born.year - ((on.month, on.day) < (born.month, born.day))
            female = patient["gender"] == "female"
            ratio = float(values["2160-0"]) / (0.7 if female else 0.9)
            rate = 142 * min(ratio, 1) ** (-0.241 if female else -0.302) * max(ratio, 1) ** -1.2 * 0.9938**years
            assert abs(float(values["98979-8"]) - rate * (1.012 if female else 1)) <= 0.5001
    for observation in resources(bundle, "Observation"):
        for interval in observation.get("referenceRange", ()):
            value = observation["valueQuantity"]["value"]
            low = "low" in interval and value < interval["low"]["value"]
            high = "high" in interval and value > interval["high"]["value"]
            assert code_of({"code": observation["interpretation"][0]}) == ("L" if low else "H" if high else "N")


def _series(bundle: Json, code: str) -> list[tuple[date, Decimal]]:
    dates = {"urn:uuid:" + visit["id"]: day(visit["period"]["start"]) for visit in resources(bundle, "Encounter")}
    found = [(dates[encounter], values[code]) for encounter, values in _quantities(bundle).items() if code in values]
    return sorted(found)


def conditions(bundle: Json, code: str) -> list[Json]:
    return [condition for condition in resources(bundle, "Condition") if code_of(condition) == code]


def prescriptions(bundle: Json, *words: str) -> list[Json]:
    found = resources(bundle, "MedicationRequest")
    return [item for item in found if any(word in item["medicationCodeableConcept"]["text"] for word in words)]


def check_diagnoses(bundle: Json) -> None:
    """A condition is recognised when, and only when, what was measured crosses its threshold; once each."""
    systolic, diastolic = _series(bundle, "8480-6"), _series(bundle, "8462-4")
    raised = [when for (when, high), (_, low) in zip(systolic, diastolic, strict=True) if high >= 140 or low >= 90]
    a1c, ldl, bmi, rate = (_series(bundle, code) for code in ("4548-4", "13457-7", "39156-5", "98979-8"))
    for code in ("59621000", "44054006", "15777000", "55822004", "433144002", "162864005", "195967001", "370143000"):
        assert len(conditions(bundle, code)) <= 1, f"{code} is diagnosed twice"
    for found in conditions(bundle, "59621000"):
        assert len([when for when in raised if when <= day(found["recordedDate"])]) >= 2
        assert day(found["recordedDate"]) in raised
    diabetes = conditions(bundle, "44054006")
    for found in diabetes:
        recorded = day(found["recordedDate"])
        assert len([when for when, value in a1c if value >= Decimal("6.5") and when <= recorded]) >= 2
    for found in conditions(bundle, "15777000"):
        assert Decimal("5.7") <= dict(a1c)[day(found["recordedDate"])] < Decimal("6.5")
        assert ("abatementDateTime" in found) == bool(diabetes)
    high_ldl = [when for when, value in ldl if value >= 160]
    assert [day(found["recordedDate"]) for found in conditions(bundle, "55822004")] == high_ldl[:1]
    for found in conditions(bundle, "162864005"):
        assert dict(bmi)[day(found["recordedDate"])] >= 30
    low = [when for when, value in rate if value < 60]
    for found in conditions(bundle, "433144002"):
        assert any((day(found["recordedDate"]) - when).days >= 90 for when in low)
        assert day(found["recordedDate"]) in low


def check_treatment(bundle: Json) -> None:
    """Drugs follow their condition, help, and avoid allergies; vaccines are spaced."""
    by_url = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    for item in resources(bundle, "MedicationRequest"):
        assert by_url[item["reasonReference"][0]["reference"]]["recordedDate"] <= item["authoredOn"]
    dead = "deceasedDateTime" in patient_of(bundle)
    assert not (dead and any(item["status"] == "active" for item in resources(bundle, "MedicationRequest")))
    for code, drug in (("59621000", "lisinopril"), ("44054006", "metformin"), ("55822004", "simvastatin")):
        starts = [item["authoredOn"] for item in prescriptions(bundle, drug)]
        assert [found["recordedDate"] for found in conditions(bundle, code)] == sorted(starts)[:1]
        assert len([item for item in prescriptions(bundle, drug) if item["status"] in {"active", "stopped"}]) <= 1
    for allergy in resources(bundle, "AllergyIntolerance"):
        if code_of(allergy) == "91936005":
            assert not [x for x in prescriptions(bundle, "oxicillin") if x["authoredOn"] >= allergy["recordedDate"]]
    for code, drug, share in (("8480-6", "lisinopril", 1), ("13457-7", "simvastatin", Decimal("0.9"))):
        series = _series(bundle, code)
        for start in sorted(day(item["authoredOn"]) for item in prescriptions(bundle, drug))[:1]:
            before = [value for when, value in series if when <= start][-2:]
            after = [value for when, value in series if 60 <= (when - start).days <= 800]
            if after:
                assert sum(after) / len(after) < share * sum(before) / len(before), f"{drug} does not help"
    doses: dict[str, list[date]] = defaultdict(list)
    for dose in resources(bundle, "Immunization"):
        doses[code_of(dose, "vaccineCode")].append(day(dose["occurrenceDateTime"]))
    for vaccine, given in doses.items():
        gaps = [(later - earlier).days for earlier, later in pairwise(given)]
        assert all(gap >= (300 if vaccine == "140" else 28) for gap in gaps)


def _cents(money: Json) -> int:
    assert money["currency"] == "USD"
    cents = Decimal(money["value"]) * 100
    assert cents == int(cents), "an amount has a fraction of a cent"
    assert cents >= 0
    return int(cents)


def _amounts(adjudication: list[Json]) -> dict[str, int]:
    amounts = {code_of(part, "category"): _cents(part["amount"]) for part in adjudication}
    assert len(amounts) == len(adjudication)
    assert amounts["submitted"] == amounts["eligible"] + amounts["discount"]
    paid = amounts["deductible"] + amounts["copay"] + amounts["coinsurance"] + amounts["benefit"]
    assert amounts["eligible"] == paid
    return amounts


def check_money(bundle: Json, deductibles: dict[str, int]) -> None:
    """Claims add up, explanations add up and repeat their claim, no year pays more than its plan's deductible."""
    by_url = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    for claim in resources(bundle, "Claim"):
        assert [item["sequence"] for item in claim["item"]] == list(range(1, len(claim["item"]) + 1))
        assert all(
            _cents(item["net"]) == _cents(item["unitPrice"]) * item["quantity"]["value"] for item in claim["item"]
        )
        assert _cents(claim["total"]) == sum(_cents(item["net"]) for item in claim["item"])
        coverage = by_url[claim["insurance"][0]["coverage"]["reference"]]
        assert coverage["period"]["start"] <= claim["billablePeriod"]["start"][:10] <= coverage["period"]["end"]
        assert coverage["payor"] == [claim["insurer"]]
        assert ("prescription" in claim) == (code_of(claim, "type") == "pharmacy")
    claims = [eob["claim"]["reference"] for eob in resources(bundle, "ExplanationOfBenefit")]
    assert len(set(claims)) == len(claims), "a claim is decided twice"
    used: dict[tuple[str, str], int] = defaultdict(int)
    for eob in resources(bundle, "ExplanationOfBenefit"):
        claim = by_url[eob["claim"]["reference"]]
        lines = [_amounts(item["adjudication"]) for item in eob["item"]]
        assert [line["submitted"] for line in lines] == [_cents(item["net"]) for item in claim["item"]]
        assert [item["productOrService"] for item in eob["item"]] == [x["productOrService"] for x in claim["item"]]
        total = _amounts(eob["total"])
        assert total == {name: sum(line[name] for line in lines) for name in total}
        assert total["submitted"] == _cents(claim["total"])
        assert _cents(eob["payment"]["amount"]) == total["benefit"]
        assert eob["created"] > claim["created"][:10]
        for name in ("insurer", "provider", "billablePeriod", "type"):
            assert eob[name] == claim[name]
        coverage = eob["insurance"][0]["coverage"]["reference"]
        used[coverage, claim["created"][:4]] += total["deductible"]
    for (coverage, _), cents in used.items():
        assert cents <= deductibles[by_url[coverage]["class"][0]["value"]]


def check_notes(bundle: Json) -> None:
    """Attachments decode to the text their size and hash speak of, and the text is about this patient."""
    patient = patient_of(bundle)
    for document in resources(bundle, "DocumentReference"):
        attachment = document["content"][0]["attachment"]
        text = base64.b64decode(attachment["data"], validate=True)
        assert attachment["size"] == len(text)
        digest = hashlib.sha1(text, usedforsecurity=False).digest()
        assert base64.b64decode(attachment["hash"], validate=True) == digest
        assert patient["identifier"][0]["value"] in text.decode("utf-8")


DEDUCTIBLES = {"Share 80": 23_300, "Copay 30": 164_400}


def check_all(bundle: Json, last: date) -> None:
    """All of the above."""
    check_bundle(bundle)
    check_elements(bundle)
    check_references(bundle)
    check_dates(bundle, last)
    check_measures(bundle)
    check_diagnoses(bundle)
    check_treatment(bundle)
    check_money(bundle, DEDUCTIBLES)
    check_notes(bundle)
