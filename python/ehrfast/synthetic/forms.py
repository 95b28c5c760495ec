"""Owns the shape of every FHIR R4 resource written here, compiled once into JSON text with named holes.

Refuses nothing: whoever fills a hole gives text that needs no escaping (names and codes do not, markers are checked).
In a tree `{name}` inside a string is a hole for text; `{{name}}` alone is one for JSON, `[[0.50]]` alone a decimal.
"""

from __future__ import annotations

import json
import re

from .codes import (
    BLOOD_PRESSURE,
    DIASTOLIC,
    PROGRESS_NOTE,
    SMOKING_STATUS,
    SYSTOLIC,
    UCUM,
    Coding,
    Drug,
    Measure,
)

Tree = dict[str, object]

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
_CARIN = "http://hl7.org/fhir/us/carin-bb/CodeSystem/C4BBAdjudication"
_JSON_HOLE = re.compile(r'"\{\{(\w+)\}\}"')
_TEXT_HOLE = re.compile(r"\{([a-z]\w*)\}")
_DECIMAL = re.compile(r'"\[\[([0-9.]+)\]\]"')
_CATEGORY = {"vital-signs": "Vital Signs", "laboratory": "Laboratory", "social-history": "Social History"}


class Form:
    """A JSON text with holes; calling it with a value for each hole gives the filled text."""

    __slots__ = ("_text",)

    def __init__(self, tree: Tree) -> None:
        text = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).replace("%", "%%")
        text = _JSON_HOLE.sub(r"%(\1)s", _DECIMAL.sub(r"\1", text))
        self._text = _TEXT_HOLE.sub(r"%(\1)s", text)

    def __call__(self, **values: str | int) -> str:
        return self._text % values


def decimal(value: int, places: int) -> str:
    """A whole number of last decimal places, printed with them: (1205, 1) is 120.5. Not for negative values."""
    if not places:
        return str(value)
    scale = 10**places
    return f"{value // scale}.{value % scale:0{places}d}"


def concept(coding: Coding) -> Tree:
    """A CodeableConcept of one coding."""
    return {
        "coding": [{"system": coding.system, "code": coding.code, "display": coding.display}],
        "text": coding.display,
    }


def concept_json(coding: Coding) -> str:
    """The same, as JSON text for a hole."""
    return json.dumps(concept(coding), ensure_ascii=False, separators=(",", ":"))


def _code(system: str, code: str, display: str | None = None) -> Tree:
    coding = {"system": _TERMINOLOGY + system, "code": code}
    if display is not None:
        coding["display"] = display
    return {"coding": [coding]}


def _refer(hole: str) -> Tree:
    return {"reference": "{" + hole + "}"}


def _quantity(value: str, unit: str) -> Tree:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def _money(hole: str) -> Tree:
    return {"value": "{{" + hole + "}}", "currency": "USD"}


def _address(use: Tree) -> list[Tree]:
    return [{**use, "line": ["{street}"], "city": "{town}", "postalCode": "{postcode}", "country": "XA"}]


def _labels(label: str | None) -> Tree:
    if label is None:
        return {}
    security = [
        {"system": _TERMINOLOGY + "v3-ActCode", "code": label},
        {"system": _TERMINOLOGY + "v3-Confidentiality", "code": "R"},
    ]
    return {"meta": {"security": security}}


# ── who ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _organization_form(kind: str, display: str) -> Form:
    return Form(
        {
            "resourceType": "Organization",
            "id": "{id}",
            "identifier": [{"system": "urn:ietf:rfc:3986", "value": "urn:uuid:{id}"}],
            "active": True,
            "type": [_code("organization-type", kind, display)],
            "name": "{name}",
            "telecom": [{"system": "phone", "value": "{phone}", "use": "work"}],
            "address": _address({"use": "work"}),
        }
    )


CLINIC = _organization_form("prov", "Healthcare Provider")
PAYER = _organization_form("pay", "Payer")

PRACTITIONER = Form(
    {
        "resourceType": "Practitioner",
        "id": "{id}",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": "urn:uuid:{id}"}],
        "active": True,
        "name": [{"use": "official", "family": "{family}", "given": ["{given}"], "prefix": ["Dr."]}],
        "telecom": [{"system": "phone", "value": "{phone}", "use": "work"}],
        "gender": "{gender}",
    }
)


