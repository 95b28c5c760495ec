"""Conditions in CEL over a request and a record: parsed and typed when submitted, kept as a closed tree.

Owns the part of CEL that always ends and gives every node the same answer: booleans, 64-bit integers, text equality,
`in`, times in milliseconds, `has`, `all` and `exists`. What is not known is None, and `&&` and `||` absorb it.
Source: Common Expression Language specification, cel-spec.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ehrfast.errors import InvalidInputError

TEXT_MAX: Final = 1024
NODES_MAX: Final = 128
DEPTH_MAX: Final = 16
LIST_MAX: Final = 32
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1

ATTRIBUTES: Final[Mapping[str, str]] = {
    "request.action": "text",
    "request.break_glass": "bool",
    "request.purposes": "list of text",
    "request.time": "int",
    "requester.authorised": "bool",
    "requester.clinician": "bool",
    "requester.organization": "text",
    "requester.reference": "text",
    "requester.roles": "list of text",
    "record.authors": "list of text",
    "record.codes": "list of text",
    "record.date": "int",
    "record.labels": "list of text",
    "record.reference": "text",
    "record.related": "list of text",
    "record.type": "text",
}
"""What a condition may read. `requester.organization` and `record.date` may be absent: ask `has` first."""

_ARGUMENTS: Final = {
    "int": "i", "text": "s", "bool": "b", "list": "*", "get": "s", "has": "s", "variable": "s", "not": "n", "neg": "n",
    "and": "nn", "or": "nn", "==": "nn", "!=": "nn", "<": "nn", "<=": "nn", ">": "nn", ">=": "nn", "in": "nn",
    "+": "nn", "-": "nn", "*": "nn", "all": "nsn", "exists": "nsn",
}  # fmt: skip
"""Every kind of node and what it holds: i integer, s text, b boolean, n node, * nodes."""

Attributes = Mapping[str, object]
Evaluate = Callable[[Attributes, tuple[object, ...]], Any]


class Node(NamedTuple):
    """One node of a condition: an operation of the closed list, and what it is applied to."""

    op: str
    args: tuple[Any, ...]


# ── parsing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<int>0x[0-9a-fA-F]+|\d+)(?![\w.])
    |(?P<name>[_a-zA-Z]\w*)(?!["'])
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<sign>&&|\|\||==|!=|<=|>=|[<>!+\-*().,\[\]])
    )""",
    re.VERBOSE | re.ASCII,
)
_ESCAPES: Final = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
_RELATIONS: Final = ("==", "!=", "<", "<=", ">", ">=", "in")


def parse_condition(text: str) -> Node:
    """Reads a condition.

    Args:
        text: CEL, at most 1,024 characters, of type bool.

    Raises:
        InvalidInputError: ``condition.too_long``, ``condition.syntax``, ``condition.unknown_name``, ``condition.type``,
            ``condition.too_large``; the details say at which character.
    """
    if len(text) > TEXT_MAX:
        raise InvalidInputError("condition.too_long", {"characters": len(text), "most": TEXT_MAX})
    return _parse(text)


def _parse(text: str) -> Node:
    parser = _Parser(text)
    node, kind = parser.disjunction(())
    parser.expect_end()
    if kind != "bool":
        raise InvalidInputError("condition.type", {"at": 0, "is": kind, "wanted": "bool"})
    return node


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    place = 0
    while place < len(text.rstrip()):
        found = _TOKEN.match(text, place)
        if found is None or found.lastgroup is None:
            raise InvalidInputError("condition.syntax", {"at": place})
        yield found.lastgroup, found[found.lastgroup], found.start(found.lastgroup)
        place = found.end()
    yield "end", "", len(text)


