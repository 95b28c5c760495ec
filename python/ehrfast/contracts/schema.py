"""Types of arguments, views and events, compiled to checks that cost a fraction of a microsecond a row.

Owns what a type accepts; refuses integers beyond 64 bits, text too long, and every value of another type.
Text arrives NFC from the strict decoder; text made by a contract is checked by the encoder that stores it.
"""

from __future__ import annotations

import ast
import re
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1
TEXT_MAX = 1024
BYTES_MAX = 65_536
ARRAY_MAX = 4_096

_CODE = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_known_codes: set[str] = set()


def is_code(text: str) -> bool:
    """Whether text has the form of a code; codes seen before are answered from a bounded memory."""
    if _CODE.fullmatch(text) is None:
        return False
    if len(_known_codes) < 4_096:
        _known_codes.add(text)
    return True


@dataclass(frozen=True, slots=True)
class Type:
    """One type of the schema.

    kind: a scalar's name, or `optional`, `array`, `tuple`, `row`.
    inner: what it is made of; for a row, its columns.
    """

    kind: str
    inner: tuple[Type, ...] = ()
    name: str = ""
    columns: tuple[Field, ...] = ()
    row: type[Any] | None = field(default=None, compare=False)

    def describe(self) -> str:
        """The type in words for the API, the command line and the docs."""
        if self.kind == "optional":
            return f"{self.inner[0].describe()} or null"
        if self.kind == "array":
            return f"array of {self.inner[0].describe()}"
        if self.kind == "tuple":
            return "[" + ", ".join(part.describe() for part in self.inner) + "]"
        if self.kind == "row":
            return self.name + "(" + ", ".join(f"{c.name}: {c.type.describe()}" for c in self.columns) + ")"
        return self.kind


@dataclass(frozen=True, slots=True)
class Field:
    """A named, typed value: a field of an arguments class, a column of a row, a parameter of a view."""

    name: str
    type: Type
    doc: str = ""
    required: bool = True
    default: object = None


_SCALARS = {
    "int": f"type({{0}}) is int and {INTEGER_MIN} <= {{0}} <= {INTEGER_MAX}",
    "Natural": f"type({{0}}) is int and 0 <= {{0}} <= {INTEGER_MAX}",
    "bool": "type({0}) is bool",
    "bytes": f"type({{0}}) is bytes and len({{0}}) <= {BYTES_MAX}",
    "str": f"type({{0}}) is str and len({{0}}) <= {TEXT_MAX}",
    "Id": "type({0}) is bytes and len({0}) == 16",
    "Digest": "type({0}) is bytes and len({0}) == 32",
    "PublicKey": "type({0}) is bytes and len({0}) == 32",
    "Code": "type({0}) is str and ({0} in known_codes or is_code({0}))",
}
SCALAR_NAMES = tuple(_SCALARS)


def type_of(annotation: ast.expr, rows: Mapping[str, Type]) -> Type | None:
    """The type an annotation names, None when it is not one of ours (the guard then refuses it with its line)."""
    match annotation:
        case ast.Name(id=name) if name in _SCALARS:
            return Type(name)
        case ast.Name(id=name) if name in rows:
            return rows[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
            inner = type_of(left, rows)
            return Type("optional", (inner,)) if inner and inner.kind != "optional" else None
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[item, ast.Constant(value=end)])) if (
            end is Ellipsis
        ):
            inner = type_of(item, rows)
            return Type("array", (inner,)) if inner else None
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=items)) if items:
            parts = [type_of(item, rows) for item in items]
            return None if None in parts else Type("tuple", tuple(part for part in parts if part))
    return None


def row_type(name: str, columns: tuple[Field, ...]) -> Type:
    """A named tuple type; its values reach the contract with their column names."""
    defaults = [column.default for column in columns if not column.required]
    made = namedtuple(name, [column.name for column in columns], defaults=defaults)  # type: ignore[misc]
    return Type("row", tuple(column.type for column in columns), name, columns, made)


