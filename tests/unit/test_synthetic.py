"""Generated patients: the same bytes for ever, the promised content, and rules that notice every planted fault."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import subprocess
import sys
import tracemalloc
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import cache
from itertools import islice
from typing import Any

import pytest
from ehrfast import synthetic
from ehrfast.synthetic import describe_bundles, generate_bundles, generate_resources

from tests.reference import patient_rules as rules

Json = dict[str, Any]
LAST = date(2026, 6, 30)

# Changing these is a deliberate act: the demo, the benches and whoever noted a figure rest on these bytes.
PINNED_BUNDLES = "258d5db9ad989636a13280af8f553aa812f92ba72ad8ac2fc6bbf44ca8610e58"
PINNED_RESOURCES = "2bb09ffb3856bbaec0d03c74d8c48426a7fbc2d6ce4827144686df79d68ec6c1"
PINNED_COUNTS = {
    "AllergyIntolerance": 10,
    "Claim": 985,
    "Condition": 226,
    "Coverage": 44,
    "DiagnosticReport": 922,
    "DocumentReference": 558,
    "Encounter": 762,
    "ExplanationOfBenefit": 981,
    "Immunization": 402,
    "MedicationRequest": 223,
    "Observation": 6719,
    "Organization": 12,
    "Patient": 40,
    "Practitioner": 26,
    "Procedure": 311,
}


@cache
def bundles() -> tuple[Json, ...]:
    return tuple(rules.parse(bundle) for bundle in generate_bundles(40))


def first_with(*kinds: str) -> Json:
    """A copy of the first generated Bundle that holds resources of all these types."""
    return copy.deepcopy(next(bundle for bundle in bundles() if all(rules.resources(bundle, kind) for kind in kinds)))


def first_diagnosed(code: str, *, resolved: bool = False) -> Json:
    return copy.deepcopy(
        next(
            bundle
            for bundle in bundles()
            if any("abatementDateTime" in found or not resolved for found in rules.conditions(bundle, code))
        )
    )


# ── bytes ──
def test_bundles_are_pinned_byte_for_byte() -> None:
    digest = hashlib.sha256(b"".join(generate_bundles(20)))
    assert digest.hexdigest() == PINNED_BUNDLES


def test_resources_are_pinned_byte_for_byte() -> None:
    digest = hashlib.sha256(b"\n".join(generate_resources(5_000)))
    assert digest.hexdigest() == PINNED_RESOURCES


def test_another_process_with_another_hash_seed_makes_the_same_bytes() -> None:
    program = (
        "import hashlib, sys; from ehrfast.synthetic import generate_bundles;"
        "sys.stdout.write(hashlib.sha256(b''.join(generate_bundles(20))).hexdigest())"
    )
    paths = [path for path in sys.path if path]
    for hash_seed in ("1", "4711"):
        environment = {"PYTHONPATH": ":".join(paths), "PYTHONHASHSEED": hash_seed, "LC_ALL": "C", "TZ": "Asia/Tokyo"}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
        assert done.stdout.decode() == PINNED_BUNDLES


def test_a_patient_does_not_depend_on_how_many_are_made() -> None:
    many = list(generate_bundles(9, seed=5))
    assert many[:3] == list(generate_bundles(3, seed=5))
    assert many[4:7] == list(generate_bundles(3, seed=5, first=4))


def test_another_seed_or_length_is_another_population() -> None:
    here, there = (next(generate_bundles(1, seed=seed)) for seed in (1, 2))
    longer = next(generate_bundles(1, years=20))
    assert len({here, there, longer}) == 3
    ids = [{resource["id"] for resource in rules.resources(rules.parse(bundle))} for bundle in (here, there)]
    assert not ids[0] & ids[1]


# ── content ──
def test_bundles_obey_every_rule() -> None:
    for bundle in bundles():
        rules.check_all(bundle, LAST)


@pytest.mark.parametrize(
    ("number", "codes", "turn"),
    [
        (90, {"15777000", "44054006"}, "prediabetes that became diabetes"),
        (47, {"433144002"}, "kidney disease"),
        (79, set(), "a drug renewed while the last supply still lasts on the closing day"),
    ],
)
def test_rare_turns_obey_the_rules_too(number: int, codes: set[str], turn: str) -> None:
    bundle = rules.parse(next(generate_bundles(1, first=number)))
    assert all(rules.conditions(bundle, code) for code in codes), turn
    rules.check_all(bundle, LAST)


def test_every_promised_type_is_there() -> None:
    kinds = Counter(resource["resourceType"] for bundle in bundles() for resource in rules.resources(bundle))
    assert set(kinds) == set(rules.MANDATORY)


def test_something_happens_to_people() -> None:
    """The conditions, deaths, allergies and labels which other tests want to meet do occur."""
    everything = [resource for bundle in bundles() for resource in rules.resources(bundle)]
    found = {rules.code_of(resource) for resource in everything if resource["resourceType"] == "Condition"}
    assert {"59621000", "44054006", "15777000", "55822004", "162864005", "195967001", "370143000"} <= found
    assert {"deceasedDateTime" in resource for resource in everything if resource["resourceType"] == "Patient"} == {
        True,
        False,
    }
    labels = {label["code"] for resource in everything for label in rules.at(resource, "meta.security")}
    assert labels == {"PSY", "R"}
    statuses = {r["status"] for r in everything if r["resourceType"] == "MedicationRequest"}
    assert statuses == {"active", "completed", "stopped"}
    names = [r["name"][0]["family"] for r in everything if r["resourceType"] == "Patient"]
    assert not all(name.isascii() for name in names), "no name tries UTF-8"


def test_ids_are_unique_across_patients_and_shared_resources_keep_their_bytes() -> None:
    owned: set[str] = set()
    shared: dict[str, str] = {}
    numbers: set[str] = set()
    for bundle in generate_bundles(60):
        for line in bundle.decode().split("\n")[1:-2]:
            entry = json.loads(line.removesuffix(","))
            resource = entry["resource"]
            if resource["resourceType"] in rules.SHARED:
                assert shared.setdefault(resource["id"], line.removesuffix(",")) == line.removesuffix(",")
            else:
                assert resource["id"] not in owned
                owned.add(resource["id"])
            if resource["resourceType"] == "Patient":
                numbers.add(resource["identifier"][0]["value"])
    assert len(numbers) == 60
    for number in numbers:
        digits = [int(digit) for digit in number.replace("-", "")][::-1]
        assert (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0
    assert not owned & set(shared)
    assert 10 < len(shared) < 60


def test_blood_pressure_rises_with_age() -> None:
    """Over the untreated of a population, so that no single reading decides."""
    by_age: dict[bool, list[int]] = {True: [], False: []}
    for bundle in bundles():
        born = rules.day(rules.patient_of(bundle)["birthDate"])
        if not rules.prescriptions(bundle, "lisinopril"):
            for observation in rules.resources(bundle, "Observation"):
                if "component" in observation:
                    age = (rules.day(observation["effectiveDateTime"]) - born).days // 365
                    by_age[age >= 50].append(observation["component"][0]["valueQuantity"]["value"])
    assert sum(by_age[True]) / len(by_age[True]) > sum(by_age[False]) / len(by_age[False]) + 10


def test_children_are_vaccinated_when_due() -> None:
    for parsed in bundles():
        born = rules.day(rules.patient_of(parsed)["birthDate"])
        doses = rules.resources(parsed, "Immunization")
        ages = {rules.code_of(dose, "vaccineCode"): rules.day(dose["occurrenceDateTime"]) - born for dose in doses}
        for vaccine, days in (("03", 365), ("21", 365), ("113", 7670), ("33", 23741)):
            assert vaccine not in ages or ages[vaccine].days >= days
        if (LAST - born).days in range(800, 3000):
            assert {"08", "20", "10", "03", "21"} <= set(ages)


# ── resources ──
def test_resources_are_lines_that_refer_to_what_came_or_comes() -> None:
    lines = list(generate_resources(3_000, seed=3))
    assert len(lines) == 3_000
    parsed = [json.loads(line) for line in lines]
    assert not any(b"\n" in line for line in lines)
    names = {f"{resource['resourceType']}/{resource['id']}" for resource in parsed}
    assert len(names) == 3_000
    whole = [json.loads(line) for line in generate_resources(5_000, seed=3)]
    known = {f"{resource['resourceType']}/{resource['id']}" for resource in whole}
    for resource in parsed:
        for name, value in rules.leaves(resource):
            if name == "reference":
                assert value in known


def test_resources_are_those_of_the_bundles_but_for_their_references() -> None:
    def plain(resource: Json) -> str:
        return re.sub(r'"reference": "[^"]*?([0-9a-f-]{36})"', r'"\1"', json.dumps(resource))

    bundled: list[str] = []
    for bundle in generate_bundles(5, seed=9):
        bundled += [plain(entry["resource"]) for entry in json.loads(bundle)["entry"]]
    expected = list(dict.fromkeys(bundled))
    assert [plain(json.loads(line)) for line in generate_resources(len(expected), seed=9)] == expected


# ── description ──
def test_the_description_counts_what_is_generated() -> None:
    described = describe_bundles(40)
    assert dict(described.counts) == PINNED_COUNTS
    distinct = {(r["resourceType"], r["id"]) for bundle in bundles() for r in rules.resources(bundle)}
    assert described.counts == Counter(kind for kind, _ in distinct)
    assert described.resources == len(distinct)
    assert described.entries == sum(len(bundle["entry"]) for bundle in bundles())
    assert described.size_bytes == sum(len(bundle) for bundle in generate_bundles(40))
    assert described.deceased == sum("deceasedDateTime" in rules.patient_of(bundle) for bundle in bundles())
    with pytest.raises(TypeError):
        described.counts["Patient"] = 0  # type: ignore[index]


# ── markers ──
def test_a_marker_ends_every_text_that_tells_who_somebody_is() -> None:
    marker = "MARK-7f3a"
    for marked, bare in zip(generate_bundles(6, marker=marker), generate_bundles(6), strict=True):
        assert marked.replace(f" {marker}".encode(), b"") != marked
        for resource in rules.resources(rules.parse(marked)):
            for path in ("name.family", "name.given", "address.line", "address.city", "telecom.value", "text.div",
                         "subscriberId", "description"):  # fmt: skip
                if path == "name.family" and resource["resourceType"] == "Organization":
                    assert marker in resource["name"]
                elif not (resource["resourceType"] == "Organization" and path.startswith("name")):
                    assert all(marker in text for text in rules.at(resource, path)), path
            if resource["resourceType"] == "Patient":
                assert marker in resource["identifier"][0]["value"]
            if resource["resourceType"] == "DocumentReference":
                assert marker in b64decode(resource["content"][0]["attachment"]["data"]).decode()
        ids = [[resource["id"] for resource in rules.resources(rules.parse(bundle))] for bundle in (marked, bare)]
        assert ids[0] == ids[1]
        rules.check_all(rules.parse(marked), LAST)


@pytest.mark.parametrize(
    "arguments",
    [{"patients": -1}, {"seed": -1}, {"seed": 2**64}, {"first": -1}, {"first": 10**8}, {"years": 0}, {"years": 101},
     {"marker": ""}, {"marker": "a b"}, {"marker": 'a"b'}, {"marker": "ä"}, {"marker": "x" * 65}],
)  # fmt: skip
def test_bad_arguments_are_refused_by_the_call(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        generate_bundles(**{"patients": 1, **arguments})
    if "first" not in arguments and "patients" not in arguments:
        with pytest.raises(ValueError, match="must be"):
            generate_resources(1, **arguments)


def test_nothing_asked_nothing_given() -> None:
    assert list(generate_bundles(0)) == []
    assert list(generate_resources(0)) == []
    with pytest.raises(ValueError, match="count"):
        generate_resources(-1)


@pytest.mark.parametrize(
    "extreme", [{"seed": 0}, {"seed": 2**64 - 1}, {"first": 10**8 - 1}, {"years": 1}, {"years": 100}]
)
def test_the_ends_of_the_ranges_work(extreme: dict[str, Any]) -> None:
    rules.check_all(rules.parse(next(generate_bundles(1, **extreme))), LAST)


# ── memory ──
def test_memory_stays_flat() -> None:
    generator = generate_bundles(10**6, years=2)
    largest = max(len(bundle) for bundle in islice(generator, 30))
    tracemalloc.start()
    try:
        for _ in islice(generator, 30):
            pass
        early, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        made = sum(len(bundle) for bundle in islice(generator, 200))
        late, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert late - early < made // 20
    assert peak < 20 * largest


# ── planted faults: each must be noticed by the rule that guards against it ──
def _last(bundle: Json, kind: str) -> Json:
    found: Json = rules.resources(bundle, kind)[-1]
    return found


def _after_death(bundle: Json) -> None:
    patient = rules.patient_of(bundle)
    patient["deceasedDateTime"] = _last(bundle, "Encounter")["period"]["start"]


def _doubled_line(bundle: Json) -> None:
    claim = _last(bundle, "Claim")
    claim["item"].append({**claim["item"][0], "sequence": len(claim["item"]) + 1})


def _lost_cent(bundle: Json) -> None:
    amount = _last(bundle, "ExplanationOfBenefit")["item"][0]["adjudication"][-1]["amount"]
    amount["value"] += Decimal("0.01")


def _normal_pressures(bundle: Json) -> None:
    for observation in rules.resources(bundle, "Observation"):
        for part, value in zip(observation.get("component", ()), (120, 70), strict=False):
            part["valueQuantity"]["value"] = value


def _useless_drug(bundle: Json) -> None:
    start = min(item["authoredOn"] for item in rules.prescriptions(bundle, "lisinopril"))
    for observation in rules.resources(bundle, "Observation"):
        if "component" in observation and observation["effectiveDateTime"] > start:
            observation["component"][0]["valueQuantity"]["value"] += 60


def _set(kind: str, **members: Any) -> Callable[[Json], None]:
    return lambda bundle: _last(bundle, kind).update(members)


def _drop(kind: str, name: str) -> Callable[[Json], None]:
    return lambda bundle: _last(bundle, kind).pop(name)


def _heavier(bundle: Json) -> None:
    for observation in rules.resources(bundle, "Observation"):
        if rules.code_of(observation) == "29463-7":
            observation["valueQuantity"]["value"] += 1


def _same_id(bundle: Json) -> None:
    bundle["entry"][-1]["fullUrl"] = bundle["entry"][-2]["fullUrl"]


def _stranger(bundle: Json) -> None:
    _last(bundle, "Observation")["subject"]["reference"] = "urn:uuid:" + _last(bundle, "Organization")["id"]


def _other_text(bundle: Json) -> None:
    _last(bundle, "DocumentReference")["content"][0]["attachment"]["size"] += 1


def _early(bundle: Json) -> None:
    rules.patient_of(bundle)["birthDate"] = "2026-06-29"


def _penicillin(bundle: Json) -> None:
    _last(bundle, "AllergyIntolerance")["code"]["coding"][0]["code"] = "91936005"
    item = _last(bundle, "MedicationRequest")
    item["medicationCodeableConcept"]["text"] = "amoxicillin"


def _never_ended(bundle: Json) -> None:
    for condition in rules.conditions(bundle, "195662009"):
        condition.pop("abatementDateTime", None)


def _uninsured(bundle: Json) -> None:
    for coverage in rules.resources(bundle, "Coverage"):
        coverage["period"]["end"] = coverage["period"]["start"]


MONEY = lambda bundle: rules.check_money(bundle, rules.DEDUCTIBLES)  # noqa: E731
DATES = lambda bundle: rules.check_dates(bundle, LAST)  # noqa: E731
FAULTS: dict[str, tuple[Callable[[], Json], Callable[[Json], Any], Callable[[Json], None]]] = {
    "an event after death": (lambda: first_with("Claim"), _after_death, DATES),
    "an event before birth": (lambda: first_with("Claim"), _early, DATES),
    "a line nobody summed": (lambda: first_with("Claim"), _doubled_line, MONEY),
    "a cent from nowhere": (lambda: first_with("ExplanationOfBenefit"), _lost_cent, MONEY),
    "a claim without cover": (lambda: first_with("Claim"), _uninsured, MONEY),
    "hypertension unmeasured": (lambda: first_diagnosed("59621000"), _normal_pressures, rules.check_diagnoses),
    "a drug that does nothing": (lambda: first_diagnosed("59621000"), _useless_drug, rules.check_treatment),
    "penicillin in spite of allergy": (
        lambda: first_with("AllergyIntolerance", "MedicationRequest"), _penicillin, rules.check_treatment),
    "a BMI of another weight": (lambda: first_with("Encounter"), _heavier, rules.check_measures),
    "an unknown status": (lambda: first_with("Procedure"), _set("Procedure", status="done"), rules.check_elements),
    "a missing element": (lambda: first_with("Coverage"), _drop("Coverage", "payor"), rules.check_elements),
    "an empty array": (lambda: first_with("Encounter"), _set("Encounter", reasonCode=[]), rules.check_elements),
    "an ended but active condition": (
        lambda: first_diagnosed("195662009", resolved=True), _never_ended, rules.check_elements),
    "a reference to nothing": (
        lambda: first_with("Procedure"),
        lambda bundle: bundle["entry"].remove(
            next(e for e in bundle["entry"] if e["resource"]["resourceType"] == "Encounter")), rules.check_references),
    "somebody else's record": (lambda: first_with("Observation"), _stranger, rules.check_references),
    "two entries under one URL": (lambda: first_with("Encounter"), _same_id, rules.check_bundle),
    "an attachment of another size": (lambda: first_with("DocumentReference"), _other_text, rules.check_notes),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_rules_notice(fault: str) -> None:
    make, plant, check = FAULTS[fault]
    bundle = make()
    check(bundle)
    plant(bundle)
    with pytest.raises(AssertionError):
        check(bundle)


def test_public_names_are_those_of_all() -> None:
    assert set(synthetic.__all__) == {
        "DEFAULT_YEARS", "Description", "describe_bundles", "generate_bundles", "generate_resources"
    }  # fmt: skip
