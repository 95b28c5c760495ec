"""Owns what a visit costs, who pays and how much; integer cents throughout, halves rounded up, nothing lost or made.

Invariants of every line: submitted = eligible + discount, eligible = deductible + copay + coinsurance + benefit.
The deductible is used up within a calendar year, in the order in which claims are made.
"""

from __future__ import annotations

from typing import NamedTuple


class Plan(NamedTuple):
    """An insurance plan: yearly deductible, then a fixed copay a claim or a share of every line."""

    name: str
    deductible: int
    copay: int
    coinsurance_percent: int


PLANS: tuple[Plan, ...] = (
    Plan("Share 80", 23_300, 0, 20),
    Plan("Copay 30", 164_400, 3_000, 0),
)


class Line(NamedTuple):
    """One line of a claim; a preventive service costs the patient nothing."""

    product: str
    charge: int
    preventive: bool


class Adjudicated(NamedTuple):
    """What became of a line, or of a claim: field by field the amounts of an ExplanationOfBenefit, in cents."""

    submitted: int
    discount: int
    eligible: int
    deductible: int
    copay: int
    coinsurance: int
    benefit: int


def portion(cents: int, share: int, whole: int) -> int:
    """`share` / `whole` of an amount, to the cent, halves up."""
    return (2 * cents * share + whole) // (2 * whole)


def total(lines: list[Adjudicated]) -> Adjudicated:
    """The sum of lines, field by field."""
    return Adjudicated(*(sum(amounts) for amounts in zip(*lines, strict=True)))


class Accumulator:
    """What is left of each year's deductible under one coverage."""

    __slots__ = ("_allowed_permille", "_left", "_plan")

    def __init__(self, plan: Plan, allowed_permille: int) -> None:
        self._plan = plan
        self._allowed_permille = allowed_permille
        self._left: dict[int, int] = {}

    def adjudicate(self, lines: list[Line], year: int) -> list[Adjudicated]:
        """Decides a claim's lines in order and takes the deductible off the year's remainder."""
        left = self._left.get(year, self._plan.deductible)
        copay_left = self._plan.copay
        decided = []
        for line in lines:
            eligible = portion(line.charge, self._allowed_permille, 1000)
            deductible = copay = coinsurance = 0
            if not line.preventive:
                deductible = min(eligible, left)
                copay = min(eligible - deductible, copay_left)
                coinsurance = portion(eligible - deductible - copay, self._plan.coinsurance_percent, 100)
                left -= deductible
                copay_left -= copay
            benefit = eligible - deductible - copay - coinsurance
            decided.append(
                Adjudicated(line.charge, line.charge - eligible, eligible, deductible, copay, coinsurance, benefit)
            )
        self._left[year] = left
        return decided
