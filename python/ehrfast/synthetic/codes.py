"""Owns the closed list of codes the generator may use, with their displays, units, reference ranges and list prices.

Money is integer cents, ages are days, prices are invented. Nothing outside this list is ever written as a code.
"""

from __future__ import annotations

from typing import NamedTuple

SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
CVX = "http://hl7.org/fhir/sid/cvx"
UCUM = "http://unitsofmeasure.org"


class Coding(NamedTuple):
    """A code, the system it belongs to and the words printed for it."""

    system: str
    code: str
    display: str


class Measure(NamedTuple):
    """What an Observation measures: code, category, UCUM unit, decimal places printed, reference range (None: open).

    Values and bounds are integers in units of the last decimal place.
    """

    coding: Coding
    category: str
    unit: str
    places: int
    low: int | None = None
    high: int | None = None


class Drug(NamedTuple):
    """A medication, how it is taken, for how long one supply lasts, and what that supply costs."""

    coding: Coding
    dosage: str
    supply_days: int
    price_cents: int


class Vaccine(NamedTuple):
    """A vaccine and the ages in days at which a dose is due."""

    coding: Coding
    due_days: tuple[int, ...]


class Service(NamedTuple):
    """Something billed: an encounter type, a procedure or a laboratory panel, and its list price."""

    coding: Coding
    price_cents: int


class Illness(NamedTuple):
    """A short illness: its code, days it lasts, its drug and procedure if any, and the ages in years it strikes."""

    coding: Coding
    days: tuple[int, int]
    drug: str | None
    procedure: str | None
    ages: tuple[int, int]
    emergency: bool = False


def _snomed(code: str, display: str) -> Coding:
    return Coding(SNOMED, code, display)


def _loinc(code: str, display: str) -> Coding:
    return Coding(LOINC, code, display)


def _drug(code: str, display: str, dosage: str, supply_days: int, price_cents: int) -> Drug:
    return Drug(Coding(RXNORM, code, display), dosage, supply_days, price_cents)


def _vaccine(code: str, display: str, *due_days: int) -> Vaccine:
    return Vaccine(Coding(CVX, code, display), due_days)


def _service(code: str, display: str, price_cents: int) -> Service:
    return Service(_snomed(code, display), price_cents)


BLOOD_PRESSURE = _loinc("85354-9", "Blood pressure panel with all children optional")
SYSTOLIC = _loinc("8480-6", "Systolic blood pressure")
DIASTOLIC = _loinc("8462-4", "Diastolic blood pressure")
SMOKING_STATUS = _loinc("72166-2", "Tobacco smoking status")
PROGRESS_NOTE = _loinc("11506-3", "Progress note")

_VITAL, _LABORATORY = "vital-signs", "laboratory"
_FILTRATION = (
    "Glomerular filtration rate/1.73 sq M.predicted [Volume Rate/Area] in Serum, Plasma or Blood "
    "by Creatinine-based formula (CKD-EPI 2021)"
)
_IN_SERUM = "[Mass/volume] in Serum or Plasma"
MEASURES: dict[str, Measure] = {
    "height": Measure(_loinc("8302-2", "Body height"), _VITAL, "cm", 1),
    "weight": Measure(_loinc("29463-7", "Body weight"), _VITAL, "kg", 1),
    "bmi": Measure(_loinc("39156-5", "Body mass index (BMI) [Ratio]"), _VITAL, "kg/m2", 1),
    "heart-rate": Measure(_loinc("8867-4", "Heart rate"), _VITAL, "/min", 0),
    "temperature": Measure(_loinc("8310-5", "Body temperature"), _VITAL, "Cel", 1),
    "a1c": Measure(_loinc("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"), _LABORATORY, "%", 1, 40, 56),
    "glucose": Measure(_loinc("2345-7", f"Glucose {_IN_SERUM}"), _LABORATORY, "mg/dL", 0, 70, 125),
    "creatinine": Measure(_loinc("2160-0", f"Creatinine {_IN_SERUM}"), _LABORATORY, "mg/dL", 2, 50, 130),
    "egfr": Measure(_loinc("98979-8", _FILTRATION), _LABORATORY, "mL/min/{1.73_m2}", 0, 60),
    "sodium": Measure(_loinc("2951-2", "Sodium [Moles/volume] in Serum or Plasma"), _LABORATORY, "mmol/L", 0, 135, 145),
    "potassium": Measure(
        _loinc("2823-3", "Potassium [Moles/volume] in Serum or Plasma"), _LABORATORY, "mmol/L", 1, 35, 51
    ),
    "cholesterol": Measure(_loinc("2093-3", f"Cholesterol {_IN_SERUM}"), _LABORATORY, "mg/dL", 0, None, 239),
    "triglycerides": Measure(_loinc("2571-8", f"Triglyceride {_IN_SERUM}"), _LABORATORY, "mg/dL", 0, None, 199),
    "hdl": Measure(_loinc("2085-9", f"Cholesterol in HDL {_IN_SERUM}"), _LABORATORY, "mg/dL", 0, 40),
    "ldl": Measure(
        _loinc("13457-7", f"Cholesterol in LDL {_IN_SERUM} by calculation"), _LABORATORY, "mg/dL", 0, None, 159
    ),
}