class _Parser:
    """Recursive descent over CEL's grammar; each rule gives a node and its type."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._place = 0
        self._nodes = 0
        self._depth = 0

    def expect_end(self) -> None:
        if self._tokens[self._place][0] != "end":
            self._fail()

    def _fail(self, code: str = "condition.syntax", **details: object) -> Any:
        raise InvalidInputError(code, {"at": self._tokens[self._place][2], **details})

    def _peek(self) -> str:
        kind, word, _ = self._tokens[self._place]
        return word if kind in ("sign", "name") else ""

    def _take(self, *words: str) -> str | None:
        word = self._peek()
        if word and word in words:
            self._place += 1
            return word
        return None

    def _need(self, word: str) -> None:
        if self._take(word) is None:
            self._fail()

    def _name(self) -> str:
        kind, word, _ = self._tokens[self._place]
        if kind != "name":
            self._fail()
        self._place += 1
        return word

    def _make(self, op: str, *args: Any) -> Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            self._fail("condition.too_large", most=NODES_MAX)
        return Node(op, args)

    def _typed(self, found: tuple[Node, str], wanted: str) -> Node:
        node, kind = found
        if kind != wanted:
            self._fail("condition.type", **{"is": kind, "wanted": wanted})
        return node

    def disjunction(self, scope: tuple[tuple[str, str], ...]) -> tuple[Node, str]:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self._fail("condition.too_large", deepest=DEPTH_MAX)
        found = self._conjunction(scope)
        while self._take("||"):
            right = self._conjunction(scope)
            found = self._make("or", self._typed(found, "bool"), self._typed(right, "bool")), "bool"
        self._depth -= 1
        return found

    def _conjunction(self, scope: tuple[tuple[str, str], ...]) -> tuple[Node, str]:
        found = self._relation(scope)
        while self._take("&&"):
            right = self._relation(scope)
            found = self._make("and", self._typed(found, "bool"), self._typed(right, "bool")), "bool"
        return found

    def _relation(self, scope: tuple[tuple[str, str], ...]) -> tuple[Node, str]:
        found = self._sum(scope)
        while (sign := self._take(*_RELATIONS)) is not None:
            right = self._sum(scope)
            left, kind = found
            if sign == "in":
                self._typed(right, f"list of {kind}")
            elif sign in ("==", "!="):
                if kind.startswith("list"):
                    self._fail("condition.type", **{"is": kind, "wanted": "a single value"})
                self._typed(right, kind)
            else:
                self._typed(found, "int")
                self._typed(right, "int")
            found = self._make(sign, left, right[0]), "bool"
        return found

    def _sum(self, scope: tuple[tuple[str, str], ...]) -> tuple[Node, str]:
        found = self._product(scope)
        while (sign := self._take("+", "-")) is not None:
            right = self._product(scope)
            found = self._make(sign, self._typed(found, "int"), self._typed(right, "int")), "int"
        return found

    def _product(self, scope: tuple[tuple[str, str], ...]) -> tuple[Node, str]:
        found = self._unary(scope)
        while self._take("*"):
            right = self._unary(scope)
            found = self._make("*", self._typed(found, "int"), self._typed(right, "int")), "int"
        return found

    def _unary(self, scope: tuple[tuple[str, str], ...]) -> tuple[Node, str]:
        signs = 0
        sign = self._take("!", "-")
        if sign is None:
            return self._member(scope)
        signs = 1
        while self._take(sign):
            signs += 1
        if sign == "-" and self._tokens[self._place][0] == "int":
            found = self._integer(-1), "int"
            signs -= 1
        else:
            found = self._member(scope)
        for _ in range(signs):
            op, kind = ("not", "bool") if sign == "!" else ("neg", "int")
            found = self._make(op, self._typed(found, kind)), kind
        return found

    def _member(self, scope: tuple[tuple[str, str], ...]) -> tuple[Node, str]:
        found = self._primary(scope)
        while self._take("."):
            macro = self._name()
            if macro not in ("all", "exists") or not found[1].startswith("list of "):
                self._fail("condition.unknown_name")
            self._need("(")
            variable = self._name()
            if variable in ("request", "requester", "record", "has", "true", "false", "in") or len(scope) == 2:
                self._fail("condition.unknown_name")
            self._need(",")
            body = self.disjunction((*scope, (variable, found[1].removeprefix("list of "))))
            self._need(")")
            found = self._make(macro, found[0], variable, self._typed(body, "bool")), "bool"
        return found

    def _primary(self, scope: tuple[tuple[str, str], ...]) -> tuple[Node, str]:
        kind, word, _ = self._tokens[self._place]
        if kind == "int":
            return self._integer(1), "int"
        if kind == "text":
            return self._text(), "text"
        if self._take("("):
            found = self.disjunction(scope)
            self._need(")")
            return found
        if self._take("["):
            return self._list(scope)
        if self._take("true", "false"):
            return self._make("bool", word == "true"), "bool"
        if self._take("has"):
            self._need("(")
            path, _ = self._attribute(self._name())
            self._need(")")
            return self._make("has", path), "bool"
        name = self._name()
        for bound, of in reversed(scope):
            if bound == name:
                return self._make("variable", name), of
        path, of = self._attribute(name)
        return self._make("get", path), of

    def _attribute(self, root: str) -> tuple[str, str]:
        self._need(".")
        path = f"{root}.{self._name()}"
        if path not in ATTRIBUTES:
            self._fail("condition.unknown_name")
        return path, ATTRIBUTES[path]

    def _list(self, scope: tuple[tuple[str, str], ...]) -> tuple[Node, str]:
        first, kind = self.disjunction(scope)
        if kind.startswith("list"):
            self._fail("condition.type", **{"is": kind, "wanted": "a single value"})
        items = [first]
        while self._take(","):
            items.append(self._typed(self.disjunction(scope), kind))
        self._need("]")
        if len(items) > LIST_MAX:
            self._fail("condition.too_large", most=LIST_MAX)
        return self._make("list", tuple(items)), f"list of {kind}"

    def _integer(self, sign: int) -> Node:
        value = sign * int(self._tokens[self._place][1], 0 if self._tokens[self._place][1][:2] == "0x" else 10)
        if not _INT_MIN <= value <= _INT_MAX:
            self._fail("condition.syntax")
        self._place += 1
        return self._make("int", value)

    def _text(self) -> Node:
        quoted = self._tokens[self._place][1][1:-1]
        made, place = [], 0
        while place < len(quoted):
            if quoted[place] != "\\":
                made.append(quoted[place])
                place += 1
            elif quoted[place + 1] in _ESCAPES:
                made.append(_ESCAPES[quoted[place + 1]])
                place += 2
            else:
                self._fail()
        value = "".join(made)
        if not unicodedata.is_normalized("NFC", value):
            self._fail()
        self._place += 1
        return self._make("text", value)


# ── the flat form that is stored ────────────────────────────────────────────────────────────────────────────────────

Flat = tuple[tuple[object, ...], ...]


def flatten(node: Node) -> Flat:
    """The nodes, each after those it is applied to, which it names by number; the last is the condition."""
    made: list[tuple[object, ...]] = []

    def add(each: Node) -> int:
        parts: list[object] = [each.op]
        for kind, argument in zip(_ARGUMENTS[each.op], each.args, strict=True):
            if kind == "n":
                parts.append(add(argument))
            elif kind == "*":
                parts.extend(add(item) for item in argument)
            else:
                parts.append(argument)
        made.append(tuple(parts))
        return len(made) - 1

    add(node)
    return tuple(made)


def unflatten(flat: Flat) -> Node:
    """The condition of a flat form, typed anew: only what `flatten` makes of a parsed condition is taken.

    Raises:
        InvalidInputError: ``condition.malformed``.
    """
    if not 0 < len(flat) <= NODES_MAX:
        raise InvalidInputError("condition.malformed")
    nodes: list[Node | None] = []  # None once another node holds it: a node held twice would unfold without end
    for parts in flat:
        try:
            nodes.append(_node(parts, nodes))
        except (LookupError, ValueError, TypeError):
            raise InvalidInputError("condition.malformed") from None
    last = nodes[-1]
    if last is None:
        raise InvalidInputError("condition.malformed")
    try:
        again = _parse(write_condition(last))
    except InvalidInputError:
        raise InvalidInputError("condition.malformed") from None
    if flatten(again) != flat:
        raise InvalidInputError("condition.malformed")
    return again


def _node(parts: Sequence[object], before: list[Node | None]) -> Node:
    op, *given = parts
    kinds = _ARGUMENTS[str(op)]
    if kinds == "*":
        return Node(str(op), (tuple(_held(before, each) for each in given),))
    if len(kinds) != len(given):
        raise ValueError
    made: list[object] = []
    for kind, argument in zip(kinds, given, strict=True):
        wanted = {"i": int, "s": str, "b": bool, "n": int}[kind]
        if type(argument) is not wanted:
            raise TypeError
        made.append(_held(before, argument) if kind == "n" else argument)
    return Node(str(op), tuple(made))


def _held(before: list[Node | None], number: object) -> Node:
    if type(number) is not int or number < 0:
        raise TypeError
    node, before[number] = before[number], None
    if node is None:
        raise ValueError
    return node


_BINDS: Final = {"or": 1, "and": 2, **dict.fromkeys(_RELATIONS, 3), "+": 4, "-": 4, "*": 5, "not": 6, "neg": 6}


def write_condition(node: Node, within: int = 0) -> str:
    """The condition as CEL again, with the fewest parentheses.

    Args:
        within: how tightly what stands around it binds.
    """
    op, args = node
    if op not in _BINDS:
        return _write_primary(op, args)
    binds = _BINDS[op]
    if op in ("not", "neg"):
        text = f"{'!' if op == 'not' else '-'}({write_condition(args[0])})"
    else:
        sign = {"and": "&&", "or": "||"}.get(op, op)
        text = f"{write_condition(args[0], binds)} {sign} {write_condition(args[1], binds + 1)}"
    return text if binds >= within else f"({text})"


def _write_primary(op: str, args: tuple[Any, ...]) -> str:
    if op == "bool":
        return "true" if args[0] else "false"
    if op == "text":
        return f'"{"".join(_escaped(letter) for letter in args[0])}"'
    if op == "has":
        return f"has({args[0]})"
    if op == "list":
        return f"[{', '.join(map(write_condition, args[0]))}]"
    if op in ("all", "exists"):
        return f"{write_condition(args[0], 7)}.{op}({args[1]}, {write_condition(args[2])})"
    return str(args[0])


def _escaped(letter: str) -> str:
    return {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter, letter)


def reads(node: Node) -> frozenset[str]:
    """The attributes a condition reads."""
    if node.op in ("get", "has"):
        return frozenset({node.args[0]})
    children = [each for each in node.args if isinstance(each, Node)]
    children += node.args[0] if node.op == "list" else ()
    return frozenset().union(*map(reads, children))


# ── evaluation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate(node: Node, attributes: Attributes) -> bool | None:
    """True, false, or None where something it rests on is not known: an absent attribute, an integer beyond 64 bits."""
    answer: bool | None = prepare(node)(attributes, ())
    return answer


def prepare(node: Node, bound: tuple[str, ...] = ()) -> Evaluate:
    """The condition as one function of the attributes, made once and called for each decision."""
    op, args = node
    if op in ("int", "text", "bool"):
        return lambda _, __: args[0]
    if op == "get":
        return lambda attributes, _: attributes.get(args[0])
    if op == "has":
        return lambda attributes, _: attributes.get(args[0]) is not None
    if op == "variable":
        place = len(bound) - 1 - bound[::-1].index(args[0])
        return lambda _, values: values[place]
    if op == "list":
        return _list([prepare(item, bound) for item in args[0]])
    if op in ("all", "exists"):
        return _quantifier(op == "exists", prepare(args[0], bound), prepare(args[2], (*bound, args[1])))
    if op in ("and", "or"):
        return _junction(op == "or", prepare(args[0], bound), prepare(args[1], bound))
    operate = _OPERATIONS[op]
    if op in ("not", "neg"):
        inner = prepare(args[0], bound)
        return lambda attributes, values: None if (one := inner(attributes, values)) is None else operate(one)
    left, right = prepare(args[0], bound), prepare(args[1], bound)

    def both(attributes: Attributes, values: tuple[object, ...]) -> Any:
        one, other = left(attributes, values), right(attributes, values)
        return None if one is None or other is None else operate(one, other)

    return both


def _bounded(value: int) -> int | None:
    return value if _INT_MIN <= value <= _INT_MAX else None


_OPERATIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "not": lambda one: not one,
    "neg": lambda one: _bounded(-one),
    "==": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
    "in": lambda one, other: one in other,
    "+": lambda one, other: _bounded(one + other),
    "-": lambda one, other: _bounded(one - other),
    "*": lambda one, other: _bounded(one * other),
}


def _list(items: Sequence[Evaluate]) -> Evaluate:
    def made(attributes: Attributes, values: tuple[object, ...]) -> Any:
        found = [item(attributes, values) for item in items]
        return None if None in found else found

    return made


def _junction(settles: bool, left: Evaluate, right: Evaluate) -> Evaluate:
    def junction(attributes: Attributes, values: tuple[object, ...]) -> Any:
        one = left(attributes, values)
        if one is settles:
            return settles
        other = right(attributes, values)
        if other is settles:
            return settles
        return None if one is None or other is None else not settles

    return junction


def _quantifier(settles: bool, over: Evaluate, body: Evaluate) -> Evaluate:
    def quantifier(attributes: Attributes, values: tuple[object, ...]) -> bool | None:
        items = over(attributes, values)
        if items is None:
            return None
        answers = [body(attributes, (*values, item)) for item in items]
        if settles in answers:
            return settles
        return None if None in answers else not settles

    return quantifier
