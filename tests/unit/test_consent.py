"""What consents say, case by case: each trap that broke somebody, by name."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from ehrfast.errors import InvalidInputError
from ehrfast.policy.answer import answer_of
from ehrfast.policy.decide import Policies, decide
from ehrfast.policy.fhir import read_consent, read_consents
from ehrfast.policy.request import read_now, read_request

Json = dict[str, Any]
NOW = "2026-06-30T12:00:00Z"
REASONS = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
SENSITIVITY = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
RECIPIENT = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "IRCP"}]}


def consent(
    type_: str | None = "permit", *exceptions: Json, id: str = "c1", date: str = "2022-06-13", **root: Any
) -> Json:
    """An active privacy consent; keywords that Consent has stand beside the provision."""
    above = {
        name: root.pop(name) for name in ("status", "policyRule", "verification", "patient", "scope") if name in root
    }
    provision = {
        **({"type": type_} if type_ else {}),
        **root,
        **({"provision": list(exceptions)} if exceptions else {}),
    }
    return {
        "resourceType": "Consent",
        "id": id,
        "meta": {"versionId": "3"},
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "patient": {"reference": "Patient/p"},
        "dateTime": date,
        "provision": provision,
        **above,
    }


def purposes(*words: str) -> list[Json]:
    return [{"system": REASONS, "code": word} for word in words]


def labels(*words: str) -> list[Json]:
    systems = dict.fromkeys("ULMNRV", CONFIDENTIALITY)
    return [{"system": systems.get(word, SENSITIVITY), "code": word} for word in words]


def actors(*references: str) -> list[Json]:
    return [{"role": RECIPIENT, "reference": {"reference": each}} for each in references]


def record(number: int, *words: str, **changed: Any) -> Json:
    return {"reference": f"Observation/{number}", "type": "Observation", "labels": list(words), **changed}


def ask(policies: Any, *records: Json, now: str = NOW, site: Json | None = None, **changed: Any) -> Json:
    """The answer to a treating physician's request, or to a changed one."""
    asked = {
        "patient": "Patient/p",
        "requester": {"reference": "Practitioner/a", "organization": "Organization/o1"},
        "purpose": ["TREAT"],
        "action": "access",
        "resources": list(records or (record(1),)),
        "site": site or {},
        **changed,
    }
    request, policy = read_request(asked, read_now(now))
    return answer_of(decide(Policies(read_consents(policies)), request, policy))


def released(answer: Json) -> list[bool]:
    return [each["release"] for each in answer["resources"]]


def glass(until: str = "2026-06-30T13:00:00Z", reason: str = "unconscious", may: bool | None = True) -> Json:
    """A request that breaks the glass."""
    asker = {"reference": "Practitioner/a", **({} if may is None else {"break_glass": may})}
    return {"requester": asker, "purpose": ["BTG"], "break_glass": {"reason": reason, "until": until}}


NEWEST: Json = {"combining": "most_recent"}


# ── which consents speak ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_decision_names_consents_versions_and_its_end() -> None:
    answer = ask([consent(period={"end": "2026-12-31"})])
    assert answer["basis"] == [{"consent": "Consent/c1", "version": "3"}]
    assert (answer["decision"], answer["reason"]) == ("permit", "consent.permit")
    assert answer["expires"] == "2027-01-01T00:00:00.000Z"


@pytest.mark.parametrize("status", ["draft", "proposed", "rejected", "inactive", "entered-in-error"])
def test_only_an_active_consent_counts(status: str) -> None:
    assert ask([consent(status=status)])["decision"] == "no_consent"
    assert ask([consent(), consent("deny", id="c2", status=status)])["decision"] == "permit"


def test_a_consent_of_another_patient_says_nothing() -> None:
    assert ask([consent(patient={"reference": "Patient/q"})])["decision"] == "no_consent"
    assert ask([consent(patient={"reference": "https://here.example/fhir/Patient/p"})])["decision"] == "permit"


def test_a_consent_without_a_patient_may_be_anybodys_and_denies() -> None:
    made = consent()
    del made["patient"]
    answer = ask([made])
    assert (answer["decision"], answer["reason"]) == ("deny", "consent.unreadable")