PANELS: dict[str, Service] = {
    "a1c": Service(_loinc("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood"), 3_150),
    "metabolic": Service(_loinc("24321-2", "Basic metabolic 2000 panel - Serum or Plasma"), 4_825),
    "lipid": Service(_loinc("24331-1", "Lipid 1996 panel - Serum or Plasma"), 6_390),
}

ENCOUNTERS: dict[str, Service] = {
    "well-child": _service("410620009", "Well child visit", 11_500),
    "check-up": _service("185349003", "Encounter for check up", 12_475),
    "follow-up": _service("390906007", "Follow-up encounter", 8_925),
    "symptom": _service("185345009", "Encounter for symptom", 9_650),
    "emergency": _service("50849002", "Emergency room admission", 61_240),
}
EXAMINATION = _snomed("162673000", "General examination of patient")

CONDITIONS: dict[str, Coding] = {
    "hypertension": _snomed("59621000", "Essential hypertension"),
    "diabetes": _snomed("44054006", "Diabetes mellitus type 2"),
    "prediabetes": _snomed("15777000", "Prediabetes"),
    "hyperlipidemia": _snomed("55822004", "Hyperlipidemia"),
    "kidney": _snomed("433144002", "Chronic kidney disease stage 3"),
    "obesity": _snomed("162864005", "Body mass index 30+ - obesity"),
    "asthma": _snomed("195967001", "Asthma"),
    "depression": _snomed("370143000", "Major depressive disorder"),
}
# HL7 ActCode labels of information that deserves more than the usual care.
SENSITIVE: dict[str, str] = {"depression": "PSY"}

DRUGS: dict[str, Drug] = {
    "lisinopril": _drug("314076", "lisinopril 10 MG Oral Tablet", "One tablet by mouth once daily", 365, 8_760),
    "amlodipine": _drug("197361", "amlodipine 5 MG Oral Tablet", "One tablet by mouth once daily", 365, 9_490),
    "metformin": _drug(
        "860975",
        "24 HR metformin hydrochloride 500 MG Extended Release Oral Tablet",
        "One tablet by mouth with the evening meal",
        365,
        11_315,
    ),
    "simvastatin": _drug("312961", "simvastatin 20 MG Oral Tablet", "One tablet by mouth at bedtime", 365, 10_220),
    "albuterol": _drug(
        "745679",
        "200 ACTUAT albuterol 0.09 MG/ACTUAT Metered Dose Inhaler",
        "Two inhalations every 4 to 6 hours as needed",
        365,
        15_600,
    ),
    "sertraline": _drug("312941", "sertraline 50 MG Oral Tablet", "One tablet by mouth once daily", 365, 12_045),
    "amoxicillin": _drug(
        "308192", "amoxicillin 500 MG Oral Tablet", "One tablet by mouth three times daily", 10, 1_875
    ),
    "azithromycin": _drug("308460", "azithromycin 250 MG Oral Tablet", "One tablet by mouth once daily", 5, 2_430),
    "acetaminophen": _drug(
        "313782", "acetaminophen 325 MG Oral Tablet", "One tablet by mouth every 6 hours as needed", 7, 745
    ),
    "amoxicillin, child": _drug(
        "308189", "amoxicillin 80 MG/ML Oral Suspension", "By weight, by mouth twice daily", 10, 2_040
    ),
    "azithromycin, child": _drug(
        "141963", "azithromycin 40 MG/ML Oral Suspension", "By weight, by mouth once daily", 5, 2_615
    ),
    "acetaminophen, child": _drug(
        "282464", "acetaminophen 160 MG Oral Tablet", "By weight, by mouth every 6 hours as needed", 7, 690
    ),
    "ibuprofen, child": _drug(
        "198405", "ibuprofen 100 MG Oral Tablet", "By weight, by mouth every 6 hours as needed", 10, 780
    ),
    "ibuprofen": _drug(
        "310965", "ibuprofen 200 MG Oral Tablet", "One tablet by mouth every 6 hours as needed", 10, 895
    ),
}