def _patient_form(deceased: Tree) -> Form:
    narrative = "<p>{given} {middle} {family}, born {birth}, {street}, {town}</p>"
    return Form(
        {
            "resourceType": "Patient",
            "id": "{id}",
            "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{narrative}</div>'},
            "identifier": [
                {
                    "use": "usual",
                    "type": _code("v2-0203", "MR", "Medical record number"),
                    "system": "urn:uuid:{organization_id}",
                    "value": "{mrn}",
                }
            ],
            "active": True,
            "name": [{"use": "official", "family": "{family}", "given": ["{given}", "{middle}"]}],
            "telecom": [{"system": "phone", "value": "{phone}", "use": "home"}],
            "gender": "{gender}",
            "birthDate": "{birth}",
            **deceased,
            "address": _address({"use": "home"}),
            "generalPractitioner": [_refer("practitioner")],
            "managingOrganization": _refer("organization"),
        }
    )


LIVING_PATIENT = _patient_form({})
DECEASED_PATIENT = _patient_form({"deceasedDateTime": "{death}"})

# ── visits and what is seen in them ──────────────────────────────────────────────────────────────────────────────────
ENCOUNTER = Form(
    {
        "resourceType": "Encounter",
        "id": "{id}",
        "status": "finished",
        "class": {"system": _TERMINOLOGY + "v3-ActCode", "code": "{class_code}", "display": "{class_display}"},
        "type": ["{{service}}"],
        "subject": _refer("subject"),
        "participant": [{"individual": _refer("practitioner")}],
        "period": {"start": "{start}", "end": "{end}"},
        "reasonCode": ["{{reason}}"],
        "serviceProvider": _refer("organization"),
    }
)


def _observation_form(category: str, coding: Coding, result: Tree) -> Form:
    return Form(
        {
            "resourceType": "Observation",
            "id": "{id}",
            "status": "final",
            "category": [_code("observation-category", category, _CATEGORY[category])],
            "code": concept(coding),
            "subject": _refer("subject"),
            "encounter": _refer("encounter"),
            "effectiveDateTime": "{start}",
            "issued": "{end}",
            "performer": [_refer("practitioner")],
            **result,
        }
    )


def measure_form(measure: Measure) -> Form:
    """An Observation of one quantity; with a reference range it also has the hole `interpretation` (N, H or L)."""
    result: Tree = {"valueQuantity": _quantity("{{value}}", measure.unit)}
    interval: Tree = {
        name: _quantity(f"[[{decimal(bound, measure.places)}]]", measure.unit)
        for name, bound in (("low", measure.low), ("high", measure.high))
        if bound is not None
    }
    if interval:
        result["interpretation"] = [_code("v3-ObservationInterpretation", "{interpretation}")]
        result["referenceRange"] = [interval]
    return _observation_form(measure.category, measure.coding, result)


BLOOD_PRESSURE_FORM = _observation_form(
    "vital-signs",
    BLOOD_PRESSURE,
    {
        "component": [
            {"code": concept(SYSTOLIC), "valueQuantity": _quantity("{{systolic}}", "mm[Hg]")},
            {"code": concept(DIASTOLIC), "valueQuantity": _quantity("{{diastolic}}", "mm[Hg]")},
        ]
    },
)
SMOKING_FORM = _observation_form("social-history", SMOKING_STATUS, {"valueCodeableConcept": "{{value}}"})


def report_form(panel: Coding) -> Form:
    """A laboratory DiagnosticReport whose `results` hole takes an array of references."""
    return Form(
        {
            "resourceType": "DiagnosticReport",
            "id": "{id}",
            "status": "final",
            "category": [_code("v2-0074", "LAB", "Laboratory")],
            "code": concept(panel),
            "subject": _refer("subject"),
            "encounter": _refer("encounter"),
            "effectiveDateTime": "{start}",
            "issued": "{end}",
            "performer": [_refer("organization")],
            "result": "{{results}}",
        }
    )