@pytest.mark.parametrize(("known", "decision"), [(["http://mrn|7"], "permit"), (["http://mrn|8"], "no_consent")])
def test_a_patient_named_by_identifier_is_looked_up(known: list[str], decision: str) -> None:
    made = consent(patient={"identifier": {"system": "http://mrn", "value": "7"}})
    assert ask([made], directory={"Patient/p": {"identifiers": known}})["decision"] == decision


def test_consents_to_treatment_and_advance_directives_rule_no_disclosure() -> None:
    for scope in ("treatment", "adr"):
        assert ask([consent("deny", scope={"coding": [{"code": scope}]})])["decision"] == "no_consent"


def test_a_research_consent_permits_research_only() -> None:
    research = consent(scope={"coding": [{"code": "research"}]})
    assert ask([research])["decision"] == "no_consent"
    assert ask([research], purpose=["CLINTRCH"])["decision"] == "permit"


def test_an_unverified_consent_denies_and_does_not_permit() -> None:
    unverified = [{"verified": False}]
    assert ask([consent(verification=unverified)])["decision"] == "no_consent"
    assert ask([consent(), consent("deny", id="c2", verification=unverified)])["decision"] == "deny"
    assert ask([consent(verification=[{"verified": False}, {"verified": True}])])["decision"] == "permit"


def test_the_base_rule_may_stand_in_policy_rule() -> None:
    rule = {"coding": [{"system": SENSITIVITY, "code": "OPTOUT"}]}
    assert ask([consent(None, policyRule=rule)])["decision"] == "deny"
    contradiction = ask([consent("permit", policyRule=rule)])
    assert (contradiction["decision"], contradiction["reason"]) == ("deny", "consent.unreadable")


# ── combining ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_deny_overrides_by_default() -> None:
    older, newer = consent("deny", date="2021-01-01"), consent("permit", id="c2", date="2022-01-01")
    assert ask([older, newer])["decision"] == ask([newer, older])["decision"] == "deny"


def test_most_recent_wins_where_the_site_says_so() -> None:
    older, newer = consent("deny", date="2021-01-01"), consent("permit", id="c2", date="2022-01-01")
    answer = ask([newer, older], site=NEWEST)
    assert (answer["decision"], answer["basis"]) == ("permit", [{"consent": "Consent/c2", "version": "3"}])
    assert (
        ask([consent("permit", date="2021"), consent("deny", id="c2", date="2022")], site=NEWEST)["decision"] == "deny"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2022-06-13", "2022-06-13"),
        ("2022-06-13", "2022-06-13T10:00:00Z"),
        ("2022-06", "2022-06-13"),
        ("2022-06-13T10:00:00Z", "2022-06-13T12:00:00+02:00"),
    ],
)
def test_equal_dates_are_not_decided_by_the_order_of_a_list(one: str, other: str) -> None:
    permit, deny = consent("permit", date=one), consent("deny", id="c2", date=other)
    for policies in ([permit, deny], [deny, permit]):
        assert ask(policies, site=NEWEST)["decision"] == "deny"


MALFORMED: list[Json] = [
    {"type": "perhaps"},
    {"type": None},
    {"period": {"start": "yesterday"}},
    {"period": {"start": "2026-01-01", "end": "2025-01-01"}},
    {"purpose": []},
    {"purpose": [{"display": "treatment"}]},
    {"actor": [{"role": RECIPIENT, "reference": {"display": "Dr Who"}}]},
    {"actor": [{"role": {"coding": [{"code": "CST"}]}, "reference": {"reference": "Practitioner/a"}}]},
    {"code": [{"text": "something embarrassing"}]},
    {"data": [{"meaning": "near", "reference": {"reference": "Encounter/1"}}]},
    {"modifierExtension": [{"url": "http://example.org/unless", "valueBoolean": True}]},
    {"except": [{"type": "deny"}]},
    {"provision": [{"securityLabel": labels("R")}]},
    {"provision": "none"},
    {"class": [{"code": "http://hl7.org/fhir/StructureDefinition/vitalsigns"}]},
]


