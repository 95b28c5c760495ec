"""Row `consent_decide`: one request for one record against 20 consents, without and with conditions in CEL."""

from __future__ import annotations

from typing import Any

import pytest
from ehrfast.policy import codes
from ehrfast.policy.conditions import parse_condition
from ehrfast.policy.consent import Actor, Consent, Rule
from ehrfast.policy.decide import Policies, decide
from ehrfast.policy.request import AskedRecord, Request, Requester, Site
from ehrfast.policy.times import Span, read_date

from benches.baselines.consent_engines import Cedar, Question, Rego, Terms
from benches.say import say
from benches.workload import QUICK

ROUNDS = 50 if QUICK else 1_000
EACH = 100
PURPOSES = ("TREAT", "HPAYMT", "HOPERAT", "HRESCH", "PATRQT")
NOW_MS = 1_782_820_800_000
VARIANTS = {"20 consents": None, "20 consents with conditions": "physician"}


def terms(role: str | None) -> list[Terms]:
    """20 consents: a quarter denies marketing, the others permit a purpose to an organisation, except one label."""
    return [
        Terms(
            bool(number % 4),
            PURPOSES[number % 5] if number % 4 else "HMARKT",
            f"Organization/{number % 4}",
            "PSY",
            role,
        )
        for number in range(20)
    ]


def consents(role: str | None) -> list[Consent]:
    """The same as policies of ours."""
    made = []
    for number, each in enumerate(terms(role)):
        text = None if role is None else f"request.time < 1893456000000 && '{role}' in requester.roles"
        rule = Rule(
            "permit" if each.permit else "deny",
            Span(1_577_836_800_000, 1_893_456_000_000),
            purposes=(codes.join(codes.REASONS, each.purpose),),
            actors=(Actor(reference=each.organization),),
            condition=None if text is None else parse_condition(text),
            rules=(Rule("deny", labels=(codes.join(codes.SENSITIVITY, each.but),)),) if each.permit else (),
        )
        made.append(Consent(str(number), "1", "Patient/p", rule))
    return made


def request(purpose: str, label: str, organization: str = "Organization/1") -> Request:
    record = AskedRecord(
        "Observation/1", "Observation", ("http://loinc.org|8480-6",), (label,), read_date("2026-01-02")[0],
        ("Practitioner/w",), ("Encounter/1",),
    )  # fmt: skip
    asker = Requester("Practitioner/a", roles=("physician",), organization=organization)
    return Request("Patient/p", asker, (purpose,), "access", NOW_MS, (record,))


def asked(purpose: str, label: str, organization: str = "Organization/1") -> Question:
    return Question(purpose, organization, ("physician",), (label,), NOW_MS)


def _say(benchmark: Any, variant: str, side: str) -> None:
    say(
        benchmark, "consent_decide", variant, side, items=1, unit="us p50",
        params="one record; ours names obligations, basis and expiry too; every engine compiles beforehand",
    )  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_ours(benchmark: Any, variant: str) -> None:
    policies, question, site = Policies(consents(VARIANTS[variant])), request("TREAT", "N"), Site()
    assert decide(policies, question, site).access
    _say(benchmark, variant, "ehrfast")
    benchmark.pedantic(decide, args=(policies, question, site), rounds=ROUNDS, iterations=EACH, warmup_rounds=2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("side", "engine"), [("cedarpy", Cedar), ("regopy", Rego)])
def test_rivals(benchmark: Any, variant: str, side: str, engine: Any) -> None:
    rival = engine(terms(VARIANTS[variant]))
    policies = Policies(consents(VARIANTS[variant]))
    for purpose in (*PURPOSES, "ETREAT", "HMARKT", "PUBHLTH"):
        for label in ("N", "PSY"):
            for organization in ("Organization/0", "Organization/1"):
                ours = decide(policies, request(purpose, label, organization), Site())
                assert rival.permits(asked(purpose, label, organization)) is ours.access
    _say(benchmark, variant, side)
    question = asked("TREAT", "N")
    benchmark.pedantic(rival.permits, args=(question,), rounds=ROUNDS // 5, iterations=10, warmup_rounds=2)
