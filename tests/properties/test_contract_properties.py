"""The runtime against slow models: programs of calls, timers, types and arithmetic made by hypothesis."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from ehrfast._core import StateView as CoreStateView
from ehrfast.contracts import Registry
from ehrfast.contracts.guard import load
from ehrfast.contracts.meter import COUNTED, OPERATIONS, Broken, Meter, Refusal
from ehrfast.contracts.schema import Field, Mismatch, Type, make_schema, row_type, type_of
from ehrfast.errors import InvalidInputError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.ledger import Ledger
from tests.reference.state import StateView

MACHINE = b'''
from dataclasses import dataclass
from typing import NamedTuple
from ehrfast.contracts.contract import Context, Contract, Natural

contract = Contract("machine", version=1)


class Step(NamedTuple):
    kind: Natural
    key: Natural
    value: int


@dataclass(frozen=True, slots=True)
class Run:
    steps: tuple[Step, ...]


@contract.event
@dataclass(frozen=True, slots=True)
class Did:
    key: Natural
    value: int


@contract.method
def run(ctx: Context, args: Run) -> None:
    place = 0
    for step in args.steps:
        place += 1
        if step.kind == 0:
            ctx.put((step.key,), step.value)
        if step.kind == 1:
            ctx.delete((step.key,))
        if step.kind == 2:
            ctx.put((step.key,), (ctx.get((step.key,)), step.value))
        if step.kind == 3:
            ctx.emit(Did(step.key, step.value))
        if step.kind == 4:
            ctx.call("machine", "run", (args.steps[place:],))
            return
        if step.kind == 5:
            ctx.fail("machine.asked")
        if step.kind == 6:
            ctx.put((), (1,)[step.key + 1])
'''
PUT, DELETE, WRAP, EMIT, NEST, FAIL, BREAK = range(7)
REGISTRY = Registry([MACHINE])

kinds = st.sampled_from([PUT, PUT, PUT, DELETE, WRAP, WRAP, EMIT, NEST, FAIL, BREAK])
steps = st.tuples(kinds, st.integers(0, 3), st.integers(-2, 2))
programs = st.lists(st.lists(steps, max_size=8).map(tuple), max_size=8)

State = dict[int, Any]


def run_slowly(
    state: State, program: tuple[Any, ...], depth: int = 1
) -> tuple[int | str, State, list[tuple[int, int]]]:
    """Code, state after, events: what one call does, by copying everything."""
    if depth > 4:
        return "contract.too_deep", state, []
    now, events = dict(state), []
    for place, (kind, key, value) in enumerate(program):
        if kind == PUT:
            now[key] = value
        elif kind == DELETE:
            now.pop(key, None)
        elif kind == WRAP:
            now[key] = (now.get(key), value)
            if _depth(now[key]) > 8:
                return "contract.broken", state, []
        elif kind == EMIT:
            events.append((key, value))
        elif kind == NEST:
            code, now, inner = run_slowly(now, program[place + 1 :], depth + 1)
            return (code, now, events + inner) if code == 0 else (code, state, [])
        elif kind == FAIL:
            return "machine.asked", state, []
        elif kind == BREAK:
            return "contract.broken", state, []
    return 0, now, events


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, tuple) else 0


@settings(max_examples=150, deadline=None)
@given(programs)
def test_a_call_is_whole_or_nothing(calls: list[tuple[Any, ...]]) -> None:
    ledgers = [Ledger(REGISTRY, view=CoreStateView(None)), Ledger(REGISTRY, view=StateView())]
    state: State = {}
    for program in calls:
        before = dict(state)
        code, state, events = run_slowly(state, program)
        outcomes = [ledger.raw("machine", "run", {1: program}) for ledger in ledgers]
        assert outcomes[0] == outcomes[1]
        assert outcomes[0].code == code
        assert [event.values for event in outcomes[0].events] == events
        changed = [key for key in range(4) if state.get(key) != before.get(key)]
        assert outcomes[0].write_count == len(changed)
        for ledger in ledgers:
            assert {key: ledger.view.get("machine", (key,)) for key in range(4)} == {k: state.get(k) for k in range(4)}
    assert list(ledgers[0].view.write_set().items()) == ledgers[1].view.write_set()


@settings(max_examples=60, deadline=None)
@given(programs)
def test_failed_calls_might_as_well_not_have_been(calls: list[tuple[Any, ...]]) -> None:
    everything, applied = Ledger(REGISTRY), Ledger(REGISTRY)
    for number, program in enumerate(calls):
        applied.calls = number
        if everything.raw("machine", "run", {1: program}).code == 0:
            applied.raw("machine", "run", {1: program})
    assert everything.view.write_set() == applied.view.write_set()


# ── timers ────────────────────────────────────────────────────────────────────────────────────────────────────────
CLOCK = b'''
from dataclasses import dataclass
from ehrfast.contracts.contract import Context, Contract, Natural

contract = Contract("clock", version=1)


@dataclass(frozen=True, slots=True)
class At:
    time_ms: Natural
    number: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class Rang:
    number: Natural


@contract.method
def at(ctx: Context, args: At) -> None:
    ctx.at(args.time_ms, "ring", args)


@contract.timer
def ring(ctx: Context, args: At) -> None:
    if args.number % 5 == 0:
        ctx.fail("clock.fifth")
    ctx.emit(Rang(args.number))
'''


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(1, 12), max_size=6), st.integers(1, 4), st.integers(0, 5)), max_size=12)
)
def test_timers_run_in_the_order_of_a_sorted_list(blocks: list[tuple[list[int], int, int]]) -> None:
    """Each block: times after now of the timers set, then how far the next block is, then its limit."""
    ledger = Ledger(Registry([CLOCK]), view=CoreStateView(None))
    waiting: list[tuple[int, int]] = []
    number = 0
    for offsets, gap, limit in blocks:
        for offset in offsets:
            assert ledger.raw("clock", "at", {1: ledger.time_ms + offset, 2: number}).code == 0
            waiting.append((ledger.time_ms + offset, number))
            number += 1
        ledger.next_block(ledger.time_ms + gap)
        waiting.sort()
        due = [entry for entry in waiting if entry[0] <= ledger.time_ms][:limit]
        ran = ledger.timers(limit=limit)
        assert [outcome.code for _, outcome in ran] == ["clock.fifth" if n % 5 == 0 else 0 for _, n in due]
        assert [e.values[0] for _, outcome in ran for e in outcome.events] == [n for _, n in due if n % 5]
        waiting = waiting[len(due) :]
        assert ledger.runtime.earliest_timer(ledger.view) == (waiting[0][0] if waiting else None)


# ── types ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def accepts(kind: Type, value: Any) -> bool:
    """What a type takes, said plainly."""
    match kind.kind:
        case "int":
            return type(value) is int and -(2**63) <= value < 2**63
        case "Natural":
            return type(value) is int and 0 <= value < 2**63
        case "bool":
            return type(value) is bool
        case "bytes":
            return type(value) is bytes and len(value) <= 65_536
        case "str":
            return type(value) is str and len(value) <= 1_024
        case "Id":
            return type(value) is bytes and len(value) == 16
        case "Digest" | "PublicKey":
            return type(value) is bytes and len(value) == 32
        case "Code":
            allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
            return type(value) is str and 1 <= len(value) <= 64 and set(value) <= allowed
        case "optional":
            return value is None or accepts(kind.inner[0], value)
        case "array":
            return isinstance(value, tuple) and len(value) <= 4_096 and all(accepts(kind.inner[0], v) for v in value)
        case _:
            shaped = isinstance(value, tuple) and len(value) == len(kind.inner)
            return shaped and all(accepts(inner, v) for inner, v in zip(kind.inner, value, strict=True))


PAIR = row_type("Pair", (Field("left", Type("Id")), Field("right", Type("optional", (Type("Code"),)))))
OUTER = row_type("Outer", (Field("pairs", Type("array", (PAIR,))), Field("count", Type("Natural"))))
scalars = st.sampled_from(["int", "Natural", "bool", "bytes", "str", "Id", "Digest", "PublicKey", "Code"]).map(Type)
types = st.recursive(
    scalars | st.sampled_from([PAIR, OUTER]),
    lambda inner: (
        inner.filter(lambda kind: kind.kind != "optional").map(lambda kind: Type("optional", (kind,)))
        | inner.map(lambda kind: Type("array", (kind,)))
        | st.lists(inner, min_size=1, max_size=3).map(lambda kinds: Type("tuple", tuple(kinds)))
    ),
    max_leaves=5,
)
plain = (
    st.sampled_from([0, 1, -1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, True, False, None, 0.5, b"", "", "a", "a b"])
    | st.sampled_from([bytes(15), bytes(16), bytes(17), bytes(32), bytes(33), "x" * 64, "x" * 65, "\u0430", "a\n", "-"])
)  # fmt: skip
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple))


def fitting(kind: Type) -> st.SearchStrategy[Any]:
    """Values that mostly fit."""
    match kind.kind:
        case "optional":
            return st.none() | fitting(kind.inner[0])
        case "array":
            return st.lists(fitting(kind.inner[0]), max_size=3).map(tuple)
        case "tuple" | "row":
            return st.tuples(*(fitting(inner) for inner in kind.inner)) | plain
        case _:
            return plain.filter(lambda value: accepts(kind, value)) | plain


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_compiled_checks_agree_with_plain_ones(data: st.DataObject) -> None:
    kind = data.draw(types)
    value = data.draw(fitting(kind) | anything)
    schema = make_schema("Made", (Field("value", kind),))
    if accepts(kind, value):
        assert schema.build(value).value == value  # a row equals its tuple
        assert schema.from_map({1: value}) == schema.build(value)
    else:
        with pytest.raises(Mismatch):
            schema.build(value)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_rows_are_named_wherever_they_are(data: st.DataObject) -> None:
    value = data.draw(fitting(Type("array", (OUTER,))).filter(lambda v: accepts(Type("array", (OUTER,)), v)))
    made = make_schema("Made", (Field("outer", Type("optional", (Type("array", (OUTER,)),))),)).build(value)
    for outer, given_outer in zip(made.outer, value, strict=True):
        assert outer.count == given_outer[1]
        assert [(pair.left, pair.right) for pair in outer.pairs] == list(given_outer[0])


ODD_NAMES = ("self", "type", "len", "isinstance", "all", "map", "Made", "absent", "value_1", "hash", "given")


def test_a_field_may_have_any_name() -> None:
    fields = tuple(Field(name, Type("Natural"), required=name != "given", default=7) for name in ODD_NAMES)
    for name in ("type", "hash", "tuple", "Made"):
        schema = make_schema(name, fields)
        made = schema.from_map({number: number for number in range(1, len(fields))})
        assert [getattr(made, field.name) for field in fields] == [*range(1, len(fields)), 7]
        assert made == schema.build(*range(1, len(fields)))
        assert hash(made) == hash(schema.build(*range(1, len(fields))))
        assert made != schema.build(*range(len(fields)))
        assert repr(made) == f"{name}(...)"
        with pytest.raises(Mismatch):
            schema.build(*[b""] * len(fields))
    row = row_type("type", fields)
    made = make_schema("Holder", (Field("rows", Type("array", (row,))),)).build((tuple(range(len(fields))),))
    assert made.rows[0].len == 2


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("Id", "Id"),
        ("Id | None", "Id or null"),
        ("tuple[Id, ...]", "array of Id"),
        ("tuple[Id, int | None]", "[Id, int or null]"),
        ("tuple[tuple[Code, bool], ...] | None", "array of [Code, bool] or null"),
        ("tuple[Pair, ...]", "array of Pair(left: Id, right: Code or null)"),
    ],
)
def test_annotations_become_types(annotation: str, words: str) -> None:
    found = type_of(ast.parse(annotation, mode="eval").body, {"Pair": PAIR})
    assert found is not None
    assert found.describe() == words


@pytest.mark.parametrize(
    "annotation", ["None", "float", "Id | int", "Id | None | None", "tuple[()]", "tuple[Id]", "list[Id]"]
)
def test_other_annotations_are_no_types(annotation: str) -> None:
    assert type_of(ast.parse(annotation, mode="eval").body, {}) is None


# ── arithmetic ────────────────────────────────────────────────────────────────────────────────────────────────────
edges = st.sampled_from([0, 1, -1, 2, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1]) | st.integers(
    -(2**63), 2**63 - 1
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["Add", "Sub", "Mult", "FloorDiv", "Mod"]), edges, edges)
def test_integers_are_exact_within_64_bits_or_broken(name: str, left: int, right: int) -> None:
    operation = OPERATIONS[f"_{name}"]
    try:
        exact = {
            "Add": lambda: left + right,
            "Sub": lambda: left - right,
            "Mult": lambda: left * right,
            "FloorDiv": lambda: left // right,
            "Mod": lambda: left % right,
        }[name]()
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            operation(Meter(100), left, right)
        return
    if -(2**63) <= exact < 2**63:
        assert operation(Meter(100), left, right) == exact
    else:
        with pytest.raises(Broken):
            operation(Meter(100), left, right)


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_no_built_in_walks_for_free(name: str) -> None:
    """With 10 units left, nothing that is 10,000 long is walked."""
    values = tuple(range(10_000))
    if name in ("abs", "bool", "len", "range"):
        assert COUNTED[name](Meter(10), *([5] if name in ("abs", "range") else [values])) is not None
        return
    with pytest.raises(Refusal, match=r"out_of_work"):
        COUNTED[name](Meter(10), values)


@pytest.mark.parametrize("name", sorted(set(COUNTED) - {"abs", "bool", "len", "range"}))
def test_no_built_in_walks_what_has_no_length(name: str) -> None:
    with pytest.raises(Broken):
        COUNTED[name](Meter(10), iter((1, 2)))


# ── the guard under random edits ──────────────────────────────────────────────────────────────────────────────────
SOURCES = [MACHINE, CLOCK, *(Path(__file__).parents[1].joinpath("contracts_toy").glob("counter*.py"))]
TOKENS = [
    [piece for piece in re.split(r"(\W)", (s.read_text() if isinstance(s, Path) else s.decode())) if piece]
    for s in SOURCES
]
SPARE = [
    "", " ", "\n", "\n    ", "(", ")", "[", "]", "{", "}", ",", ":", "=", ".", "*", "**", "-", "not ", "is ", "in ",
    "for ", "if ", "else ", "lambda: ", "yield ", "await ", "async ", "return", "break", "continue", "pass", "global ",
    "del ", "@", "...", "None", "1", "0.5", "'a'", "b'a'", "f'{ctx}'", "ctx", "args", "contract", "Context", "range",
    "len", "tuple", "__class__", "_", "self", "import os", "def ", "class ", "match ", "case ", "while ", "try:", "x",
    "type", "hash", "all", "isinstance", "Made", "value_1",
]  # fmt: skip
edits_of = st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(SPARE)), min_size=1, max_size=4)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(TOKENS), edits_of)
def test_an_edited_contract_loads_or_is_refused(tokens: list[str], edits: list[tuple[int, str]]) -> None:
    edited = list(tokens)
    for place, piece in edits:
        edited[place % len(edited)] = piece
    code = ""
    try:
        load("".join(edited).encode())
    except InvalidInputError as refused:
        code = refused.code
    assert code == "" or code.startswith("guard.")
