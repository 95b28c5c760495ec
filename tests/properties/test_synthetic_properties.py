"""Any patient of any seed obeys the rules; the integer arithmetic beneath equals exact arithmetic."""

from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_UP, Decimal

from ehrfast.synthetic import generate_bundles
from ehrfast.synthetic.billing import PLANS, Accumulator, Line, Plan, portion
from ehrfast.synthetic.forms import decimal
from ehrfast.synthetic.physiology import body_mass_index, filtration_rate
from ehrfast.synthetic.randomness import Draws
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import patient_rules as rules

seeds = st.integers(0, 2**64 - 1)
numbers = st.integers(0, 10**8 - 1)


@settings(max_examples=50, deadline=None)
@given(seed=seeds, number=numbers, years=st.integers(1, 30))
def test_any_patient_obeys_every_rule(seed: int, number: int, years: int) -> None:
    [bundle] = generate_bundles(1, seed=seed, first=number, years=years)
    rules.check_all(rules.parse(bundle), date(2026, 6, 30))


@settings(max_examples=25, deadline=None)
@given(seed=seeds, number=st.integers(0, 10**8 - 9), before=st.integers(0, 3), after=st.integers(0, 3))
def test_a_patient_is_the_same_in_any_company(seed: int, number: int, before: int, after: int) -> None:
    [alone] = generate_bundles(1, seed=seed, first=number, years=2)
    first = max(0, number - before)
    company = list(generate_bundles(number - first + 1 + after, seed=seed, first=first, years=2))
    assert company[number - first] == alone


@given(seed=seeds, number=numbers, bound=st.integers(1, 2**20))
def test_draws_stay_below_their_bound_across_refills(seed: int, number: int, bound: int) -> None:
    draws, again = Draws(seed, number, "test"), Draws(seed, number, "test")
    drawn = [draws.below(bound) for _ in range(600)]
    assert all(0 <= value < bound for value in drawn)
    assert drawn == [again.below(bound) for _ in range(600)]
    assert bound == 1 or drawn[:256] != drawn[256:512]


@given(weight=st.integers(20, 3000), height=st.integers(400, 2300))
def test_bmi_rounds_half_up(weight: int, height: int) -> None:
    exact = Decimal(weight) / 10 / (Decimal(height) / 1000) ** 2
    assert Decimal(body_mass_index(weight, height)) / 10 == exact.quantize(Decimal("0.1"), ROUND_HALF_UP)


@given(creatinine=st.integers(30, 390), years=st.integers(0, 110), sex=st.sampled_from(["female", "male"]))
def test_filtration_rate_equals_the_published_formula(creatinine: int, years: int, sex: str) -> None:
    """CKD-EPI 2021, in floating point; half a unit of rounding is all they may differ by."""
    female = sex == "female"
    ratio = creatinine / 100 / (0.7 if female else 0.9)
    rate = 142 * min(ratio, 1) ** (-0.241 if female else -0.302) * max(ratio, 1) ** -1.2 * 0.9938**years
    assert abs(filtration_rate(creatinine, sex, years) - rate * (1.012 if female else 1)) <= 0.500001


@given(value=st.integers(0, 10**9), places=st.integers(0, 3))
def test_decimals_print_exactly(value: int, places: int) -> None:
    assert Decimal(decimal(value, places)) == Decimal(value).scaleb(-places)
    assert len(decimal(value, places).partition(".")[2]) == places


@given(cents=st.integers(0, 10**8), share=st.integers(0, 1000))
def test_portions_round_half_up(cents: int, share: int) -> None:
    exact = Decimal(cents) * share / 1000
    assert portion(cents, share, 1000) == exact.quantize(Decimal(1), ROUND_HALF_UP)


lines = st.lists(st.builds(Line, st.just("{}"), st.integers(0, 500_000), st.booleans()), min_size=1, max_size=8)


@given(plan=st.sampled_from(PLANS), permille=st.integers(0, 1000), claims=st.lists(lines, min_size=1, max_size=8))
def test_adjudication_loses_and_makes_no_cent(plan: Plan, permille: int, claims: list[list[Line]]) -> None:
    accumulator = Accumulator(plan, permille)
    used = owed = 0
    for claim in claims:
        decided = accumulator.adjudicate(claim, 2020)
        for line, amounts in zip(claim, decided, strict=True):
            assert min(amounts) >= 0
            assert amounts.submitted == line.charge == amounts.eligible + amounts.discount
            shares = amounts.deductible + amounts.copay + amounts.coinsurance
            assert amounts.eligible == shares + amounts.benefit
            assert not (line.preventive and shares)
        used += sum(amounts.deductible for amounts in decided)
        owed += sum(amounts.eligible for line, amounts in zip(claim, decided, strict=True) if not line.preventive)
        assert sum(amounts.copay for amounts in decided) <= plan.copay
    assert used == min(plan.deductible, owed)