NOTE = Form(
    {
        "resourceType": "DocumentReference",
        "id": "{id}",
        "status": "current",
        "docStatus": "final",
        "type": concept(PROGRESS_NOTE),
        "subject": _refer("subject"),
        "date": "{end}",
        "author": [_refer("practitioner")],
        "custodian": _refer("organization"),
        "description": "{title}",
        "content": [
            {
                "attachment": {
                    "contentType": "text/plain; charset=utf-8",
                    "language": "en",
                    "data": "{data}",
                    "size": "{{size}}",
                    "hash": "{digest}",
                    "title": "{title}",
                    "creation": "{end}",
                }
            }
        ],
        "context": {"encounter": [_refer("encounter")], "period": {"start": "{start}", "end": "{end}"}},
    }
)


# ── what is wrong, and what is done ──────────────────────────────────────────────────────────────────────────────────
def condition_form(coding: Coding, *, resolved: bool, label: str | None) -> Form:
    """A confirmed Condition, active or resolved, with a sensitivity label where it needs one."""
    return Form(
        {
            "resourceType": "Condition",
            "id": "{id}",
            **_labels(label),
            "clinicalStatus": _code("condition-clinical", "resolved" if resolved else "active"),
            "verificationStatus": _code("condition-ver-status", "confirmed"),
            "category": [_code("condition-category", "encounter-diagnosis", "Encounter Diagnosis")],
            "code": concept(coding),
            "subject": _refer("subject"),
            "encounter": _refer("encounter"),
            "onsetDateTime": "{onset}",
            **({"abatementDateTime": "{abatement}"} if resolved else {}),
            "recordedDate": "{recorded}",
            "recorder": _refer("practitioner"),
        }
    )


def prescription_form(drug: Drug, label: str | None) -> Form:
    """A MedicationRequest for one supply of a drug."""
    supply = {"value": drug.supply_days, "unit": "day", "system": UCUM, "code": "d"}
    return Form(
        {
            "resourceType": "MedicationRequest",
            "id": "{id}",
            **_labels(label),
            "status": "{status}",
            "intent": "order",
            "medicationCodeableConcept": concept(drug.coding),
            "subject": _refer("subject"),
            "encounter": _refer("encounter"),
            "authoredOn": "{start}",
            "requester": _refer("practitioner"),
            "reasonReference": [_refer("condition")],
            "dosageInstruction": [{"sequence": 1, "text": drug.dosage}],
            "dispenseRequest": {"expectedSupplyDuration": supply},
        }
    )


def allergy_form(coding: Coding, category: str, criticality: str) -> Form:
    """An active, confirmed AllergyIntolerance."""
    return Form(
        {
            "resourceType": "AllergyIntolerance",
            "id": "{id}",
            "clinicalStatus": _code("allergyintolerance-clinical", "active"),
            "verificationStatus": _code("allergyintolerance-verification", "confirmed"),
            "type": "allergy",
            "category": [category],
            "criticality": criticality,
            "code": concept(coding),
            "patient": _refer("subject"),
            "encounter": _refer("encounter"),
            "recordedDate": "{start}",
            "recorder": _refer("practitioner"),
        }
    )


IMMUNIZATION = Form(
    {
        "resourceType": "Immunization",
        "id": "{id}",
        "status": "completed",
        "vaccineCode": "{{vaccine}}",
        "patient": _refer("subject"),
        "encounter": _refer("encounter"),
        "occurrenceDateTime": "{start}",
        "primarySource": True,
        "lotNumber": "{lot}",
        "performer": [{"actor": _refer("practitioner")}],
    }
)

PROCEDURE = Form(
    {
        "resourceType": "Procedure",
        "id": "{id}",
        "status": "completed",
        "code": "{{service}}",
        "subject": _refer("subject"),
        "encounter": _refer("encounter"),
        "performedPeriod": {"start": "{start}", "end": "{end}"},
        "performer": [{"actor": _refer("practitioner")}],
    }
)

# ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────────
COVERAGE = Form(
    {
        "resourceType": "Coverage",
        "id": "{id}",
        "status": "{status}",
        "type": _code("v3-ActCode", "EHCPOL", "extended healthcare"),
        "subscriberId": "{member}",
        "beneficiary": _refer("subject"),
        "relationship": _code("subscriber-relationship", "self"),
        "period": {"start": "{from_date}", "end": "{to_date}"},
        "payor": [_refer("payer")],
        "class": [{"type": _code("coverage-class", "plan", "Plan"), "value": "{plan}", "name": "{plan}"}],
    }
)


