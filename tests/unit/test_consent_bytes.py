"""The canonical bytes of a consent: the pinned example, which stands in docs/consent.md, and what no reader takes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from ehrfast.errors import EhrfastError, InvalidInputError
from ehrfast.model.codec import cbor_decode, cbor_encode
from ehrfast.policy.conditions import parse_condition
from ehrfast.policy.consent import BYTES_MAX, DEPTH_MAX, RULES_MAX, Actor, Consent, Named, Rule, decode, encode
from ehrfast.policy.times import Span, read_date, read_validity

ROOT = Path(__file__).parents[2]
EXAMPLE = Consent(
    id="c1",
    version="2",
    patient="Patient/p",
    written=read_date("2026-01-02")[0],
    rule=Rule(
        "permit",
        read_validity("2026-01-02", "2027-01-01T00:00:00Z"),
        purposes=("http://terminology.hl7.org/CodeSystem/v3-ActReason|TREAT",),
        actors=(Actor(reference="Organization/o"), Actor(roles=("physician",))),
        condition=parse_condition("has(record.date) && record.date > 0"),
        rules=(
            Rule("deny", labels=("PSY",), data=(Named("authoredby", "Practitioner/w"),)),
            Rule("deny", data_period=Span(None, 0), codes=("http://loinc.org|8480-6",), types=("Observation",)),
        ),
    ),
)


def test_the_example_is_the_pinned_one() -> None:
    pinned = tomllib.loads((ROOT / "tests/vectors/formats.toml").read_text())["consent"]["example"]
    assert encode(EXAMPLE).hex() == pinned
    assert decode(bytes.fromhex(pinned)) == EXAMPLE
    shown = re.findall(r"```hex\n(.*?)```", (ROOT / "docs/consent.md").read_text(), re.DOTALL)
    assert [re.sub(r"\s", "", block) for block in shown] == [pinned]


def test_what_the_encoder_would_not_write_is_refused() -> None:
    value = list(cbor_decode(encode(EXAMPLE)))
    rules = [list(rule) for rule in value[7]]
    rules[2][0] = 2  # a rule above itself
    for changed in (
        [2, *value[1:]],
        value[:-1],
        [*value, None],
        [*value[:6], 1, value[7]],
        [*value[:7], []],
        [*value[:7], rules],
    ):
        with pytest.raises(EhrfastError):
            decode(cbor_encode(changed))


def test_no_consent_is_larger_than_its_caps() -> None:
    many = replace(EXAMPLE.rule, rules=(Rule("deny"),) * RULES_MAX)
    deep = Rule("deny")
    for _ in range(DEPTH_MAX):
        deep = Rule("permit", rules=(deep,))
    long = Rule("permit", codes=tuple(f"http://loinc.org|{number}" for number in range(BYTES_MAX // 16)))
    for rule in (many, deep, long):
        with pytest.raises(InvalidInputError, match=r"consent\.too_large"):
            encode(replace(EXAMPLE, rule=rule))
