"""Owns what a body measures at an age, and how treatment changes it; integers only, so equal on every platform.

Units: height mm, weight hectograms, BMI tenths of kg/m2, pressure mm[Hg], HbA1c tenths of a percent, creatinine
hundredths of mg/dL, lipids and glucose mg/dL, ages and times days. The models are plain straight lines, not medicine.
"""

from __future__ import annotations

from bisect import bisect_right
from decimal import Context, Decimal
from functools import cache

from .randomness import Draws

YEAR = 1461  # quarter days: 4 * 365.25; ages in years are `days * 4 // YEAR`

# Thresholds by which a condition is recognised.
HYPERTENSIVE_SYSTOLIC, HYPERTENSIVE_DIASTOLIC = 140, 90
DIABETIC_A1C, PREDIABETIC_A1C = 65, 57
HIGH_LDL = 160
LOW_EGFR = 60
OBESE_BMI = 300

# Age in days, then height and weight of boys, height and weight of girls: near the middle of growth charts.
_GROWTH_ROWS = (
    (0, 499, 33, 491, 32),
    (30, 547, 45, 537, 42),
    (61, 584, 56, 571, 51),
    (122, 639, 70, 621, 64),
    (183, 676, 79, 657, 73),
    (274, 720, 89, 701, 82),
    (365, 757, 96, 740, 90),
    (548, 823, 109, 807, 102),
    (730, 871, 122, 857, 115),
    (1096, 961, 143, 950, 139),
    (1461, 1033, 163, 1020, 158),
    (1826, 1100, 183, 1079, 179),
    (2192, 1157, 207, 1152, 203),
    (2557, 1217, 229, 1216, 228),
    (2922, 1273, 254, 1278, 258),
    (3287, 1326, 281, 1333, 290),
    (3652, 1378, 312, 1384, 330),
    (4018, 1430, 350, 1441, 374),
    (4383, 1491, 399, 1514, 418),
    (4748, 1560, 453, 1573, 460),
    (5113, 1638, 508, 1605, 494),
    (5479, 1700, 560, 1619, 521),
    (5844, 1735, 608, 1625, 539),
    (6209, 1752, 644, 1629, 551),
    (6574, 1761, 669, 1631, 561),
    (7305, 1767, 706, 1633, 582),
)


def _column(number: int) -> tuple[int, ...]:
    return tuple(row[number] for row in _GROWTH_ROWS)


_GROWTH_DAYS = _column(0)
_GROWTH = {"male": (_column(1), _column(2)), "female": (_column(3), _column(4))}
_GROWN = _GROWTH_DAYS[-1]


def years_at(age: int) -> int:
    """Whole years in an age of days, near enough for a model."""
    return age * 4 // YEAR


def _along(values: tuple[int, ...], age: int) -> int:
    at = bisect_right(_GROWTH_DAYS, age) - 1
    if at + 1 >= len(values):
        return values[-1]
    passed, span = age - _GROWTH_DAYS[at], _GROWTH_DAYS[at + 1] - _GROWTH_DAYS[at]
    return values[at] + (values[at + 1] - values[at]) * passed // span


def body_mass_index(weight: int, height: int) -> int:
    """Tenths of kg/m2 from hectograms and millimetres, halves rounded up."""
    square = height * height
    return (2_000_000 * weight + square) // (2 * square)


def mean_glucose(a1c: int) -> int:
    """The mean glucose in mg/dL that goes with an HbA1c in tenths: 28.7 x HbA1c - 46.7 (ADAG study, 2008)."""
    return (287 * a1c - 4670 + 50) // 100


_EXACT = Context(prec=30)
_SCALE = 10**12


@cache
def _creatinine_factor(creatinine: int, sex: str) -> int:
    kappa, alpha = (70, "-0.241") if sex == "female" else (90, "-0.302")
    ratio = _EXACT.divide(Decimal(creatinine), Decimal(kappa))
    factor = _EXACT.power(ratio, Decimal(alpha if ratio < 1 else "-1.200"))
    factor = _EXACT.multiply(factor, Decimal("143.704" if sex == "female" else "142"))
    return int(_EXACT.multiply(factor, Decimal(_SCALE)))


@cache
def _age_factor(years: int) -> int:
    return int(_EXACT.multiply(_EXACT.power(Decimal("0.9938"), Decimal(years)), Decimal(_SCALE)))


