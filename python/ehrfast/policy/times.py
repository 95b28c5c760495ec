"""FHIR dates and periods as spans of Unix milliseconds: what a date leaves open, its span covers.

A span includes its start and excludes its end. Dates without a zone are UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from ehrfast.errors import InvalidInputError

_FORM: Final = re.compile(
    r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(Z|[+-]\d{2}:\d{2})?)?)?)?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Span(NamedTuple):
    """From start, inclusive, until end, exclusive; None is open.

    >>> Span(10, None).holds(10), Span(None, 10).holds(10)
    (True, False)
    """

    start: int | None = None
    end: int | None = None

    def holds(self, moment: int) -> bool:
        """Whether a moment lies in it."""
        return (self.start is None or self.start <= moment) and (self.end is None or moment < self.end)


ALWAYS: Final = Span()


def read_date(text: object) -> tuple[Span, bool]:
    """The milliseconds a FHIR date, dateTime or instant may mean, and whether it tells a time of day.

    Raises:
        InvalidInputError: ``date.malformed``.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidInputError("date.malformed")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        start = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), tzinfo=UTC)
        start += timedelta(seconds=_second(second), milliseconds=int(((fraction or "") + "000")[:3]))
        first = (start - _zone(zone) - _EPOCH) // _MILLISECOND
        length = _length(start, month, day, hour, second, fraction)
    except (ValueError, OverflowError):
        raise InvalidInputError("date.malformed") from None
    return Span(first, first + length // _MILLISECOND), hour is not None


def _second(text: str | None) -> int:
    seconds = int(text or 0)
    if seconds > 60:  # 60 is a leap second
        raise ValueError
    return seconds


def _zone(text: str | None) -> timedelta:
    if text is None or text == "Z":
        return timedelta(0)
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[4:6]))
    if offset > timedelta(hours=14):
        raise ValueError
    return -offset if text[0] == "-" else offset


def _length(
    start: datetime, month: str | None, day: str | None, hour: str | None, second: str | None, fraction: str | None
) -> timedelta:
    if fraction is not None:
        return _MILLISECOND
    if hour is not None:
        return timedelta(seconds=1) if second is not None else timedelta(minutes=1)
    if day is not None:
        return timedelta(days=1)
    if month is not None:
        return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1) - start
    return start.replace(year=start.year + 1) - start


def read_validity(start: object, end: object) -> Span:
    """A period in which a rule holds: a time of day as end ends it at that tick, a date ends it with that day.

    Raises:
        InvalidInputError: ``date.malformed``, ``period.backwards``.
    """
    first = None if start is None else read_date(start)[0].start
    last = None
    if end is not None:
        span, timed = read_date(end)
        last = span.start if timed else span.end
    return _forward(first, last)


def read_coverage(start: object, end: object) -> Span:
    """A period that data lie in: its end includes whatever matches it, as FHIR says of Period.end.

    Raises:
        InvalidInputError: ``date.malformed``, ``period.backwards``.
    """
    first = None if start is None else read_date(start)[0].start
    return _forward(first, None if end is None else read_date(end)[0].end)


def _forward(start: int | None, end: int | None) -> Span:
    if start is not None and end is not None and end < start:
        raise InvalidInputError("period.backwards")
    return Span(start, end)


def write_instant(moment: int) -> str:
    """ISO 8601 in UTC with milliseconds.

    >>> write_instant(1767225600000)
    '2026-01-01T00:00:00.000Z'
    """
    return (_EPOCH + moment * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")
