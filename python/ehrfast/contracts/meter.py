"""The work budget of one transaction, and the bounded twins of the operations and built-ins a contract may use.

Owns what each costs; refuses integers beyond 64 bits, sequences beyond a cap and mixed types.
The numbers are consensus: the same on every Python, so none may depend on memory, time or hashing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any, Final, NoReturn

from ehrfast.contracts.schema import INTEGER_MAX, INTEGER_MIN

SEQUENCE_MAX: Final = 65_536

# What one use costs in units; a counted step is one, about a tenth of a microsecond.
CALL: Final = 100
READ: Final = 40
WRITE: Final = 100
EVENT: Final = 50
TIMER: Final = 200
KEY_CHECK: Final = 500
BYTES_PER_UNIT: Final = 16


class Refusal(Exception):
    """Ends a call with a code of its own: `ctx.fail`, out of work, too deep, or a nested call that was refused."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Broken(Exception):
    """The contract did what no contract may; the call ends with `contract.broken`."""


class Meter:
    """Counts a transaction's work down to zero; nested calls share it."""

    __slots__ = ("left", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit

    def step(self) -> bool:
        self.left -= 1
        if self.left < 0:
            self.exhausted()
        return True

    def charge(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            self.exhausted()

    def exhausted(self) -> NoReturn:
        raise Refusal("contract.out_of_work")

    @property
    def spent(self) -> int:
        return self.limit - max(self.left, 0)


_SIZED: Final = frozenset({tuple, list, dict, str, bytes, range, type({}.keys()), type({}.values()), type({}.items())})


def _sized(meter: Meter, values: Any) -> Any:
    """Pays for walking the values once; only what knows its length beforehand may be walked."""
    if type(values) not in _SIZED and not isinstance(values, (tuple, list)):
        raise Broken
    meter.charge(len(values))
    return values


def _walk(meter: Meter, values: Any) -> Any:
    """The same, and generators too: each of their elements counts a step of its own."""
    return values if type(values) is GeneratorType else _sized(meter, values)


def _bounded(value: int) -> int:
    if INTEGER_MIN <= value <= INTEGER_MAX:
        return value
    raise Broken


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise Broken
    return value


def _add(meter: Meter, left: Any, right: Any) -> Any:
    kind = type(left)
    if kind is not type(right):
        raise Broken
    if kind is int:
        value = left + right
        if INTEGER_MIN <= value <= INTEGER_MAX:
            return value
        raise Broken
    if kind is bytes or kind is str or kind is tuple:
        length = len(left) + len(right)
        if length > SEQUENCE_MAX:
            raise Broken
        meter.charge(length // 8)
        return left + right
    raise Broken


def _subtract(meter: Meter, left: Any, right: Any) -> int:
    if type(left) is int and type(right) is int:
        value = left - right
        if INTEGER_MIN <= value <= INTEGER_MAX:
            return value
    raise Broken


def _multiply(meter: Meter, left: Any, right: Any) -> int:
    return _bounded(_integer(left) * _integer(right))


def _floor_divide(meter: Meter, left: Any, right: Any) -> int:
    return _bounded(_integer(left) // _integer(right))


def _modulo(meter: Meter, left: Any, right: Any) -> int:
    return _integer(left) % _integer(right)


def _negate(meter: Meter, value: Any) -> int:
    return _bounded(-_integer(value))


def _contains(meter: Meter, value: Any, values: Any) -> bool:
    if type(values) is not dict:
        if type(values) not in _SIZED and not isinstance(values, (tuple, list)):
            raise Broken
        meter.charge(len(values) // 4)
    return value in values


def _slice(meter: Meter, values: Any, lower: Any, upper: Any) -> Any:
    if type(values) not in (tuple, list, bytes, str):
        raise Broken
    taken = values[lower:upper]
    meter.charge(len(taken) // 4)
    return taken


def _len(meter: Meter, values: Any) -> int:
    return len(values)


def _range(meter: Meter, *bounds: Any) -> range:
    made = range(*(_integer(bound) for bound in bounds))
    if len(made) > SEQUENCE_MAX:
        raise Broken
    return made


def _tuple(meter: Meter, *values: Any) -> tuple[Any, ...]:
    return tuple(_walk(meter, values[0])) if values else ()


def _list(meter: Meter, *values: Any) -> list[Any]:
    return list(_walk(meter, values[0])) if values else []


def _sorted(meter: Meter, values: Any) -> list[Any]:
    made = list(_walk(meter, values))
    meter.charge(len(made) * len(made).bit_length())
    made.sort()
    return made


def _reversed(meter: Meter, values: Any) -> Iterator[Any]:
    return iter(list(reversed(_sized(meter, values))))


def _enumerate(meter: Meter, values: Any, start: Any = 0) -> Iterator[Any]:
    return iter(list(enumerate(_sized(meter, values), _integer(start))))


def _zip(meter: Meter, *values: Any) -> Iterator[Any]:
    return iter(list(zip(*(_sized(meter, one) for one in values), strict=True)))


def _sum(meter: Meter, values: Any) -> int:
    total = 0
    for value in _walk(meter, values):
        total = _bounded(total + _integer(value))
    return total


def _any(meter: Meter, values: Any) -> bool:
    return any(_walk(meter, values))


def _all(meter: Meter, values: Any) -> bool:
    return all(_walk(meter, values))


def _min(meter: Meter, *values: Any) -> Any:
    return min(_walk(meter, values[0])) if len(values) == 1 else min(values)


def _max(meter: Meter, *values: Any) -> Any:
    return max(_walk(meter, values[0])) if len(values) == 1 else max(values)


def _abs(meter: Meter, value: Any) -> int:
    return _bounded(abs(_integer(value)))


def _bool(meter: Meter, value: Any) -> bool:
    return bool(value)


COUNTED: Final[dict[str, Callable[..., Any]]] = {
    "abs": _abs,
    "all": _all,
    "any": _any,
    "bool": _bool,
    "enumerate": _enumerate,
    "len": _len,
    "list": _list,
    "max": _max,
    "min": _min,
    "range": _range,
    "reversed": _reversed,
    "sorted": _sorted,
    "sum": _sum,
    "tuple": _tuple,
    "zip": _zip,
}
OPERATIONS: Final[dict[str, Callable[..., Any]]] = {
    "_Add": _add,
    "_FloorDiv": _floor_divide,
    "_In": _contains,
    "_Mod": _modulo,
    "_Mult": _multiply,
    "_Slice": _slice,
    "_Sub": _subtract,
    "_USub": _negate,
}