def _bill(resource_type: str, claim_type: str, rest: Tree) -> Form:
    return Form(
        {
            "resourceType": resource_type,
            "id": "{id}",
            "status": "active",
            "type": _code("claim-type", claim_type),
            "use": "claim",
            "patient": _refer("subject"),
            "billablePeriod": {"start": "{start}", "end": "{end}"},
            "created": "{created}",
            "insurer": _refer("payer"),
            "provider": _refer("organization"),
            **rest,
        }
    )


def claim_form(claim_type: str) -> Form:
    """A Claim of the given claim-type; `pharmacy` also has a hole for its prescription."""
    return _bill(
        "Claim",
        claim_type,
        {
            "priority": _code("processpriority", "normal"),
            **({"prescription": _refer("prescription")} if claim_type == "pharmacy" else {}),
            "diagnosis": [{"sequence": 1, "diagnosisCodeableConcept": "{{reason}}"}],
            "insurance": [{"sequence": 1, "focal": True, "coverage": _refer("coverage")}],
            "item": "{{items}}",
            "total": _money("total"),
        },
    )


CLAIM_ITEM = Form(
    {
        "sequence": "{{sequence}}",
        "diagnosisSequence": [1],
        "productOrService": "{{product}}",
        "servicedDate": "{date}",
        "quantity": {"value": 1},
        "unitPrice": _money("charge"),
        "net": _money("charge"),
        "encounter": [_refer("encounter")],
    }
)

# The amounts of an adjudicated line, in the order they are worked out, and the code system that names each.
AMOUNTS: tuple[tuple[str, str], ...] = (
    ("submitted", _TERMINOLOGY + "adjudication"),
    ("discount", _CARIN),
    ("eligible", _TERMINOLOGY + "adjudication"),
    ("deductible", _TERMINOLOGY + "adjudication"),
    ("copay", _TERMINOLOGY + "adjudication"),
    ("coinsurance", _CARIN),
    ("benefit", _TERMINOLOGY + "adjudication"),
)
_ADJUDICATION: list[Tree] = [
    {"category": {"coding": [{"system": system, "code": name}]}, "amount": _money(name)} for name, system in AMOUNTS
]

EXPLANATION_ITEM = Form(
    {
        "sequence": "{{sequence}}",
        "productOrService": "{{product}}",
        "servicedDate": "{date}",
        "encounter": [_refer("encounter")],
        "adjudication": _ADJUDICATION,
    }
)


def explanation_form(claim_type: str) -> Form:
    """An ExplanationOfBenefit: the claim's lines adjudicated, their sums, and the payment."""
    return _bill(
        "ExplanationOfBenefit",
        claim_type,
        {
            "claim": _refer("claim"),
            "outcome": "complete",
            "insurance": [{"focal": True, "coverage": _refer("coverage")}],
            "item": "{{items}}",
            "total": _ADJUDICATION,
            "payment": {"date": "{created}", "amount": _money("benefit")},
        },
    )


# ── the Bundle ───────────────────────────────────────────────────────────────────────────────────────────────────────
def entry(kind: str, identifier: str, resource: str) -> str:
    """One POST entry of a transaction Bundle."""
    return f'{{"fullUrl":"urn:uuid:{identifier}","resource":{resource},"request":{{"method":"POST","url":"{kind}"}}}}'


def shared_entry(kind: str, identifier: str, resource: str) -> str:
    """One POST entry a server creates only once, however many Bundles carry it (FHIR conditional create)."""
    known = f"identifier=urn:ietf:rfc:3986|urn:uuid:{identifier}"
    return (
        f'{{"fullUrl":"urn:uuid:{identifier}","resource":{resource},'
        f'"request":{{"method":"POST","url":"{kind}","ifNoneExist":"{known}"}}}}'
    )


def bundle(entries: list[str]) -> bytes:
    """A transaction Bundle, an entry a line."""
    return ('{"resourceType":"Bundle","type":"transaction","entry":[\n' + ",\n".join(entries) + "\n]}\n").encode()
