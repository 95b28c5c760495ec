"""Owns who exists: invented names, towns and numbers, and the clinics, practitioners and payers every patient shares.

Refuses nothing. Names are made of syllables nobody is called by, the country XA is unassigned (ISO 3166), the
telephone code +999 too (ITU): nothing here can reach a person. A marker, if given, ends every text a leak could show.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

from .forms import CLINIC, PAYER, PRACTITIONER
from .physiology import years_at
from .randomness import Draws, identifiers

_GIVEN_HEADS = ("Bre", "Cael", "Dov", "Eryn", "Fal", "Ghis", "Hul", "Ijs", "Jor", "Kae", "Lup", "Myr", "Nael", "Oss")
_GIVEN_TAILS = ("ack", "aveth", "dwe", "elin", "ifra", "mond", "ovin", "quor", "ryl", "sandrel", "tüne", "uvia", "ysk")
_FAMILY_HEADS = (
    "Ashk",
    "Brom",
    "Cwil",
    "Drav",
    "Elgr",
    "Fenn",
    "Grøv",
    "Harsk",
    "Ivel",
    "Jask",
    "Krum",
    "Lorn",
    "Maft",
)
_FAMILY_MIDDLES = ("", "a", "e", "el", "ing", "o", "or", "um")
_FAMILY_TAILS = (
    "bane",
    "clote",
    "drith",
    "ersk",
    "fañe",
    "gult",
    "hask",
    "keld",
    "loom",
    "march",
    "quist",
    "tarn",
    "wick",
)
_TOWN_HEADS = ("Alder", "Briar", "Copper", "Dusk", "Elm", "Frost", "Gull", "Heron", "Ivy", "Juniper", "Kestrel", "Lark")
_TOWN_TAILS = ("fenmoor", "gatestow", "holmsey", "keldwick", "lowmere", "netherby", "ruddock", "thwaitely")
_STREETS = ("Cobble", "Ferry", "Lantern", "Mill", "Orchard", "Quarry", "Rope", "Saddler", "Tanner", "Weaver")
_WAYS = ("Court", "Lane", "Row", "Street", "Walk")
_CLINICS = ("Community Clinic", "Family Practice", "General Hospital", "Health Centre")
_PAYERS = ("Mutual Health", "Benefit Society", "Care Fund", "Assurance")

# Deaths a year in 100,000, by age; (first year of age, deaths).
_MORTALITY = ((85, 14_000), (75, 5_000), (65, 2_000), (55, 900), (35, 300), (15, 100), (1, 20), (0, 600))

HISTORY_END = date(2026, 6, 30).toordinal()
CLINIC_COUNT = 8
PRACTITIONERS_PER_CLINIC = 4


class Place(NamedTuple):
    """Where somebody can be found, on paper."""

    street: str
    town: str
    postcode: str
    phone: str


class Person(NamedTuple):
    """Who the patient is; days are ordinals."""

    given: str
    middle: str
    family: str
    sex: str
    birth: int
    death: int | None
    place: Place
    mrn: str


class Shared(NamedTuple):
    """A resource that many Bundles carry with the same id and the same bytes."""

    kind: str
    identifier: str
    text: str


class Clinic(NamedTuple):
    """An organisation and those who work there."""

    organization: Shared
    practitioners: tuple[Shared, ...]
    charge_permille: int


class Commons(NamedTuple):
    """Everybody the patients of one seed have in common."""

    clinics: tuple[Clinic, ...]
    payers: tuple[Shared, ...]


def given_name(draws: Draws) -> str:
    """An invented given name."""
    return draws.pick(_GIVEN_HEADS) + draws.pick(_GIVEN_TAILS)


def family_name(draws: Draws) -> str:
    """An invented family name."""
    return draws.pick(_FAMILY_HEADS) + draws.pick(_FAMILY_MIDDLES) + draws.pick(_FAMILY_TAILS)


def place(draws: Draws, mark: str) -> Place:
    """An invented address and telephone number."""
    street = f"{draws.between(1, 240)} {draws.pick(_STREETS)} {draws.pick(_WAYS)}{mark}"
    town = f"{draws.pick(_TOWN_HEADS)}{draws.pick(_TOWN_TAILS)}{mark}"
    postcode = f"X{draws.between(10000, 99999)}"
    phone = f"+999 {draws.between(100, 999)} {draws.between(1000, 9999):04d}{mark}"
    return Place(street, town, postcode, phone)


def _clinic(draws: Draws, ids: Iterator[str], mark: str) -> Clinic:
    at = place(draws, mark)
    identifier = next(ids)
    name = f"{at.town.removesuffix(mark)} {draws.pick(_CLINICS)}{mark}"
    organization = Shared("Organization", identifier, CLINIC(id=identifier, name=name, **at._asdict()))
    practitioners = tuple(_practitioner(draws, next(ids), mark) for _ in range(PRACTITIONERS_PER_CLINIC))
    return Clinic(organization, practitioners, draws.between(900, 1150))


def _practitioner(draws: Draws, identifier: str, mark: str) -> Shared:
    text = PRACTITIONER(
        id=identifier,
        family=family_name(draws) + mark,
        given=given_name(draws) + mark,
        phone=place(draws, mark).phone,
        gender=draws.pick(("female", "male")),
    )
    return Shared("Practitioner", identifier, text)


def _payer(draws: Draws, identifier: str, name: str, mark: str) -> Shared:
    at = place(draws, mark)
    name = f"{at.town.removesuffix(mark)} {name}{mark}"
    return Shared("Organization", identifier, PAYER(id=identifier, name=name, **at._asdict()))


def commons(seed: int, mark: str) -> Commons:
    """The clinics, practitioners and payers of a seed."""
    draws = Draws(seed, 0, "commons")
    ids = identifiers(seed, 0, "commons")
    clinics = tuple(_clinic(draws, ids, mark) for _ in range(CLINIC_COUNT))
    payers = tuple(_payer(draws, next(ids), name, mark) for name in _PAYERS)
    return Commons(clinics, payers)


def _check_digit(digits: str) -> int:
    """Luhn (ISO/IEC 7812-1, annex B)."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[::-2])
    return -(doubled + sum(int(digit) for digit in digits[-2::-2])) % 10


def person(seed: int, index: int, first_day: int, mark: str) -> Person:
    """Patient `index` of a seed, who lives on `first_day` or is born later, and may die before the history ends."""
    draws = Draws(seed, index, "person")
    age = draws.between(20, 34_700)
    if draws.chance(400):
        age = min(age, draws.between(20, 34_700))
    birth = HISTORY_END - age
    death = None
    for day in range(max(birth, first_day), HISTORY_END - 365, 365):
        years = years_at(day - birth)
        deaths = next(rate for since, rate in _MORTALITY if years >= since)
        if draws.below(100_000) < deaths:
            death = day + draws.between(10, 364)
            break
    number = f"{seed}{index:08d}"
    return Person(
        given=given_name(draws) + mark,
        middle=given_name(draws) + mark,
        family=family_name(draws) + mark,
        sex=draws.pick(("female", "male")),
        birth=birth,
        death=death,
        place=place(draws, mark),
        mrn=f"{seed}-{index:08d}-{_check_digit(number)}{mark}",
    )