@pytest.mark.parametrize("broken", MALFORMED, ids=lambda each: next(iter(each)))
@pytest.mark.parametrize("site", [{}, NEWEST], ids=["deny_overrides", "most_recent"])
def test_a_malformed_newer_deny_does_not_leave_the_field_to_an_older_permit(broken: Json, site: Json) -> None:
    newer = consent("deny", id="c2", date="2024-01-01")
    newer["provision"] = {name: value for name, value in {**newer["provision"], **broken}.items() if value is not None}
    answer = ask([consent("permit"), newer], site=site)
    assert (answer["decision"], answer["reason"], answer["total"]) == ("deny", "consent.unreadable", 0)
    assert answer["basis"] == [{"consent": "Consent/c2", "version": "3"}]
    with pytest.raises(InvalidInputError) as refused:
        read_consent(newer)
    assert str(refused.value.details["path"]).startswith("Consent.provision")


def test_a_malformed_older_consent_is_superseded_where_the_newest_wins() -> None:
    older = consent("perhaps", date="2020-01-01")
    assert ask([older, consent(id="c2")], site=NEWEST)["decision"] == "permit"
    assert ask([older, consent(id="c2")])["decision"] == "deny"


def test_a_malformed_consent_counts_only_while_it_can_be_in_force() -> None:
    ended = consent("perhaps", id="c2", period={"end": "2025-12-31"})
    assert ask([consent(), ended])["decision"] == "permit"


def test_what_is_no_consent_at_all_denies() -> None:
    assert ask([consent(), "deny everything"])["decision"] == "deny"
    assert ask({"resourceType": "Bundle", "entry": [{"resource": consent()}, {"resource": None}]})["decision"] == "deny"