class Writer:
    """Writes the source of checks and conversions, and gathers the names that source needs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"known_codes": _known_codes, "is_code": is_code}
        self._count = 0

    def fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def condition(self, kind: Type, value: str) -> str:
        """An expression that is true when the variable named by `value` holds a value of the type."""
        if kind.kind in _SCALARS:
            return _SCALARS[kind.kind].format(value)
        if kind.kind == "optional":
            return f"({value} is None or ({self.condition(kind.inner[0], value)}))"
        if kind.kind == "array":
            check = self.checker(kind.inner[0])
            return f"type({value}) is tuple and len({value}) <= {ARRAY_MAX} and all(map({check}, {value}))"
        return f"{self.checker(kind)}({value})"

    def checker(self, kind: Type) -> str:
        """The name of a function that tells whether its argument is of the type."""
        name = self.fresh("check")
        if kind.kind in ("tuple", "row"):
            parts = [f"p{number}" for number in range(len(kind.inner))]
            tests = [self.condition(inner, part) for inner, part in zip(kind.inner, parts, strict=True)]
            self.lines += [
                f"def {name}(v):",
                f" if not isinstance(v, tuple) or len(v) != {len(parts)}: return False",
                f" {', '.join(parts)}, = v",
                f" return {' and '.join(tests)}",
            ]
        else:
            test = self.condition(kind, "v")
            self.lines += [f"def {name}(v):", f" return {test}"]
        return name

    def row(self, kind: Type) -> str:
        name = f"row_{kind.name}"
        self.names[name] = kind.row
        return name

    def converted(self, kind: Type, value: str) -> str:
        """An expression that gives the value with rows named, or the value itself where no row is inside."""
        if not _has_row(kind):
            return value
        if kind.kind == "optional":
            return f"(None if {value} is None else {self.converted(kind.inner[0], value)})"
        name = self.fresh("convert")
        if kind.kind == "array":
            inner = self.converted(kind.inner[0], "v")
            self.lines += [f"def {name}(vs):", f" return tuple([{inner} for v in vs])"]
            return f"{name}({value})"
        parts = [f"p{number}" for number in range(len(kind.inner))]
        inside = [self.converted(inner, part) for inner, part in zip(kind.inner, parts, strict=True)]
        plain = inside == parts
        made = "v" if plain else "(" + ", ".join(inside) + ",)"
        if kind.kind == "row":
            self.names["new_tuple"] = tuple.__new__
            made = f"new_tuple({self.row(kind)}, {made})"
            if plain:
                return made.replace("(v)", f"({value})").replace(", v)", f", {value})")
        self.lines += [f"def {name}(v):", f" {', '.join(parts)}, = v", f" return {made}"]
        return f"{name}({value})"

    def compile(self, name: str) -> Callable[..., Any]:
        names = dict(self.names)
        exec(compile("\n".join(self.lines), "<schema>", "exec"), names)
        made: Callable[..., Any] = names[name]
        return made


def _has_row(kind: Type) -> bool:
    return kind.kind == "row" or any(_has_row(inner) for inner in kind.inner)


class Absent:
    """Stands for a required value that is not there; it is of no type, so every check refuses it."""

    __slots__ = ()


_ABSENT = Absent()


class Mismatch(Exception):
    """A value is not of its declared type."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields of a class, the class itself, and compiled ways to make an instance.

    build: from the values in order; from_map: from a CBOR map with keys 1..n. Both raise `Mismatch`.
    holds: whether all the values in order are of their types, without making an instance.
    """

    name: str
    fields: tuple[Field, ...]
    made: type[Any]
    build: Callable[..., Any]
    from_map: Callable[[Mapping[int, object]], Any]
    holds: Callable[..., bool]

    def numbered(self, given: object) -> Mapping[int, object]:
        """Values of an instance or mapping as the map a transaction carries: keys 1..n, defaults left out."""
        values: dict[int, object] = {}
        if isinstance(given, Mapping):
            unknown = [name for name in given if name not in {f.name for f in self.fields}]
            if unknown:
                raise Mismatch(str(unknown[0]))
        for number, one in enumerate(self.fields, 1):
            if isinstance(given, Mapping):
                value = given.get(one.name, _ABSENT if one.required else one.default)
            else:
                value = getattr(given, one.name, _ABSENT)
            value = _plain(value)
            if one.required or value != one.default or type(value) is not type(one.default):
                values[number] = value
        self.from_map(values)
        return values


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    return value


def make_schema(name: str, fields: tuple[Field, ...]) -> Schema:
    """Compiles the class and its checks; the class is immutable because the guard admits no attribute assignment."""
    # Parameters are numbered here: a field may have any name, `type` and `len` too.
    names = [f"value_{number}" for number, _ in enumerate(fields, 1)]
    made = _make_class(name, fields)
    writer = Writer()
    writer.names |= {"Made": made, "Mismatch": Mismatch, "absent": _ABSENT}
    tests = [writer.condition(one.type, value) for one, value in zip(fields, names, strict=True)]
    values = [writer.converted(one.type, value) for one, value in zip(fields, names, strict=True)]
    absent = ["absent" if one.required else f"default_{number}" for number, one in enumerate(fields, 1)]
    signature = ", ".join(
        value if one.required else f"{value}={default}"
        for value, one, default in zip(names, fields, absent, strict=True)
    )
    for number, one in enumerate(fields, 1):
        if not one.required:
            writer.names[f"default_{number}"] = one.default
    writer.lines += [f"def build({signature}):"]
    if tests:
        writer.lines += [f" if not ({' and '.join(f'({test})' for test in tests)}): raise Mismatch"]
    writer.lines += [f" return Made({', '.join(values)})"]
    held = " and ".join(f"({test})" for test in tests) or "True"
    writer.lines += [f"def holds({', '.join(names)}):", f" return {held}"]
    got = [f"given.get({number}, {value})" for number, value in enumerate(absent, 1)]
    writer.lines += [
        "def from_map(given):",
        " for key in given:",
        f"  if type(key) is not int or not 1 <= key <= {len(fields)}: raise Mismatch",
        f" return build({', '.join(got)})",
    ]
    build = writer.compile("build")
    return Schema(name, fields, made, build, build.__globals__["from_map"], build.__globals__["holds"])


def _make_class(name: str, fields: tuple[Field, ...]) -> type[Any]:
    names = [one.name for one in fields]
    parameters = "".join(
        f", {one.name}" if one.required else f", {one.name}=_default_{number}" for number, one in enumerate(fields)
    )
    lines = [
        "class _Made:",
        f" __slots__ = {tuple(names)!r}",
        f" def __init__(_self{parameters}):",
        *(f"  _self.{one} = {one}" for one in names),
        "  return None",
        " def _values(_self):",
        f"  return ({''.join(f'_self.{one}, ' for one in names)})",
        " def __eq__(_self, other):",
        "  return type(other) is _Made and _self._values() == other._values()",
        " def __hash__(_self):",
        "  return hash(_self._values())",
        " def __repr__(_self):",
        f"  return {name + '(...)'!r}",
    ]
    space: dict[str, Any] = {"__name__": "ehrfast.contracts.loaded"}
    space |= {f"_default_{number}": one.default for number, one in enumerate(fields)}
    exec(compile("\n".join(lines), "<schema>", "exec"), space)
    made: type[Any] = space["_Made"]
    made.__name__ = made.__qualname__ = name
    return made