PROCEDURES: dict[str, Service] = {
    "reconciliation": _service("430193006", "Medication reconciliation", 2_150),
    "depression-screening": _service("171207006", "Depression screening", 3_300),
    "spirometry": _service("127783003", "Spirometry", 14_730),
    "colonoscopy": _service("73761001", "Colonoscopy", 131_495),
    "throat-culture": _service("117015009", "Throat culture", 4_415),
    "suture": _service("288086009", "Suture open wound", 27_860),
    "immobilization": _service("274474001", "Bone immobilization", 21_175),
    "chest-x-ray": _service("399208008", "Plain chest X-ray", 15_240),
}

ILLNESSES: tuple[Illness, ...] = (
    Illness(_snomed("195662009", "Acute viral pharyngitis"), (6, 14), "acetaminophen", "throat-culture", (2, 90)),
    Illness(_snomed("444814009", "Viral sinusitis"), (7, 21), None, None, (5, 90)),
    Illness(_snomed("10509002", "Acute bronchitis"), (7, 18), "amoxicillin", "chest-x-ray", (3, 90)),
    Illness(_snomed("65363002", "Otitis media"), (6, 12), "amoxicillin", None, (1, 10)),
    Illness(_snomed("44465007", "Sprain of ankle"), (14, 35), "ibuprofen", "immobilization", (8, 75), True),
    Illness(_snomed("283371005", "Laceration of forearm"), (10, 21), None, "suture", (3, 85), True),
)

# (code, FHIR category, criticality)
ALLERGIES: tuple[tuple[Coding, str, str], ...] = (
    (_snomed("91936005", "Allergy to penicillin"), "medication", "high"),
    (_snomed("91935009", "Allergy to peanuts"), "food", "high"),
    (_snomed("417532002", "Allergy to fish"), "food", "low"),
    (_snomed("425525006", "Allergy to dairy product"), "food", "low"),
    (_snomed("232350006", "House dust mite allergy"), "environment", "low"),
    (_snomed("418689008", "Allergy to grass pollen"), "environment", "low"),
)
PENICILLIN_ALLERGY = ALLERGIES[0][0]

SMOKING: tuple[Coding, ...] = (
    _snomed("266919005", "Never smoked tobacco"),
    _snomed("8517006", "Ex-smoker"),
    _snomed("77176002", "Smoker"),
)

VACCINE_PRICE_CENTS = 14_050
INFLUENZA = Coding(CVX, "140", "Influenza, split virus, trivalent, PF")
VACCINES: tuple[Vaccine, ...] = (
    _vaccine("08", "Hep B, adolescent or pediatric", 1, 30, 180),
    _vaccine("119", "rotavirus, monovalent", 60, 120),
    _vaccine("20", "DTaP", 60, 120, 180, 456, 1461),
    _vaccine("49", "Hib (PRP-OMP)", 60, 120, 365),
    _vaccine("133", "Pneumococcal conjugate PCV 13", 60, 120, 180, 365),
    _vaccine("10", "IPV", 60, 120, 180, 1461),
    _vaccine("03", "MMR", 365, 1461),
    _vaccine("21", "varicella", 365, 1461),
    _vaccine("83", "Hep A, ped/adol, 2 dose", 365, 548),
    _vaccine("115", "Tdap", 4018),
    _vaccine("114", "meningococcal MCV4P", 4018, 5844),
    _vaccine("113", "Td (adult), 5 Lf tetanus toxoid, preservative free, adsorbed", *range(7670, 33000, 3652)),
    _vaccine("187", "zoster recombinant", 18263, 18353),
    _vaccine("33", "pneumococcal polysaccharide PPV23", 23741),
)