def filtration_rate(creatinine: int, sex: str, years: int) -> int:
    """Estimated GFR in mL/min/1.73 m2 by the CKD-EPI creatinine equation of 2021, rounded to a whole number."""
    product = _creatinine_factor(creatinine, sex) * _age_factor(years)
    return (product + _SCALE * _SCALE // 2) // (_SCALE * _SCALE)


class Body:
    """One body: constants drawn once, measured at any age in days; a treatment's effect ramps up over 60 days."""

    __slots__ = ("_a1c", "_bulk", "_creatinine", "_draws", "_effects", "_gain", "_ldl", "_pressure", "_stature", "sex")

    def __init__(self, draws: Draws, sex: str) -> None:
        self._draws = draws
        self.sex = sex
        self._stature = 1000 + draws.spread(70)
        self._bulk = 880 + draws.below(200) + draws.below(200)
        self._gain = draws.between(0, 90)
        self._pressure = (draws.between(98, 120), draws.between(15, 75))
        # Three in ten slide towards diabetes, one in ten loses kidney function, both from middle age on.
        self._a1c = (draws.between(48, 54), draws.between(8, 25) if draws.chance(300) else draws.between(0, 3))
        healthy = draws.between(62, 88) if sex == "female" else draws.between(80, 108)
        self._creatinine = (healthy, draws.between(25, 60) if draws.chance(100) else draws.between(0, 6))
        self._ldl = (draws.between(82, 140), draws.between(0, 90))
        self._effects: dict[str, list[tuple[int, int]]] = {}

    def treat(self, measure: str, age: int, effect: int) -> None:
        """From `age` on, `measure` falls by up to `effect`, on top of what already works on it."""
        self._effects.setdefault(measure, []).append((age, effect))

    def _relief(self, measure: str, age: int) -> int:
        effects = self._effects.get(measure, ())
        return sum(effect * min(age - start, 60) // 60 for start, effect in effects if age > start)

    def height(self, age: int) -> int:
        """Millimetres; children grow, the old lose a millimetre in two years."""
        shrunk = max(0, years_at(age) - 50) // 2
        return _along(_GROWTH[self.sex][0], age) * self._stature // 1000 - shrunk

    def weight(self, age: int) -> int:
        """Hectograms; adults gain until 60 and lose a little from 75 on."""
        lean = _along(_GROWTH[self.sex][1], age) * self._stature * self._stature // 1_000_000
        # Newborns differ less than adults do: the build shows itself between birth and the age of growth's end.
        bulk = 1000 + (self._bulk - 1000) * min(age, _GROWN) // _GROWN
        grown = lean * bulk // 1000
        gained = self._gain * (min(max(age, _GROWN), 21915) - _GROWN) * 4 // (YEAR * 10)
        lost = max(0, years_at(age) - 75) * 3
        return max(grown + gained - lost + self._draws.spread(max(1, grown // 120)), 20)

    def pressure(self, age: int, bmi: int) -> tuple[int, int]:
        """Systolic and diastolic; rises with age and with weight, falls under treatment."""
        years = years_at(age)
        if years < 18:
            systolic = 86 + years * 3 // 2 + self._draws.spread(6)
        else:
            base, slope = self._pressure
            systolic = base + (years - 18) * slope // 100 + max(0, bmi - 250) // 10 + self._draws.spread(6)
        systolic = max(systolic - self._relief("pressure", age), 84)
        return systolic, systolic * 62 // 100 + self._draws.spread(4)

    def heart_rate(self, age: int) -> int:
        """Beats a minute."""
        return max(72, 140 - years_at(age) * 6) + self._draws.spread(10)

    def temperature(self, fever: bool) -> int:
        """Tenths of a degree Celsius."""
        return (383 if fever else 367) + self._draws.spread(4)

    def a1c(self, age: int) -> int:
        """HbA1c in tenths of a percent."""
        base, rate = self._a1c
        return max(
            base + max(0, years_at(age) - 35) * rate // 20 - self._relief("a1c", age) + self._draws.spread(1), 45
        )

    def glucose(self, a1c: int) -> int:
        """A single glucose around the mean that the HbA1c tells of."""
        return mean_glucose(a1c) + self._draws.spread(7)

    def creatinine(self, age: int) -> int:
        """Hundredths of mg/dL."""
        base, rate = self._creatinine
        return min(base + max(0, years_at(age) - 50) * rate // 20 + self._draws.spread(3), 390)

    def lipids(self, age: int) -> tuple[int, int, int, int]:
        """Total cholesterol, triglycerides, HDL, and LDL, which is total - HDL - triglycerides / 5 (Friedewald)."""
        base, rate = self._ldl
        ldl = base + max(0, years_at(age) - 20) * rate // 60 + self._draws.spread(6)
        ldl -= ldl * self._relief("ldl", age) // 100
        triglycerides = 5 * (self._draws.between(16, 36) + max(0, years_at(age) - 30) // 10)
        hdl = (52 if self.sex == "female" else 44) + self._draws.spread(9)
        return ldl + hdl + triglycerides // 5, triglycerides, hdl, ldl

    def sodium(self) -> int:
        """mmol/L."""
        return 140 + self._draws.spread(4)

    def potassium(self) -> int:
        """Tenths of mmol/L."""
        return 42 + self._draws.spread(6)
