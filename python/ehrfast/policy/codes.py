"""Codes of consents and what stands under them: purposes of use, sensitivity, confidentiality.

A code is written ``system|code``, or ``code`` alone where nothing is said of its system; two codes agree when their
words do and no two systems contradict each other. A purpose never admits break-glass unless it names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

REASONS: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
SENSITIVITY: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
CONFIDENTIALITY: Final = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
RESOURCE_TYPES: Final = "http://hl7.org/fhir/resource-types"
ACTIONS: Final = "http://terminology.hl7.org/CodeSystem/consentaction"

_SAME_SYSTEM: Final = {
    "http://terminology.hl7.org/ValueSet/v3-PurposeOfUse": REASONS,
    "http://hl7.org/fhir/v3/ActReason": REASONS,
    "urn:oid:2.16.840.1.113883.5.8": REASONS,
    "http://hl7.org/fhir/v3/ActCode": SENSITIVITY,
    "urn:oid:2.16.840.1.113883.5.4": SENSITIVITY,
    "http://hl7.org/fhir/v3/Confidentiality": CONFIDENTIALITY,
    "urn:oid:2.16.840.1.113883.5.25": CONFIDENTIALITY,
    "http://hl7.org/fhir/consentaction": ACTIONS,
    "http://hl7.org/fhir/fhir-types": RESOURCE_TYPES,
}

BREAK_GLASS: Final = "BTG"
RESEARCH: Final = "HRESCH"
TREATMENT: Final = "TREAT"

# Each line: a code and those directly under it.
# Source: HL7 v3 ActReason, PurposeOfUse; v3 ActCode, ActInformationSensitivityPolicy; IHE PCF 53.4.2 puts ETHUD and
# OPIOIDUD under ETH as well.
_PURPOSES: Final = """
PurposeOfUse: HMARKT HOPERAT HPAYMT HRESCH PATRQT PUBHLTH TREAT
HOPERAT: CAREMGT DONAT FRAUD GOV HACCRED HCOMPL HDECD HDIRECT HDM HLEGAL HOUTCOMS HPRGRP HQUALIMP HSYSADMIN
HOPERAT: LABELING METAMGT MEMADMIN MILCDM PATADMIN PATSFTY PERFMSR RECORDMGT SYSDEV TRAIN
SYSDEV: HTEST
TRAIN: MLTRAINING
HPAYMT: CLMATTCH COVAUTH COVERAGE REMITADV PMTDS
COVERAGE: ELIGDTRM ELIGVER ENROLLM MILDCRG
HRESCH: BIORCH CLINTRCH DSRCH POARCH TRANSRCH
CLINTRCH: CLINTRCHNPC CLINTRCHPC PRECLINTRCH
PATRQT: FAMRQT PWATRNY SUPNWK
PUBHLTH: DISASTER THREAT
TREAT: CLINTRL COC ETREAT POPHLTH TREATDS
ETREAT: BTG ERTREAT
"""
_SENSITIVITIES: Final = """
SPI: BH
BH: COGN DVD EMOTDIS MH PSY PSYTHPN SUD
SUD: ETHUD OPIOIDUD
ETH: ETHUD OPIOIDUD
"""
CONFIDENTIALITIES: Final = ("U", "L", "M", "N", "R", "V")
"""From unrestricted to very restricted."""


def _closure(table: str) -> dict[str, frozenset[str]]:
    direct: dict[str, set[str]] = {}
    for line in table.split("\n"):
        above, _, below = line.partition(":")
        direct.setdefault(above, set()).update(below.split())

    def under(code: str) -> set[str]:
        return {code}.union(*(under(each) for each in direct.get(code, ())))

    return {code: frozenset(under(code)) for code in direct}


_UNDER_PURPOSE: Final = _closure(_PURPOSES)
_UNDER_SENSITIVITY: Final = _closure(_SENSITIVITIES)


def join(system: str | None, code: str) -> str:
    """A code as it is written here; systems known by several names get one.

    >>> join("http://loinc.org/", "8480-6")
    'http://loinc.org|8480-6'
    """
    if not system:
        return code
    bare = system.rstrip("/")
    return f"{_SAME_SYSTEM.get(bare, bare)}|{code}"


def split(code: str) -> tuple[str | None, str]:
    """System, if any, and the code's own word."""
    system, bar, word = code.rpartition("|")
    return (system or None, word) if bar else (None, code)


