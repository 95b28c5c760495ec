"""Seeded, consistent FHIR R4 patients: made up from first to last, equal bytes for equal arguments on every platform.

Refuses nothing but arguments out of range; reads no clock, no file, no network, and imports nothing else of ehrfast.
Patient i depends on (seed, i, years, marker) alone, so any range of patients can be made anywhere, in any order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from . import forms
from .history import History, Refer, write_history
from .people import Commons, commons

__all__ = ["DEFAULT_YEARS", "Description", "describe_bundles", "generate_bundles", "generate_resources"]

DEFAULT_YEARS = 10
_MARKER = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Description:
    """What `generate_bundles` makes of the same arguments.

    Attributes:
        patients: Bundles, one a patient.
        deceased: patients who die within the history.
        entries: entries of all Bundles together; shared resources count each time a Bundle carries them.
        resources: distinct resources, so what a store holds after importing all Bundles.
        size_bytes: length of all Bundles together.
        counts: distinct resources by type, types in alphabetical order.
    """

    patients: int
    deceased: int
    entries: int
    resources: int
    size_bytes: int
    counts: Mapping[str, int]


def _in_bundle(kind: str, identifier: str) -> str:
    return f"urn:uuid:{identifier}"


def _relative(kind: str, identifier: str) -> str:
    return f"{kind}/{identifier}"


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {value}")


def _mark(marker: str | None) -> str:
    if marker is None:
        return ""
    if not _MARKER.fullmatch(marker):
        raise ValueError("marker must be 1 to 64 ASCII letters, digits or hyphens")
    return " " + marker


def _histories(patients: int, seed: int, first: int, years: int, marker: str | None, refer: Refer) -> Iterator[History]:
    _check("patients", patients, 0, 10**8)
    _check("seed", seed, 0, 2**64 - 1)
    _check("first", first, 0, 10**8 - patients)
    _check("years", years, 1, 100)
    mark = _mark(marker)
    shared: Commons = commons(seed, mark)
    return (write_history(shared, seed, index, years, mark, refer) for index in range(first, first + patients))


def _bundle(history: History) -> bytes:
    return forms.bundle(
        [
            *(forms.shared_entry(*shared) for shared in history.shared),
            *(forms.entry(*entry) for entry in history.entries),
        ]
    )


def generate_bundles(
    patients: int,
    *,
    seed: int = 1,
    first: int = 0,
    years: int = DEFAULT_YEARS,
    marker: str | None = None,
) -> Iterator[bytes]:
    """Makes transaction Bundles, one a patient, in UTF-8 JSON; one Bundle is in memory at a time.

    A Bundle holds the clinics, practitioners and payers its patient meets (equal ids and bytes in every Bundle of a
    seed), the patient, and up to `years` years of history ending on 30 June 2026 or at death. References are
    `urn:uuid:` full URLs within the Bundle.

    Args:
        patients: how many, 0 to 10**8.
        seed: 0 to 2**64 - 1; another seed is another population.
        first: number of the first patient.
        years: length of the history, 1 to 100; a child's starts at birth.
        marker: a text of letters, digits and hyphens that is put into names, addresses, telephone and record numbers,
            narratives and notes, so that a test can look for it where no patient data may be.

    Returns:
        An iterator of Bundles, patient `first` first.

    Raises:
        ValueError: an argument is out of range; raised by the call, not by the iteration.

    Source: FHIR R4 (4.0.1), Bundle, http.html#transaction.

    >>> bundle = next(generate_bundles(1, seed=7))
    >>> bundle == next(generate_bundles(5, seed=7)), bundle[:40]
    (True, b'{"resourceType":"Bundle","type":"transac')
    """
    return map(_bundle, _histories(patients, seed, first, years, marker, _in_bundle))


def generate_resources(
    count: int, *, seed: int = 1, years: int = DEFAULT_YEARS, marker: str | None = None
) -> Iterator[bytes]:
    """Makes `count` single resources, each a line of UTF-8 JSON without its line end, as NDJSON wants them.

    They are the resources of patients 0, 1, 2 ... with the same ids as in `generate_bundles`, but they refer to each
    other as `Type/id`, and a shared resource comes once, before the first that refers to it.

    Args:
        count: how many, 0 to 10**9; the last patient's history breaks off where the count is reached.
        seed: as in `generate_bundles`.
        years: as in `generate_bundles`.
        marker: as in `generate_bundles`.

    Raises:
        ValueError: an argument is out of range; raised by the call, not by the iteration.

    >>> [line[:31] for line in generate_resources(2)]
    [b'{"resourceType":"Organization",', b'{"resourceType":"Practitioner",']
    """
    _check("count", count, 0, 10**9)
    return _resources(count, _histories(10**8, seed, 0, years, marker, _relative))


def _resources(count: int, histories: Iterator[History]) -> Iterator[bytes]:
    seen: set[str] = set()
    while count:
        history = next(histories)
        fresh = [shared for shared in history.shared if shared.identifier not in seen]
        seen.update(shared.identifier for shared in fresh)
        for _, _, text in [*fresh, *history.entries][:count]:
            yield text.encode()
            count -= 1


def describe_bundles(
    patients: int,
    *,
    seed: int = 1,
    first: int = 0,
    years: int = DEFAULT_YEARS,
    marker: str | None = None,
) -> Description:
    """Counts what `generate_bundles` makes of the same arguments, by making it; memory stays flat.

    >>> described = describe_bundles(3)
    >>> described.patients, described.counts["Patient"]
    (3, 3)
    """
    counts: dict[str, int] = {}
    seen: set[str] = set()
    deceased = entries = size_bytes = 0
    for history in _histories(patients, seed, first, years, marker, _in_bundle):
        deceased += history.deceased
        entries += len(history.shared) + len(history.entries)
        size_bytes += len(_bundle(history))
        kinds = [shared.kind for shared in history.shared if shared.identifier not in seen]
        seen.update(shared.identifier for shared in history.shared)
        for kind in (*kinds, *(entry.kind for entry in history.entries)):
            counts[kind] = counts.get(kind, 0) + 1
    ordered = MappingProxyType({kind: counts[kind] for kind in sorted(counts)})
    return Description(patients, deceased, entries, sum(counts.values()), size_bytes, ordered)