def test_a_bundle_may_hold_other_resources() -> None:
    bundle = {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Patient"}}, {"resource": consent()}]}
    assert ask(bundle)["decision"] == "permit"


# ── who ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_actor_that_cannot_be_resolved_is_denied_and_not_permitted() -> None:
    older = consent("permit", date="2020-01-01")
    for named in ("Group/gone", "Organization/gone", "Practitioner/gone"):
        newer = consent("deny", id="c2", actor=actors(named))
        for site in ({}, NEWEST):
            assert ask([older, newer], site=site, directory={})["decision"] == "deny"
        assert ask([consent(actor=actors(named))], directory={})["decision"] == "no_consent"


def test_an_actor_that_is_somebody_else_is_neither() -> None:
    deny = consent("deny", id="c2", actor=actors("Practitioner/b"))
    assert ask([consent(), deny])["decision"] == "permit"
    listed = {"Practitioner/b": {"memberOf": []}}
    assert ask([consent(), deny], directory=listed)["decision"] == "permit"


def test_a_group_is_its_members_however_far_up() -> None:
    rule = consent(actor=actors("Group/outer"))
    chain = {"Practitioner/a": {"memberOf": ["Group/inner"]}, "Group/inner": {"memberOf": ["Group/outer"]}}
    assert ask([rule], directory=chain)["decision"] == "permit"
    assert ask([rule], directory={"Practitioner/b": {"memberOf": ["Group/outer"]}})["decision"] == "no_consent"
    circle = {**chain, "Group/outer": {"memberOf": ["Group/inner"]}}
    assert ask([rule], directory=circle)["decision"] == "permit"


def test_an_actor_known_by_identifier_is_the_asker() -> None:
    asker = {"reference": "Practitioner/a", "identifiers": ["http://npi|1"]}
    listed = {"Organization/54": {"identifiers": ["http://npi|1"]}}
    assert ask([consent(actor=actors("Organization/54"))], requester=asker, directory=listed)["decision"] == "permit"
    by_number = [{"role": RECIPIENT, "reference": {"identifier": {"system": "http://npi", "value": "1"}}}]
    assert ask([consent(actor=by_number)], requester=asker)["decision"] == "permit"
    assert ask([consent(), consent("deny", id="c2", actor=by_number)])["decision"] == "deny"


def test_a_role_alone_names_everybody_in_it() -> None:
    rule = consent(actor=[{"role": {"coding": [{"code": "physician"}]}}])
    asker = {"reference": "Practitioner/a", "roles": ["physician"]}
    assert ask([rule], requester=asker)["decision"] == "permit"
    assert ask([rule], requester={**asker, "roles": ["nurse"]})["decision"] == "no_consent"


def test_a_role_beside_a_reference_narrows_unless_it_tells_how_somebody_is_involved() -> None:
    who = {"reference": {"reference": "Practitioner/a"}}
    nurse = consent(actor=[{"role": {"coding": [{"code": "nurse"}]}, **who}])
    assert ask([nurse])["decision"] == "no_consent"
    assert ask([nurse], requester={"reference": "Practitioner/a", "roles": ["nurse"]})["decision"] == "permit"
    system = "http://terminology.hl7.org/CodeSystem/v3-RoleClass"
    assert (
        ask([consent(actor=[{"role": {"coding": [{"system": system, "code": "PROV"}]}, **who}])])["decision"]
        == "permit"
    )
    deny = consent("deny", id="c2", actor=[{"role": {"coding": [{"code": "nurse"}]}, **who}])
    assert ask([consent(), deny])["decision"] == "deny"  # nobody told the asker's roles
    assert (
        ask([consent(), deny], requester={"reference": "Practitioner/a", "roles": ["physician"]})["decision"]
        == "permit"
    )


def test_an_asker_may_be_known_by_identifier_alone() -> None:
    listed = {"Organization/54": {"identifiers": ["http://npi|1"]}}
    rule = consent("permit", {"type": "deny", "actor": actors("Organization/54")})
    assert ask([rule], requester={"identifiers": ["http://npi|1"]}, directory=listed)["decision"] == "deny"
    assert ask([rule], requester={"identifiers": ["http://npi|2"]}, directory=listed)["decision"] == "permit"


def test_a_guardian_sees_nothing_beyond_the_scope_given() -> None:
    rule = consent(
        actor=actors("RelatedPerson/g"),
        purpose=purposes("FAMRQT"),
        **{"class": [{"code": "Immunization"}]},
        period={"end": "2026-07-01T00:00:00Z"},
    )
    guardian: Json = {"requester": {"reference": "RelatedPerson/g"}, "purpose": ["FAMRQT"]}
    vaccine = {"reference": "Immunization/1", "type": "Immunization"}
    assert released(ask([rule], vaccine, record(1), **guardian)) == [True, False]
    assert ask([rule], record(1), **guardian)["access"] is False
    assert ask([rule], vaccine, **{**guardian, "purpose": ["TREAT"]})["access"] is False
    assert ask([rule], vaccine, **guardian, now="2026-07-01T00:00:00Z")["access"] is False


# ── nesting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_nested_deny_under_a_deny_stays_a_deny() -> None:
    answer = ask([consent("deny", {"type": "deny", "actor": actors("Practitioner/a")})])
    assert (answer["decision"], answer["access"]) == ("deny", False)


def test_a_labelled_permit_under_a_deny_lets_only_that_label_go() -> None:
    rule = consent("deny", {"type": "permit", "securityLabel": labels("N")})
    answer = ask([rule], record(1, "N"), record(2, "R"), record(3))
    assert (answer["decision"], released(answer), answer["total"]) == ("permit", [True, False, False], 1)
    assert answer["obligations"] == [{"effect": "permit", "by": "label", "values": ["N"]}]


def test_exceptions_to_exceptions_are_handled_alike() -> None:
    inner = {"type": "deny", "actor": actors("Practitioner/a")}
    middle = {"type": "permit", "securityLabel": labels("PSY"), "provision": [inner]}
    rule = consent("permit", {"type": "deny", "securityLabel": labels("BH"), "provision": [middle]})
    records = (record(1), record(2, "PSY"), record(3, "SUD"))
    assert released(ask([rule], *records)) == [True, False, False]
    other = {"requester": {"reference": "Practitioner/b"}}
    assert released(ask([rule], *records, **other)) == [True, True, False]


def test_an_exception_holds_only_within_its_parent() -> None:
    rule = consent("deny", {"type": "permit", "purpose": purposes("TREAT")}, purpose=purposes("HRESCH"))
    assert ask([rule])["decision"] == "no_consent"


def test_siblings_that_disagree_deny() -> None:
    rule = consent(
        "permit", {"type": "deny", "securityLabel": labels("R")}, {"type": "permit", "securityLabel": labels("PSY")}
    )
    assert released(ask([rule], record(1, "R", "PSY"), record(2, "N"))) == [False, True]


def test_more_may_be_permitted_to_somebody_as_in_ihes_focused_example() -> None:
    rule = consent(
        "permit",
        {"type": "permit", "securityLabel": labels("PSY"), "actor": actors("Practitioner/a")},
        purpose=purposes("TREAT", "HPAYMT", "HOPERAT"),
        securityLabel=labels("N"),
    )
    records = (record(1, "N"), record(2, "R", "PSY"), record(3, "R"))
    answer = ask([rule], *records)
    assert released(answer) == [True, True, False]
    assert {tuple(each["values"]) for each in answer["obligations"]} == {("N",), ("PSY",)}
    assert released(ask([rule], *records, requester={"reference": "Practitioner/b"})) == [True, False, False]
    assert ask([rule], *records, purpose=["BTG"])["access"] is False


def test_the_period_of_an_exception_ends_it() -> None:
    rule = consent("permit", {"type": "deny", "period": {"end": "2026-06-30T12:00:00Z"}})
    assert ask([rule], now="2026-06-30T11:59:59Z")["decision"] == "deny"
    assert ask([rule])["decision"] == "permit"


# ── what ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_confidentiality_is_a_high_water_mark() -> None:
    records = [record(number, level) for number, level in enumerate("NRV")]
    assert released(ask([consent(securityLabel=labels("R"))], *records)) == [True, True, False]
    assert released(ask([consent("permit", {"type": "deny", "securityLabel": labels("R")})], *records)) == [
        True,
        False,
        False,
    ]
    assert released(ask([consent(securityLabel=labels("N"))], record(1, "N", "R"), record(2))) == [False, False]


def test_sensitivity_reaches_what_stands_under_it() -> None:
    rule = consent("permit", {"type": "deny", "securityLabel": labels("ETH")})
    assert released(ask([rule], record(1, "ETHUD"), record(2, "OPIOIDUD"), record(3, "ETH"), record(4, "HIV"))) == [
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("many", [True, False], ids=["array", "one"])
def test_codes_are_an_array_in_r4(many: bool) -> None:
    concepts: Any = [
        {"coding": [{"system": "http://snomed.info/sct", "code": "1"}]},
        {
            "coding": [
                {"system": "http://other.example", "code": "x"},
                {"system": "http://loinc.org", "code": "42828-4"},
            ]
        },
    ]
    rule = consent("permit", {"type": "deny", "code": concepts if many else concepts[1]})
    hidden = record(1, codes=["http://loinc.org|42828-4"])
    assert released(ask([rule], hidden, record(2, codes=["http://loinc.org|1"]))) == [False, True]
    answer = ask([rule], record(2))
    assert answer["obligations"][0]["by"] == "code"
    assert "http://loinc.org|42828-4" in answer["obligations"][0]["values"]


def test_a_rule_by_code_holds_though_no_label_says_so() -> None:
    rule = consent("permit", {"type": "deny", "code": [{"coding": [{"system": "http://loinc.org", "code": "1"}]}]})
    assert released(ask([rule], record(1, "N", codes=["http://loinc.org|1"]))) == [False]


def test_data_of_unknown_date_are_kept_back_either_way() -> None:
    year = {"start": "2022-01", "end": "2022-12"}
    inside, across, unknown = record(1, date="2022-12-31"), record(2, date="2022-12-31T23:00:00-05:00"), record(3)
    assert released(ask([consent(dataPeriod=year)], inside, across, unknown)) == [True, False, False]
    deny = consent("permit", {"type": "deny", "dataPeriod": year})
    assert released(ask([deny], inside, across, unknown, record(4, date="2022"))) == [False, True, False, False]


def test_a_reference_to_what_is_withheld_does_not_leave() -> None:
    data = [{"meaning": "instance", "reference": {"reference": "Encounter/e"}}]
    rule = consent("permit", {"type": "deny", "data": data})
    visit = {"reference": "Encounter/e", "type": "Encounter"}
    answer = ask([rule], record(1, related=["CarePlan/c", "Encounter/e"]), visit)
    assert [each["redact"] for each in answer["resources"]] == [["related[1]"], []]
    assert (released(answer), answer["total"]) == ([True, False], 1)


def test_several_purposes_must_all_be_permitted() -> None:
    rule = consent(purpose=purposes("TREAT"))
    assert ask([rule], purpose=["TREAT", "HRESCH"])["access"] is False
    both = [rule, consent(id="c2", purpose=purposes("HRESCH"))]
    assert ask(both, purpose=["TREAT", "HRESCH"])["decision"] == "permit"


# ── when ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_consent_is_expired_at_the_tick() -> None:
    rule = consent(period={"start": "2026-01-01T00:00:00Z", "end": "2026-06-30T12:00:00Z"})
    assert ask([rule], now="2026-06-30T11:59:59.999Z")["decision"] == "permit"
    assert ask([rule], now="2026-06-30T12:00:00Z")["decision"] == "no_consent"
    assert ask([rule], now="2026-01-01T00:00:00Z")["decision"] == "permit"
    assert ask([rule], now="2025-12-31T23:59:59.999Z")["decision"] == "no_consent"


def test_a_date_as_end_lasts_through_that_day() -> None:
    rule = consent(period={"end": "2026-06-30"})
    assert ask([rule], now="2026-06-30T23:59:59.999Z")["decision"] == "permit"
    assert ask([rule], now="2026-07-01T00:00:00Z")["decision"] == "no_consent"


# ── break-glass and the site ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("named", ["TREAT", "ETREAT", "PurposeOfUse"])
def test_break_glass_is_not_inherited_from_a_treatment_permit(named: str) -> None:
    rule = consent(purpose=purposes(named))
    assert ask([rule])["decision"] == ("no_consent" if named == "ETREAT" else "permit")
    assert ask([rule], purpose=["ETREAT"])["decision"] == "permit"
    for asked in ({"purpose": ["BTG"]}, {"purpose": [f"{REASONS}|BTG"]}, glass()):
        answer = ask([rule], **asked)
        assert (answer["decision"], answer["access"]) == ("no_consent", False)


def test_break_glass_works_against_a_deny() -> None:
    answer = ask([consent("deny")], record(1, "R"), **glass())
    assert (answer["decision"], answer["access"], answer["reason"]) == ("permit", True, "break_glass.override")
    assert (released(answer), answer["expires"]) == ([True], "2026-06-30T13:00:00.000Z")
    assert answer["basis"] == [{"consent": "Consent/c1", "version": "3"}]


@pytest.mark.parametrize(
    "changed",
    [
        glass(until=NOW),
        glass(reason="  "),
        glass(may=False),
        glass(may=None),
        {**glass(), "purpose": ["TREAT"]},
        {name: value for name, value in glass().items() if name != "break_glass"},
    ],
    ids=["over", "no reason", "not allowed", "nobody said", "other purpose", "not declared"],
)
def test_break_glass_needs_authority_reason_and_time(changed: Json) -> None:
    assert ask([consent("deny")], **changed)["access"] is False


def test_a_consent_may_name_break_glass_itself() -> None:
    group = {"type": "permit", "purpose": purposes("BTG"), "actor": actors("Group/g")}
    listed = {"Practitioner/a": {"memberOf": ["Group/g"]}}
    asked: Json = {"purpose": ["BTG"], "directory": listed}
    assert ask([consent("deny", group)], **asked)["reason"] == "consent.permit"
    assert ask([consent("deny", group)], purpose=["TREAT"], directory=listed)["decision"] == "deny"
    barred = {"reference": "Practitioner/a", "break_glass": False}
    assert ask([consent("deny", group)], **asked, requester=barred)["decision"] == "deny"
    assert ask([consent("deny", group)], **{**glass(until=NOW), "directory": listed})["decision"] == "deny"


AUTHORISED: Json = {"reference": "Practitioner/a", "authorised": True}
CLINICIAN: Json = {"reference": "Practitioner/a", "clinician": True}


@pytest.mark.parametrize(
    ("policy", "open_to"),
    [
        ("deny", []),
        ("permit_authorised", ["authorised"]),
        ("clinicians_only", ["clinician"]),
        ("break_glass_only", ["glass"]),
    ],
)
def test_where_no_consent_speaks_the_site_decides(policy: str, open_to: list[str]) -> None:
    askers: dict[str, Json] = {
        "authorised": {"requester": AUTHORISED},
        "clinician": {"requester": CLINICIAN},
        "glass": glass(),
    }
    for name, asker in askers.items():
        answer = ask([], site={"no_consent": policy}, **asker)
        assert (answer["decision"], answer["access"], answer["reason"]) == (
            "no_consent",
            name in open_to,
            f"site.{policy}",
        )
        assert released(answer) == [name in open_to]
    assert ask([], site={"no_consent": "clinicians_only"}, requester=CLINICIAN, purpose=["HPAYMT"])["access"] is False


def test_a_denial_of_some_records_leaves_the_others_to_the_site() -> None:
    rule = consent("deny", securityLabel=labels("R"))
    answer = ask([rule], record(1, "R"), record(2, "N"), requester=AUTHORISED, site={"no_consent": "permit_authorised"})
    assert (answer["decision"], released(answer)) == ("no_consent", [False, True])
    assert answer["obligations"] == [{"effect": "forbid", "by": "label", "values": ["R"]}]
    assert (
        ask([rule], record(1, "R"), requester=AUTHORISED, site={"no_consent": "permit_authorised"})["decision"]
        == "deny"
    )


def test_without_records_the_decision_is_about_the_request() -> None:
    rule = consent("permit", {"type": "deny", "securityLabel": labels("R")})
    answer = ask([rule], resources=[])
    assert (answer["decision"], answer["access"], answer["total"]) == ("permit", True, 0)
    assert answer["obligations"] == [{"effect": "forbid", "by": "label", "values": ["R"]}]
    assert ask([consent("deny")], resources=[])["decision"] == "deny"
    assert ask([rule, consent("deny", id="c2")], resources=[])["decision"] == "deny"


# ── each scope alone and in pairs ───────────────────────────────────────────────────────────────────────────────────

Scope = tuple[Json, Json, Json, Json, Json]
"""Provision elements; request and record that meet them; request and record that do not."""

SCOPES: dict[str, Scope] = {
    "purpose": ({"purpose": purposes("HRESCH")}, {"purpose": ["HRESCH"]}, {}, {"purpose": ["HPAYMT"]}, {}),
    "person": (
        {"actor": actors("Practitioner/a")},
        {"reference": "Practitioner/a"},
        {},
        {"reference": "Practitioner/b"},
        {},
    ),
    "organisation": (
        {"actor": actors("Organization/o1")},
        {"organization": "Organization/o1"},
        {},
        {"organization": "Organization/o2"},
        {},
    ),
    "role": (
        {"actor": [{"role": {"coding": [{"code": "nurse"}]}}]},
        {"roles": ["nurse"]},
        {},
        {"roles": ["physician"]},
        {},
    ),
    "group": ({"actor": actors("Group/g")}, {"memberOf": ["Group/g"]}, {}, {"memberOf": ["Group/h"]}, {}),
    "device": ({"actor": actors("Device/d")}, {"reference": "Device/d"}, {}, {"reference": "Device/e"}, {}),
    "action": ({"action": [{"coding": [{"code": "disclose"}]}]}, {"action": "disclose"}, {}, {"action": "access"}, {}),
    "type": ({"class": [{"code": "Condition"}]}, {}, {"type": "Condition"}, {}, {"type": "Observation"}),
    "code": (
        {"code": [{"coding": [{"code": "42828-4"}]}]},
        {},
        {"codes": ["http://loinc.org|42828-4"]},
        {},
        {"codes": ["x"]},
    ),
    "label": ({"securityLabel": labels("PSY")}, {}, {"labels": ["PSY"]}, {}, {"labels": ["HIV"]}),
    "data period": ({"dataPeriod": {"start": "2022", "end": "2022"}}, {}, {"date": "2022-05"}, {}, {"date": "2023-05"}),
    "named data": (
        {"data": [{"meaning": "instance", "reference": {"reference": "Observation/1"}}]},
        {},
        {"reference": "Observation/1"},
        {},
        {"reference": "Observation/2"},
    ),
    "author": (
        {"data": [{"meaning": "authoredby", "reference": {"reference": "Practitioner/w"}}]},
        {},
        {"author": ["Practitioner/w"]},
        {},
        {"author": ["Practitioner/v"]},
    ),
    "encounter": (
        {"data": [{"meaning": "related", "reference": {"reference": "Encounter/e"}}]},
        {},
        {"related": ["Encounter/e"]},
        {},
        {"related": ["Encounter/f"]},
    ),
    "validity": (
        {"period": {"start": "2026-01-01", "end": "2026-12-31"}},
        {"now": NOW},
        {},
        {"now": "2027-01-01T00:00:00Z"},
        {},
    ),
    "condition": (
        {
            "modifierExtension": [
                {
                    "url": "urn:ehrfast:consent-condition",
                    "valueExpression": {"language": "text/cel", "expression": "requester.clinician"},
                }
            ]
        },
        {"clinician": True},
        {},
        {"clinician": False},
        {},
    ),
}


def meets(*parts: tuple[Scope, bool]) -> tuple[Json, Json, str]:
    """A request and record that meet each scope, or do not."""
    asker: Json = {"reference": "Practitioner/a", "organization": "Organization/o1"}
    changed: Json = {"directory": {}}
    now, item = NOW, record(1, date="2024")
    for (_, request, found, other, missed), met in parts:
        told = dict(request if met else other)
        now = told.pop("now", now)
        item |= found if met else missed
        changed |= {name: told.pop(name) for name in ("purpose", "action") if name in told}
        if "memberOf" in told:
            changed["member_of"] = told.pop("memberOf")
        asker |= told
    listed = {name: {"memberOf": []} for name in ("Practitioner/a", "Practitioner/b", "Device/d", "Device/e")}
    listed |= {name: {} for name in ("Organization/o1", "Organization/o2", "Group/g", "Group/h")}
    listed[asker["reference"]] = {"memberOf": changed.pop("member_of", [])}
    return {**changed, "requester": asker, "directory": listed}, item, now


def goes(rule: Json, request: Json, item: Json, now: str) -> bool:
    return bool(ask([rule], item, now=now, **request)["access"])


def joined(*scopes: Scope) -> Json:
    """The elements of all; what two of them name in one element stands twice."""
    return {name: value for scope in scopes for name, value in scope[0].items()}


@pytest.mark.parametrize("name", SCOPES)
def test_each_scope_flips_the_decision(name: str) -> None:
    scope = SCOPES[name]
    for met in (True, False):
        request, item, now = meets((scope, met))
        assert goes(consent("permit", **joined(scope)), request, item, now) is met
        assert goes(consent("permit", {"type": "deny", **joined(scope)}), request, item, now) is not met
        assert goes(consent("deny", {"type": "permit", **joined(scope)}), request, item, now) is met


PAIRS = [(one, other) for one, other in combinations(SCOPES, 2) if not SCOPES[one][0].keys() & SCOPES[other][0].keys()]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_each_pair_of_scopes_is_joined_by_and(one: str, other: str) -> None:
    first, second = SCOPES[one], SCOPES[other]
    for met in ((True, True), (True, False), (False, True)):
        request, item, now = meets((first, met[0]), (second, met[1]))
        elements = joined(first, second)
        assert goes(consent("permit", **elements), request, item, now) is all(met)
        assert goes(consent("permit", {"type": "deny", **elements}), request, item, now) is not all(met)


def test_repeats_of_one_element_are_joined_by_or() -> None:
    rule = consent(purpose=purposes("TREAT", "HPAYMT"), securityLabel=labels("PSY", "HIV"))
    assert released(ask([rule], record(1, "HIV"), record(2, "PSY"), record(3, "SDV"), purpose=["HPAYMT"])) == [
        True,
        True,
        False,
    ]