def tidy(code: str) -> str:
    """A code from outside in the one form used here."""
    return join(*split(code))


def named(codes: Iterable[str]) -> frozenset[str]:
    """What a rule's codes are compared by; `asked` gives the other side."""
    found = set()
    for code in codes:
        system, word = split(code)
        found |= {word, f"{system or '*'}|{word}"}
    return frozenset(found)


def asked(codes: Sequence[str]) -> frozenset[str]:
    """What a request's or record's codes are compared by: with their system, unless there is none."""
    found = list(codes)
    for code in codes:
        _, bar, word = code.rpartition("|")
        if bar:
            found.append(f"*|{word}")
    return frozenset(found)


def _widen(code: str, system: str, words: Iterable[str]) -> set[str]:
    given, _ = split(code)
    return {join(given, word) for word in words} if given in (None, system) else {code}


def purposes(codes: Iterable[str], *, permit: bool) -> frozenset[str]:
    """The purposes a rule speaks of, those under them included; a permit reaches break-glass only by its own name."""
    found: set[str] = set()
    for code in codes:
        _, word = split(code)
        below = _UNDER_PURPOSE.get(word, frozenset({word}))
        found |= _widen(code, REASONS, below - {BREAK_GLASS} if permit and word != BREAK_GLASS else below)
    return named(found)


def is_under(purpose: str, above: str) -> bool:
    """Whether a purpose as asked for is one of HL7's under another of them, or that one."""
    system, word = split(purpose)
    return system in (None, REASONS) and word in _UNDER_PURPOSE.get(above, {above})


def is_break_glass(purpose: str) -> bool:
    """Whether it is HL7's code for break-glass."""
    return is_under(purpose, BREAK_GLASS)


def labels(codes: Iterable[str], *, permit: bool) -> frozenset[str]:
    """The labels a rule speaks of.

    Confidentiality is a high-water mark: a permit reaches what is labelled so or lower, a denial what is labelled so or
    higher. Any other label reaches those under it. Source: FHIR R4 Consent.provision.securityLabel, comments.
    """
    found: set[str] = set()
    for code in codes:
        system, word = split(code)
        if word in CONFIDENTIALITIES and system in (None, CONFIDENTIALITY):
            place = CONFIDENTIALITIES.index(word)
            reached = CONFIDENTIALITIES[: place + 1] if permit else CONFIDENTIALITIES[place:]
            found |= _widen(code, CONFIDENTIALITY, reached)
        else:
            found |= _widen(code, SENSITIVITY, _UNDER_SENSITIVITY.get(word, {word}))
    return named(found)


def label_marks(codes: Iterable[str]) -> tuple[str, ...]:
    """A record's labels, of several confidentialities only the highest."""
    kept, highest = [], -1
    for code in codes:
        system, word = split(code)
        if word in CONFIDENTIALITIES and system in (None, CONFIDENTIALITY):
            highest = max(highest, CONFIDENTIALITIES.index(word))
        else:
            kept.append(code)
    return (*kept, CONFIDENTIALITIES[highest]) if highest >= 0 else tuple(kept)


def plain(code: str) -> str:
    """A code as conditions see it: HL7's own without their system."""
    system, word = split(code)
    return word if system in (REASONS, SENSITIVITY, CONFIDENTIALITY, ACTIONS, RESOURCE_TYPES) else code


class Asked(NamedTuple):
    """What is worth knowing of a purpose asked for, worked out once."""

    names: frozenset[str]
    break_glass: bool
    may_be_research: bool


@lru_cache(maxsize=1024)
def asked_purpose(purpose: str) -> Asked:
    """A purpose as it is compared."""
    return Asked(asked((purpose,)), is_break_glass(purpose), may_be_research(purpose))


@lru_cache(maxsize=1024)
def asked_action(action: str) -> frozenset[str]:
    """An action as it is compared."""
    return asked((action,))


def may_be_research(purpose: str) -> bool:
    """Whether a purpose is research, or a local one that nobody but the consent naming it knows."""
    _, word = split(purpose)
    return is_under(purpose, RESEARCH) or word not in _UNDER_PURPOSE["PurposeOfUse"]
