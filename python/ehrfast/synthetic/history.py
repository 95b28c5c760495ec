"""Owns one patient's life on paper: which visits happen, what is found, diagnosed, prescribed, given and billed.

Nothing is dated before birth, on or after the day of death (but the death), or after HISTORY_END. Every reference leads
to an entry of the same history or to a shared resource listed with it. Equal (seed, index, years, marker): equal bytes.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable
from datetime import date
from heapq import heappop, heappush
from typing import NamedTuple

from . import codes, forms, physiology
from .billing import PLANS, Accumulator, Adjudicated, Line, portion, total
from .codes import Illness
from .forms import decimal
from .people import HISTORY_END, Clinic, Commons, Shared, person
from .physiology import Body, years_at
from .randomness import Draws, identifiers

_COVERED_UNTIL = date(2026, 12, 31).toordinal()
_ADULT = 6575  # days: 18 years
_TABLETS = 4383  # days: 12 years, from when on a child is given the drugs of the grown
_WELL_CHILD_DAYS = (3, 31, 61, 122, 183, 274, 365, 456, 548, 730, 913, 1096, *range(1461, _ADULT, 365))
_MEASURE_FORMS = {name: (forms.measure_form(measure), measure) for name, measure in codes.MEASURES.items()}
_REPORT_FORMS = {name: forms.report_form(panel.coding) for name, panel in codes.PANELS.items()}
_CONCEPTS = {
    **{service.coding: forms.concept_json(service.coding) for service in codes.PANELS.values()},
    **{service.coding: forms.concept_json(service.coding) for service in codes.ENCOUNTERS.values()},
    **{service.coding: forms.concept_json(service.coding) for service in codes.PROCEDURES.values()},
    **{drug.coding: forms.concept_json(drug.coding) for drug in codes.DRUGS.values()},
    **{vaccine.coding: forms.concept_json(vaccine.coding) for vaccine in codes.VACCINES},
    **{coding: forms.concept_json(coding) for coding in codes.CONDITIONS.values()},
    **{illness.coding: forms.concept_json(illness.coding) for illness in codes.ILLNESSES},
    **{coding: forms.concept_json(coding) for coding in (codes.INFLUENZA, codes.EXAMINATION, *codes.SMOKING)},
}
_SENSITIVITY = {codes.CONDITIONS[name]: label for name, label in codes.SENSITIVE.items()}
_CONDITION_FORMS = {
    (coding, resolved): forms.condition_form(coding, resolved=resolved, label=_SENSITIVITY.get(coding))
    for coding in (*codes.CONDITIONS.values(), *(illness.coding for illness in codes.ILLNESSES))
    for resolved in (False, True)
}
_PRESCRIPTION_FORMS = {
    (name, label): forms.prescription_form(drug, label)
    for name, drug in codes.DRUGS.items()
    for label in (None, *codes.SENSITIVE.values())
}
_ALLERGY_FORMS = {coding: forms.allergy_form(coding, kind, risk) for coding, kind, risk in codes.ALLERGIES}
_CLAIM_FORMS = {kind: forms.claim_form(kind) for kind in ("professional", "pharmacy")}
_EXPLANATION_FORMS = {kind: forms.explanation_form(kind) for kind in ("professional", "pharmacy")}
_REGULAR = "regular "  # before a condition's name: the half-yearly visit it asks for, not the check of a suspicion
_VISIT_CLASS = {"AMB": "ambulatory", "EMER": "emergency"}
# What a diagnosis is treated with, which measure that lowers, and by how much at least and at most.
_TREATMENT = {
    "hypertension": ("lisinopril", "pressure", 16, 24),
    "diabetes": ("metformin", "a1c", 8, 14),
    "hyperlipidemia": ("simvastatin", "ldl", 28, 40),
    "asthma": ("albuterol", None, 0, 0),
    "depression": ("sertraline", None, 0, 0),
}

Refer = Callable[[str, str], str]


class Entry(NamedTuple):
    """A resource of this patient alone."""

    kind: str
    identifier: str
    text: str


class History(NamedTuple):
    """All that was written about one patient: the shared resources it leads to, then its own."""

    shared: tuple[Shared, ...]
    entries: list[Entry]
    deceased: bool


class _Coverage(NamedTuple):
    first_day: int
    reference: str
    payer: str
    accumulator: Accumulator


class _Planned(NamedTuple):
    day: int
    order: int
    reason: str
    illness: Illness | None = None


class _Diagnosis:
    """A condition whose end is not known before the history is."""

    __slots__ = ("abatement", "coding", "reference", "slot", "values")

    def __init__(self, coding: codes.Coding, slot: int, reference: str, values: dict[str, str]) -> None:
        self.coding = coding
        self.slot = slot
        self.reference = reference
        self.values = values
        self.abatement: str | None = None


class _Prescription:
    """A supply of a drug whose status is not known before the history is."""

    __slots__ = ("drug", "label", "renewed", "slot", "until", "values")

    def __init__(self, drug: str, label: str | None, slot: int, until: int, values: dict[str, str]) -> None:
        self.drug = drug
        self.label = label
        self.slot = slot
        self.until = until
        self.values = values
        self.renewed = False


class _Visit:
    """One encounter while it is being written; `common` fills the holes that all its resources share."""

    __slots__ = ("age", "charge_permille", "common", "date", "day", "findings", "lines", "reason")

    def __init__(self, day: int, age: int, charge_permille: int, common: dict[str, str], reason: str) -> None:
        self.day = day
        self.age = age
        self.date = common["start"][:10]
        self.charge_permille = charge_permille
        self.common = common
        self.reason = reason
        self.lines: list[Line] = []
        self.findings: list[str] = []

    def bill(self, coding: codes.Coding, price: int, preventive: bool = False) -> None:
        self.lines.append(Line(_CONCEPTS[coding], portion(price, self.charge_permille, 1000), preventive))


def _date(day: int) -> str:
    return date.fromordinal(day).isoformat()


def _birthday(birth: int, years: int) -> int:
    born = date.fromordinal(birth)
    return born.replace(year=born.year + years, day=min(born.day, 28)).toordinal()


def _completed_years(birth: int, day: int) -> int:
    born, now = date.fromordinal(birth), date.fromordinal(day)
    return now.year - born.year - ((now.month, now.day) < (born.month, born.day))


class _Life:
    """Writes a history from the first visit to the last."""

    def __init__(self, commons: Commons, seed: int, index: int, years: int, mark: str, refer: Refer) -> None:
        self._refer = refer
        self._mark = mark
        self._ids = identifiers(seed, index, "entries")
        self._draws = Draws(seed, index, "life")
        first_day = HISTORY_END - years * 1461 // 4
        self._person = person(seed, index, first_day, mark)
        self._first_day = max(self._person.birth, first_day)
        self._last_day = HISTORY_END if self._person.death is None else self._person.death - 1
        self._body = Body(self._draws, self._person.sex)
        self._entries: list[Entry | None] = []
        self._shared: dict[str, Shared] = {}
        self._diagnoses: dict[str, _Diagnosis] = {}
        self._closed: list[_Diagnosis] = []
        self._prescriptions: list[_Prescription] = []
        self._chronic: dict[str, _Prescription] = {}
        self._doses = self._doses_due()
        self._agenda: list[_Planned] = []
        self._planned = 0
        self._suspected: dict[str, int] = {}
        self._onsets: dict[str, int] = {}
        self._treated_since: dict[str, int] = {}
        self._last_done: dict[codes.Coding, int] = {}
        self._known = False
        self._allergic_to_penicillin = False
        self._smoking = codes.SMOKING[0 if self._draws.chance(620) else self._draws.between(1, 2)]
        home = self._draws.below(len(commons.clinics))
        self._clinic = commons.clinics[home]
        self._emergency_clinic = commons.clinics[(home + 1) % len(commons.clinics)]
        self._practitioner = self._draws.pick(self._clinic.practitioners)
        self._subject = self._write_patient()
        self._coverages = self._write_coverages(commons)

    # ── entries ──
    def _use(self, shared: Shared) -> str:
        self._shared.setdefault(shared.identifier, shared)
        return self._refer(shared.kind, shared.identifier)

    def _add(self, kind: str, form: forms.Form, **values: str | int) -> str:
        identifier = next(self._ids)
        self._entries.append(Entry(kind, identifier, form(id=identifier, **values)))
        return self._refer(kind, identifier)

    def _reserve(self) -> tuple[int, str]:
        self._entries.append(None)
        return len(self._entries) - 1, next(self._ids)

    def _write_patient(self) -> str:
        who = self._person
        values = {
            **who.place._asdict(),
            "given": who.given,
            "middle": who.middle,
            "family": who.family,
            "gender": who.sex,
            "birth": _date(who.birth),
            "mrn": who.mrn,
            "organization_id": self._clinic.organization.identifier,
            "organization": self._use(self._clinic.organization),
            "practitioner": self._use(self._practitioner),
        }
        if who.death is None:
            return self._add("Patient", forms.LIVING_PATIENT, **values)
        hour, minute = self._draws.below(24), self._draws.below(60)
        death = f"{_date(who.death)}T{hour:02d}:{minute:02d}:00Z"
        return self._add("Patient", forms.DECEASED_PATIENT, death=death, **values)

    def _write_coverages(self, commons: Commons) -> list[_Coverage]:
        """One coverage up to the day before the 65th birthday, another from then on."""
        begin = max(self._person.birth, date.fromordinal(self._first_day).replace(month=1, day=1).toordinal())
        end = _COVERED_UNTIL if self._person.death is None else self._person.death
        turn = _birthday(self._person.birth, 65)
        coverages = []
        for first_day, last_day in ((begin, min(end, turn - 1)), (max(begin, turn), end)):
            payer, plan = self._draws.pick(commons.payers), self._draws.pick(PLANS)
            allowed_permille, member = self._draws.between(620, 900), self._draws.below(10**8)
            if first_day > last_day:
                continue
            payer_reference = self._use(payer)
            reference = self._add(
                "Coverage",
                forms.COVERAGE,
                status="active" if last_day >= HISTORY_END else "cancelled",
                member=f"M{member:08d}{self._mark}",
                subject=self._subject,
                from_date=_date(first_day),
                to_date=_date(last_day),
                payer=payer_reference,
                plan=plan.name,
            )
            coverages.append(_Coverage(first_day, reference, payer_reference, Accumulator(plan, allowed_permille)))
        return coverages

    # ── what lies ahead ──
    def _plan(self, day: int, reason: str, illness: Illness | None = None) -> None:
        self._planned += 1
        heappush(self._agenda, _Planned(day, self._planned, reason, illness))

    def _doses_due(self) -> list[tuple[int, codes.Coding]]:
        """Doses that fall due while we look on, latest first, so that the next one is popped off the end."""
        oldest = self._first_day - self._person.birth
        due = [(day, v.coding) for v in codes.VACCINES for day in v.due_days if day >= oldest]
        due.sort(key=lambda dose: -dose[0])
        return due

    def _plan_life(self) -> None:
        birth, draws = self._person.birth, self._draws
        for age in _WELL_CHILD_DAYS:
            if birth + age > self._first_day:
                self._plan(birth + age + draws.below(7), "well-child")
        day = max(self._first_day + draws.between(10, 300), birth + _ADULT + draws.between(30, 200))
        while day <= self._last_day:
            self._plan(day, "check-up")
            day += 365 + draws.spread(25)
        for day in range(self._first_day + 5, self._last_day - 5, 365):
            for permille in (450, 150):
                if draws.chance(permille):
                    self._plan_illness(day + draws.below(360))
        for name, permille, youngest, oldest in (("asthma", 90, 3, 40), ("depression", 80, 16, 60)):
            onset = birth + draws.between(youngest * 365, oldest * 365)
            if draws.chance(permille) and onset <= self._last_day:
                self._plan(max(onset, self._first_day + 2), name)
                self._onsets[name] = onset

    def _plan_illness(self, day: int) -> None:
        years = years_at(day - self._person.birth)
        fitting = [illness for illness in codes.ILLNESSES if illness.ages[0] <= years <= illness.ages[1]]
        if fitting:
            self._plan(day, "illness", self._draws.pick(fitting))

    def write(self) -> History:
        """The whole history."""
        self._plan_life()
        previous = self._person.birth
        while self._agenda:
            planned = heappop(self._agenda)
            day = max(planned.day, previous + 1)
            if day > self._last_day:
                break
            previous = day
            self._attend(day, planned)
        self._close()
        entries = [entry for entry in self._entries if entry is not None]
        return History(tuple(self._shared.values()), entries, self._person.death is not None)

    # ── visits ──
    def _open(self, day: int, service: str, reason: codes.Coding, clinic: Clinic, practitioner: Shared) -> _Visit:
        minute = 8 * 60 + 5 * self._draws.below(108)
        until = minute + self._draws.between(3, 9) * 5
        today = _date(day)
        common = {
            "subject": self._subject,
            "practitioner": self._use(practitioner),
            "organization": self._use(clinic.organization),
            "start": f"{today}T{minute // 60:02d}:{minute % 60:02d}:00Z",
            "end": f"{today}T{until // 60:02d}:{until % 60:02d}:00Z",
        }
        kind = codes.ENCOUNTERS[service]
        class_code = "EMER" if service == "emergency" else "AMB"
        common["encounter"] = self._add(
            "Encounter",
            forms.ENCOUNTER,
            class_code=class_code,
            class_display=_VISIT_CLASS[class_code],
            service=_CONCEPTS[kind.coding],
            reason=_CONCEPTS[reason],
            **common,
        )
        visit = _Visit(day, day - self._person.birth, clinic.charge_permille, common, _CONCEPTS[reason])
        visit.findings.append(f"Reason: {reason.display}")
        visit.bill(kind.coding, kind.price_cents, service == "well-child")
        if not self._known:
            self._known = True
            self._record_allergies(visit)
        return visit

    def _attend(self, day: int, planned: _Planned) -> None:
        reason, illness = planned.reason, planned.illness
        if illness is not None:
            visit = self._attend_illness(day, illness)
        elif reason in ("asthma", "depression"):
            visit = self._attend_onset(day, reason)
        elif reason in ("well-child", "check-up"):
            visit = self._open(day, reason, codes.EXAMINATION, self._clinic, self._practitioner)
            self._examine(visit, adult=reason == "check-up")
        else:
            condition = codes.CONDITIONS[reason.removeprefix(_REGULAR)]
            visit = self._open(day, "follow-up", condition, self._clinic, self._practitioner)
            self._follow_up(visit, reason)
        self._claim(visit)

    def _attend_illness(self, day: int, illness: Illness) -> _Visit:
        clinic = self._emergency_clinic if illness.emergency else self._clinic
        practitioner = clinic.practitioners[0] if illness.emergency else self._practitioner
        visit = self._open(day, "emergency" if illness.emergency else "symptom", illness.coding, clinic, practitioner)
        self._measure(visit, "heart-rate", self._body.heart_rate(visit.age))
        self._measure(visit, "temperature", self._body.temperature(fever=not illness.emergency))
        diagnosis = self._diagnosis(visit, illness.coding, visit.common["start"])
        recovered = day + self._draws.between(*illness.days)
        if recovered <= self._last_day:
            diagnosis.abatement = _date(recovered)
        self._closed.append(diagnosis)
        if illness.procedure is not None:
            self._perform(visit, illness.procedure)
        if illness.drug is not None:
            allergic = illness.drug == "amoxicillin" and self._allergic_to_penicillin
            drug = "azithromycin" if allergic else illness.drug
            self._prescribe(visit, drug if visit.age >= _TABLETS else drug + ", child", diagnosis)
        return visit

    def _attend_onset(self, day: int, name: str) -> _Visit:
        visit = self._open(day, "symptom", codes.CONDITIONS[name], self._clinic, self._practitioner)
        self._measure(visit, "heart-rate", self._body.heart_rate(visit.age))
        self._perform(visit, "spirometry" if name == "asthma" else "depression-screening")
        onset = self._onsets[name]
        self._diagnose(visit, name, visit.common["start"] if onset >= day else _date(onset))
        return visit

    def _examine(self, visit: _Visit, adult: bool) -> None:
        bmi = self._take_vitals(visit)
        if adult:
            self._add("Observation", forms.SMOKING_FORM, value=_CONCEPTS[self._smoking], **visit.common)
            if bmi >= physiology.OBESE_BMI and "obesity" not in self._diagnoses:
                self._diagnose(visit, "obesity", visit.common["start"])
            self._test_blood(visit, ("a1c", "metabolic", "lipid") if visit.age >= 12_784 else ("metabolic",))
            self._screen(visit)
        self._immunize(visit)
        self._renew(visit)
        self._write_note(visit)

    def _follow_up(self, visit: _Visit, reason: str) -> None:
        """A second look at a suspicion, or the half-yearly visit of somebody with a chronic condition."""
        if reason == "hypertension":
            self._take_vitals(visit)
        elif reason == "diabetes":
            self._test_blood(visit, ("a1c",))
        elif reason == "kidney":
            self._test_blood(visit, ("metabolic",))
        else:
            self._take_vitals(visit)
            watched = (("a1c", "diabetes"), ("lipid", "hyperlipidemia"))
            self._test_blood(visit, (*(panel for panel, name in watched if name in self._diagnoses), "metabolic"))
            self._renew(visit)
            self._plan(visit.day + 175 + self._draws.spread(20), reason)
        self._write_note(visit)

    def _screen(self, visit: _Visit) -> None:
        if self._chronic:
            self._perform(visit, "reconciliation")
        if "depression" not in self._diagnoses and self._draws.chance(250):
            self._perform(visit, "depression-screening")
        if 50 <= years_at(visit.age) <= 75 and self._rested(visit, codes.PROCEDURES["colonoscopy"].coding, 3652):
            self._perform(visit, "colonoscopy")

    # ── findings ──
    def _measure(self, visit: _Visit, name: str, value: int) -> str:
        form, measure = _MEASURE_FORMS[name]
        low = measure.low is not None and value < measure.low
        high = measure.high is not None and value > measure.high
        text = decimal(value, measure.places)
        visit.findings.append(f"{measure.coding.display}: {text} {measure.unit}")
        interpretation = "L" if low else "H" if high else "N"
        return self._add("Observation", form, value=text, interpretation=interpretation, **visit.common)

    def _take_vitals(self, visit: _Visit) -> int:
        """Weight, height, BMI, heart rate, and from three years on blood pressure; gives the BMI."""
        body, age = self._body, visit.age
        height, weight = body.height(age), body.weight(age)
        bmi = physiology.body_mass_index(weight, height)
        self._measure(visit, "height", height)
        self._measure(visit, "weight", weight)
        self._measure(visit, "bmi", bmi)
        self._measure(visit, "heart-rate", body.heart_rate(age))
        if age >= 1096:
            systolic, diastolic = body.pressure(age, bmi)
            visit.findings.append(f"Blood pressure: {systolic}/{diastolic} mm[Hg]")
            pressure = {"systolic": systolic, "diastolic": diastolic}
            self._add("Observation", forms.BLOOD_PRESSURE_FORM, **pressure, **visit.common)
            if age >= _ADULT:
                self._judge_pressure(visit, systolic, diastolic)
        return bmi

    def _test_blood(self, visit: _Visit, panels: tuple[str, ...]) -> None:
        a1c = self._body.a1c(visit.age)
        for panel in panels:
            if panel == "a1c":
                results = [("a1c", a1c)]
            elif panel == "metabolic":
                creatinine = self._body.creatinine(visit.age)
                years = _completed_years(self._person.birth, visit.day)
                rate = physiology.filtration_rate(creatinine, self._person.sex, years)
                results = [
                    ("glucose", self._body.glucose(a1c)),
                    ("creatinine", creatinine),
                    ("egfr", rate),
                    ("sodium", self._body.sodium()),
                    ("potassium", self._body.potassium()),
                ]
                self._judge_kidney(visit, rate)
            else:
                amounts = self._body.lipids(visit.age)
                results = list(zip(("cholesterol", "triglycerides", "hdl", "ldl"), amounts, strict=True))
            references = [self._measure(visit, name, value) for name, value in results]
            self._add(
                "DiagnosticReport",
                _REPORT_FORMS[panel],
                results="[" + ",".join(f'{{"reference":"{reference}"}}' for reference in references) + "]",
                **visit.common,
            )
            service = codes.PANELS[panel]
            visit.bill(service.coding, service.price_cents)
            if panel == "a1c":
                self._judge_a1c(visit, a1c)
            elif panel == "lipid":
                self._judge_ldl(visit, results[3][1])

    # ── judgement ──
    def _judge_pressure(self, visit: _Visit, systolic: int, diastolic: int) -> None:
        """Hypertension is two raised readings up to ten weeks apart; raised under treatment, a second drug is added."""
        raised = systolic >= physiology.HYPERTENSIVE_SYSTOLIC or diastolic >= physiology.HYPERTENSIVE_DIASTOLIC
        known = self._diagnoses.get("hypertension")
        if known is not None:
            treated_days = visit.day - self._treated_since["lisinopril"]
            if raised and "amlodipine" not in self._chronic and treated_days > 90:
                self._prescribe(visit, "amlodipine", known, chronic=True)
                self._body.treat("pressure", visit.age, self._draws.between(8, 14))
            return
        seen = self._suspected.pop("hypertension", None)
        if not raised:
            return
        if seen is not None and visit.day - seen <= 70:
            self._diagnose(visit, "hypertension", visit.common["start"])
        else:
            self._suspected["hypertension"] = visit.day
            self._plan(visit.day + self._draws.between(14, 42), "hypertension")

    def _judge_a1c(self, visit: _Visit, a1c: int) -> None:
        """Diabetes is 6.5 % twice within ten weeks; 5.7 % once is prediabetes, which diabetes ends."""
        if "diabetes" in self._diagnoses:
            return
        seen = self._suspected.pop("diabetes", None)
        if a1c >= physiology.DIABETIC_A1C:
            if seen is not None and visit.day - seen <= 70:
                earlier = self._diagnoses.get("prediabetes")
                if earlier is not None:
                    earlier.abatement = visit.date
                self._diagnose(visit, "diabetes", visit.common["start"])
            else:
                self._suspected["diabetes"] = visit.day
                self._plan(visit.day + self._draws.between(14, 42), "diabetes")
        elif a1c >= physiology.PREDIABETIC_A1C and "prediabetes" not in self._diagnoses:
            self._diagnose(visit, "prediabetes", visit.common["start"])

    def _judge_ldl(self, visit: _Visit, ldl: int) -> None:
        if ldl >= physiology.HIGH_LDL and "hyperlipidemia" not in self._diagnoses:
            self._diagnose(visit, "hyperlipidemia", visit.common["start"])

    def _judge_kidney(self, visit: _Visit, rate: int) -> None:
        """Chronic kidney disease is an eGFR under 60 that is still so after 90 days (KDIGO 2012)."""
        if "kidney" in self._diagnoses:
            return
        if rate >= physiology.LOW_EGFR:
            self._suspected.pop("kidney", None)
            return
        seen = self._suspected.setdefault("kidney", visit.day)
        if seen == visit.day:
            self._plan(visit.day + self._draws.between(92, 120), "kidney")
        elif visit.day - seen >= 90:
            self._diagnose(visit, "kidney", visit.common["start"])

    # ── what is wrong and what is done ──
    def _diagnosis(self, visit: _Visit, coding: codes.Coding, onset: str) -> _Diagnosis:
        slot, identifier = self._reserve()
        values = {"id": identifier, "onset": onset, "recorded": visit.common["start"], **visit.common}
        visit.findings.append(f"Assessment: {coding.display}")
        return _Diagnosis(coding, slot, self._refer("Condition", identifier), values)

    def _diagnose(self, visit: _Visit, name: str, onset: str) -> None:
        """Writes down a chronic condition, starts its treatment and the half-yearly visits."""
        followed = any(other in _TREATMENT for other in self._diagnoses)
        diagnosis = self._diagnosis(visit, codes.CONDITIONS[name], onset)
        self._diagnoses[name] = diagnosis
        treatment = _TREATMENT.get(name)
        if treatment is None:
            return
        drug, measure, least, most = treatment
        self._prescribe(visit, drug, diagnosis, chronic=True)
        if measure is not None:
            self._body.treat(measure, visit.age, self._draws.between(least, most))
        if not followed:
            self._plan(visit.day + self._draws.between(150, 190), _REGULAR + name)

    def _prescribe(self, visit: _Visit, drug: str, diagnosis: _Diagnosis, chronic: bool = False) -> None:
        slot, identifier = self._reserve()
        label = _SENSITIVITY.get(diagnosis.coding)
        values = {"id": identifier, "condition": diagnosis.reference, **visit.common}
        supply = codes.DRUGS[drug]
        prescription = _Prescription(drug, label, slot, visit.day + supply.supply_days, values)
        self._prescriptions.append(prescription)
        visit.findings.append(f"Prescribed: {supply.coding.display}. {supply.dosage}.")
        if chronic:
            if drug in self._chronic:
                self._chronic[drug].renewed = True
            self._chronic[drug] = prescription
            self._treated_since.setdefault(drug, visit.day)
        line = Line(_CONCEPTS[supply.coding], portion(supply.price_cents, visit.charge_permille, 1000), False)
        reason = _CONCEPTS[diagnosis.coding]
        self._submit(visit, "pharmacy", [line], reason, self._refer("MedicationRequest", identifier))

    def _renew(self, visit: _Visit) -> None:
        for drug, prescription in list(self._chronic.items()):
            if prescription.until - visit.day <= 25:
                self._prescribe(visit, drug, self._reason_for(drug), chronic=True)

    def _reason_for(self, drug: str) -> _Diagnosis:
        names = [name for name, (first, *_) in _TREATMENT.items() if first == drug]
        return self._diagnoses[names[0] if names else "hypertension"]

    def _perform(self, visit: _Visit, name: str) -> None:
        service = codes.PROCEDURES[name]
        self._last_done[service.coding] = visit.day
        visit.findings.append(f"Done: {service.coding.display}")
        self._add("Procedure", forms.PROCEDURE, service=_CONCEPTS[service.coding], **visit.common)
        visit.bill(service.coding, service.price_cents, name == "colonoscopy")

    def _immunize(self, visit: _Visit) -> None:
        """Gives the doses due, never two of one vaccine within four weeks, and influenza at most once a year."""
        too_early = []
        while self._doses and self._doses[-1][0] <= visit.age:
            dose = self._doses.pop()
            if self._rested(visit, dose[1], 28):
                self._give(visit, dose[1])
            else:
                too_early.append(dose)
        self._doses.extend(reversed(too_early))
        if visit.age >= 183 and self._rested(visit, codes.INFLUENZA, 300) and self._draws.chance(600):
            self._give(visit, codes.INFLUENZA)

    def _rested(self, visit: _Visit, done: codes.Coding, days: int) -> bool:
        last = self._last_done.get(done)
        return last is None or visit.day - last >= days

    def _give(self, visit: _Visit, vaccine: codes.Coding) -> None:
        self._last_done[vaccine] = visit.day
        lot = f"L{self._draws.below(10**6):06d}"
        self._add("Immunization", forms.IMMUNIZATION, vaccine=_CONCEPTS[vaccine], lot=lot, **visit.common)
        visit.findings.append(f"Vaccine given: {vaccine.display}")
        visit.bill(vaccine, codes.VACCINE_PRICE_CENTS, preventive=True)

    def _record_allergies(self, visit: _Visit) -> None:
        if not self._draws.chance(220):
            return
        first = self._draws.below(len(codes.ALLERGIES))
        count = 2 if self._draws.chance(300) else 1
        for coding, _, _ in (codes.ALLERGIES[(first + step) % len(codes.ALLERGIES)] for step in range(count)):
            self._allergic_to_penicillin |= coding == codes.PENICILLIN_ALLERGY
            self._add("AllergyIntolerance", _ALLERGY_FORMS[coding], **visit.common)

    def _write_note(self, visit: _Visit) -> None:
        who = self._person
        title = f"Progress note {visit.date}"
        note = "\n".join(
            (
                title.upper(),
                f"Patient: {who.given} {who.family}, {who.sex}, record {who.mrn}",
                f"Address: {who.place.street}, {who.place.postcode} {who.place.town}, {who.place.phone}",
                f"Seen: {visit.common['start']} to {visit.common['end']}",
                "",
                *visit.findings,
                "",
            )
        ).encode()
        self._add(
            "DocumentReference",
            forms.NOTE,
            title=title + self._mark,
            data=b64encode(note).decode(),
            size=len(note),
            digest=b64encode(hashlib.sha1(note, usedforsecurity=False).digest()).decode(),
            **visit.common,
        )

    # ── money ──
    def _claim(self, visit: _Visit) -> None:
        self._submit(visit, "professional", visit.lines, visit.reason, "")

    def _submit(self, visit: _Visit, kind: str, lines: list[Line], reason: str, prescription: str) -> None:
        """A Claim when the visit ends, and its ExplanationOfBenefit days later if the history lasts that long."""
        coverage = next(c for c in reversed(self._coverages) if c.first_day <= visit.day)
        common = {**visit.common, "coverage": coverage.reference, "payer": coverage.payer, "date": visit.date}
        items = ",".join(
            forms.CLAIM_ITEM(sequence=at, product=line.product, charge=decimal(line.charge, 2), **common)
            for at, line in enumerate(lines, 1)
        )
        claim = self._add(
            "Claim",
            _CLAIM_FORMS[kind],
            created=visit.common["end"],
            prescription=prescription,
            reason=reason,
            items=f"[{items}]",
            total=decimal(sum(line.charge for line in lines), 2),
            **common,
        )
        decided = coverage.accumulator.adjudicate(lines, int(visit.date[:4]))
        decided_on = visit.day + self._draws.between(2, 16)
        if decided_on > self._last_day:
            return
        items = ",".join(
            forms.EXPLANATION_ITEM(sequence=at, product=line.product, **_amounts(amounts), **common)
            for at, (line, amounts) in enumerate(zip(lines, decided, strict=True), 1)
        )
        self._add(
            "ExplanationOfBenefit",
            _EXPLANATION_FORMS[kind],
            created=_date(decided_on),
            claim=claim,
            items=f"[{items}]",
            **_amounts(total(decided)),
            **common,
        )

    # ── the end ──
    def _close(self) -> None:
        """Fills the places kept for what only the end tells: conditions that are over, drugs still taken."""
        for diagnosis in (*self._diagnoses.values(), *self._closed):
            resolved = diagnosis.abatement is not None
            values = {**diagnosis.values, "abatement": diagnosis.abatement or ""}
            text = _CONDITION_FORMS[diagnosis.coding, resolved](**values)
            self._entries[diagnosis.slot] = Entry("Condition", values["id"], text)
        for taken in self._prescriptions:
            if taken.renewed or taken.until <= self._last_day:
                status = "completed"
            else:
                status = "active" if self._person.death is None else "stopped"
            text = _PRESCRIPTION_FORMS[taken.drug, taken.label](status=status, **taken.values)
            self._entries[taken.slot] = Entry("MedicationRequest", taken.values["id"], text)


def _amounts(adjudicated: Adjudicated) -> dict[str, str]:
    return {name: decimal(cents, 2) for name, cents in zip(Adjudicated._fields, adjudicated, strict=True)}


def write_history(commons: Commons, seed: int, index: int, years: int, mark: str, refer: Refer) -> History:
    """The history of patient `index` of `seed`; `refer(type, id)` decides how resources point at each other."""
    return _Life(commons, seed, index, years, mark, refer).write()
