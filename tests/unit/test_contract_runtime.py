"""Every feature of the runtime, shown by the toy contracts, over the core's state view and over its readable twin."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ehrfast._core import SigningKey
from ehrfast._core import StateView as CoreStateView
from ehrfast.contracts import BlockContext, Event, Outcome, Registry, Runtime, meter
from ehrfast.errors import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from ehrfast.model.codec import keyed_digest

from tests.contracts_toy import counter, relay
from tests.reference.ledger import CHAIN_ID, Ledger, named_bytes
from tests.reference.state import StateView

BREAKER = '''
from dataclasses import dataclass
from ehrfast.contracts.contract import Context, Contract

contract = Contract("toy", version=1)


@dataclass(frozen=True, slots=True)
class Args:
    number: int = 0
    text: str = ""


@contract.event
@dataclass(frozen=True, slots=True)
class Said:
    number: int
    text: str


@contract.event
@dataclass(frozen=True, slots=True)
class Big:
    numbers: tuple[int, ...]


@contract.method
def run(ctx: Context, args: Args) -> None:
    ctx.put(("before",), 1)
    {body}


@contract.method
def good(ctx: Context, args: Args) -> None:
    ctx.put(("good", args.number), True)
'''

TOYS = [f"tests.contracts_toy.{name}" for name in ("counter", "relay", "governance")]
ALL_TOYS = [*TOYS, "tests.contracts_toy.counter_2"]


@pytest.fixture(params=["core", "reference"])
def view(request: pytest.FixtureRequest) -> Any:
    return CoreStateView(None) if request.param == "core" else StateView()


@pytest.fixture
def ledger(view: Any) -> Ledger:
    made = Ledger(Registry(TOYS), view=view)
    made.next_block()
    return made


def writes(ledger: Ledger) -> list[tuple[bytes, bytes | None]]:
    made = ledger.view.write_set()
    return list(made) if isinstance(made, list) else list(made.items())


# ── one call ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_call_writes_emits_and_counts(ledger: Ledger) -> None:
    outcome = ledger.call("counter", "add", {"name": "a", "amount": 5})
    assert outcome.code == 0
    assert outcome.write_count == 2
    assert outcome.events == (Event("counter", "Added", ("a", 5)),)
    assert outcome.work > 0
    assert ledger.ask("counter", "value", name="a") == 5


def test_an_instance_of_the_imported_class_is_arguments_too(ledger: Ledger) -> None:
    assert ledger.call("counter", "add", counter.Add("a", 7)).code == 0
    assert ledger.ask("counter", "value", name="a") == 7


def test_defaults_are_left_out_and_filled_in(ledger: Ledger) -> None:
    assert dict(ledger.runtime.encode_arguments("counter", "add", {"name": "a"})) == {1: "a"}
    assert dict(ledger.runtime.encode_arguments("counter", "add", counter.Add("a"))) == {1: "a"}
    ledger.call("counter", "add", {"name": "a"})
    assert ledger.ask("counter", "value", name="a") == 1


@pytest.mark.parametrize(
    ("contract", "method", "args", "code"),
    [
        ("missing", "add", {}, "contract.unknown"),
        ("runtime", "add", {}, "contract.unknown"),
        ("counter", "missing", {}, "contract.unknown_method"),
        ("counter", "increase", {1: "a"}, "contract.unknown_method"),
        ("counter", "ring", {1: "a"}, "contract.unknown_method"),
        ("counter", "value", {1: "a"}, "contract.unknown_method"),
        ("counter", "__init__", {1: "a"}, "contract.unknown_method"),
        ("counter", "add", {}, "contract.bad_arguments"),
        ("counter", "add", {1: b"a"}, "contract.bad_arguments"),
        ("counter", "add", {1: ""}, "contract.bad_arguments"),
        ("counter", "add", {1: "a b"}, "contract.bad_arguments"),
        ("counter", "add", {1: "a\n"}, "contract.bad_arguments"),
        ("counter", "add", {1: "a" * 65}, "contract.bad_arguments"),
        ("counter", "add", {1: "\u0430"}, "contract.bad_arguments"),
        ("counter", "add", {1: "a", 2: -1}, "contract.bad_arguments"),
        ("counter", "add", {1: "a", 2: 2**63}, "contract.bad_arguments"),
        ("counter", "add", {1: "a", 2: True}, "contract.bad_arguments"),
        ("counter", "add", {1: "a", 2: None}, "contract.bad_arguments"),
        ("counter", "add", {1: "a", 2: 1.0}, "contract.bad_arguments"),
        ("counter", "add", {1: "a", 3: 1}, "contract.bad_arguments"),
        ("counter", "add", {0: 1, 1: "a"}, "contract.bad_arguments"),
        ("counter", "add", {1: "a", "2": 1}, "contract.bad_arguments"),
    ],
)
def test_what_is_refused_before_the_contract(
    ledger: Ledger, contract: str, method: str, args: dict[int, object], code: str
) -> None:
    outcome = ledger.raw(contract, method, args)
    assert (outcome.code, outcome.write_count, outcome.events) == (code, 0, ())
    assert ledger.ask("counter", "names") == ()


def test_arguments_are_checked_where_they_are_made(ledger: Ledger) -> None:
    encode = ledger.runtime.encode_arguments
    for wrong in ({}, {"name": 1}, {"name": "a", "more": 1}, {"name": "a", "amount": -1}, object()):
        with pytest.raises(InvalidInputError, match="bad_arguments"):
            encode("counter", "add", wrong)
    with pytest.raises(NotFoundError, match="unknown_method"):
        encode("counter", "value", {})
    with pytest.raises(NotFoundError, match=r"contract\.unknown"):
        encode("missing", "value", {})


# ── nested calls ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_nested_calls_answer_and_share_events(ledger: Ledger) -> None:
    outcome = ledger.call("relay", "both", {"first": "a", "second": "b"})
    assert outcome.code == 0
    assert [event.name for event in outcome.events] == ["Added", "Added", "Relayed"]
    assert outcome.events[-1].values == (3, None)
    assert (ledger.ask("counter", "value", name="a"), ledger.ask("relay", "seen", name="b")) == (1, 2)


def test_a_failure_at_the_end_undoes_nested_writes(ledger: Ledger) -> None:
    before = writes(ledger)
    outcome = ledger.call("relay", "both", {"first": "a", "second": "b", "refuse": True})
    assert (outcome.code, outcome.write_count, outcome.events) == ("relay.asked_to", 0, ())
    assert writes(ledger) == before


def test_a_failure_inside_undoes_everything_and_keeps_its_code(ledger: Ledger) -> None:
    for number in range(counter.NAMES_MAX - 1):
        ledger.call("counter", "add", {"name": f"n{number}"})
    before = writes(ledger)
    outcome = ledger.call("relay", "both", {"first": "a", "second": "b"})
    assert (outcome.code, outcome.events) == ("counter.too_many", ())
    assert writes(ledger) == before


def test_nested_calls_have_the_rights_of_the_sender(ledger: Ledger) -> None:
    sender = named_bytes("sender", 32)
    assert ledger.call("relay", "down", relay.Down(3), sender=sender).code == 0
    assert [ledger.ask("relay", "depth", level=level) for level in range(4)] == [sender] * 4


def test_the_fifth_level_is_too_deep(ledger: Ledger) -> None:
    before = writes(ledger)
    assert ledger.call("relay", "down", relay.Down(3)).code == 0
    assert ledger.call("relay", "down", relay.Down(4)).code == "contract.too_deep"
    assert len(writes(ledger)) == len(before) + 4


# ── work ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_loop_in_a_loop_runs_out_of_work(ledger: Ledger) -> None:
    before = writes(ledger)
    assert ledger.call("relay", "spend", relay.Spend(1_000)).code == 0
    outcome = ledger.call("relay", "spend", relay.Spend(2_000))
    assert (outcome.code, outcome.work) == ("contract.out_of_work", ledger.work_limit)
    assert len(writes(ledger)) == len(before) + 1


def test_work_is_the_same_every_time(view: Any) -> None:
    counts = []
    for _ in range(3):
        fresh = Ledger(Registry(TOYS), view=StateView())
        fresh.next_block()
        counts.append(
            [
                fresh.call("relay", "spend", relay.Spend(100)).work,
                fresh.call("relay", "both", {"first": "a", "second": "b"}).work,
                fresh.call("counter", "add", {"name": "a"}).work,
            ]
        )
    assert counts[0] == counts[1] == counts[2]
    # 118 for the call and its 300 bytes, 1 for the entry, 100 + 100 * 100 loop bodies, 100 for the write.
    assert counts[0][0] == 118 + 1 + 100 + 10_000 + 100


COUNTING = {
    "list": ("x = [y for y in range(args.number)]", 1),
    "filtered": ("x = [y for y in range(args.number) if y < 0]", 1),
    "dictionary": ("x = {y: y for y in range(args.number)}", 1),
    "generator": ("x = tuple(y for y in range(args.number))", 1),
    "any": ("x = any(y < 0 for y in range(args.number))", 1),
    "nested": ("x = [y for z in (0, 1) for y in range(args.number)]", 2),
    "inner": ("x = [[y for y in range(args.number)] for z in (0, 1)]", 2),
    "loop": ("for y in range(args.number):\n        pass", 1),
    "walk": ("x = list(range(args.number))", 1),
    "search": ("x = list(range(args.number))\n    y = -1 in x", 1.25),
    "slice": ("x = list(range(args.number))[1:]", 1.25),
    "function": ("for y in range(args.number):\n        nothing()", 2),
    "reads": ("for y in range(args.number):\n        z = ctx.get((y,))", 41),
    "writes": ("for y in range(args.number):\n        ctx.put((0,), y)", 101),
    "deletions": ("for y in range(args.number):\n        ctx.delete((y,))", 101),
}


@pytest.mark.parametrize("name", COUNTING)
def test_whatever_repeats_is_counted(name: str) -> None:
    body, each = COUNTING[name]
    source = BREAKER.replace("{body}", body) + "\n\ndef nothing() -> None:\n    pass\n"
    work = {}
    for number in (100, 300):
        ledger = Ledger(Registry([source.encode()]))
        work[number] = ledger.call("toy", "run", {"number": number})
        assert work[number].code == 0
    assert work[300].work - work[100].work == pytest.approx(each * 200, abs=2)
    short = Ledger(Registry([source.encode()]), work_limit=work[300].work - 1)
    assert short.call("toy", "run", {"number": 300}).code == "contract.out_of_work"


PRICES = {
    "read": ("x = ctx.get(('a',))", meter.READ),
    "write": ("ctx.put(('a',), 1)", meter.WRITE),
    "deletion": ("ctx.delete(('a',))", meter.WRITE),
    "view": ("x = ctx.read('toy', 'look', Pair(1, 2))", meter.READ + 1),
    "call": ("ctx.call('toy', 'good', (1,))", meter.CALL + 1 + meter.WRITE),
    "event": ("ctx.emit(Said(1, ''))", meter.EVENT),
    "event_by_size": ("ctx.emit(Said(1, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'))", meter.EVENT + 3),
    "timer": ("ctx.at(ctx.time_ms + 1, 'good', (1,))", meter.TIMER),
    "key": ("ctx.check_public_key(KEY)", meter.KEY_CHECK),
    "join": ("x = 'aaaaaaaaaaaaaaaa' + 'aaaaaaaaaaaaaaaa'", 4),
    "sort": ("x = sorted((3, 1, 2, 0))", 4 + 4 * 3),
}


@pytest.mark.parametrize("name", PRICES)
def test_each_thing_has_its_price(name: str) -> None:
    body, price = PRICES[name]
    key = SigningKey.from_seed(bytes(32)).public_key
    more = (
        f"\n\nKEY = {key!r}\n\n\nclass Pair(NamedTuple):\n    left: int\n    right: int\n\n\n"
        "@contract.view\ndef look(ctx: View, pair: Pair) -> int:\n    return pair.left\n"
    )
    work = []
    for given in ("pass", body):
        source = BREAKER.replace("{body}", given) + more
        source = source.replace("Context, Contract\n", "Context, Contract, View\nfrom typing import NamedTuple\n")
        outcome = Ledger(Registry([source.encode()])).call("toy", "run")
        assert outcome.code == 0
        work.append(outcome.work)
    assert work[1] - work[0] == price


def test_the_copy_that_runs_has_no_built_ins() -> None:
    held = Registry(TOYS).find("relay", 1)
    assert held is not None
    names = held.methods["both"].run.__globals__
    assert names["__builtins__"] == {}
    modules = [name for name, value in names.items() if type(value) is type(logging)]
    assert modules == []


def test_the_budget_covers_nested_calls(view: Any) -> None:
    whole = Ledger(Registry(TOYS), view=StateView())
    needed = whole.call("relay", "both", {"first": "a", "second": "b"}).work
    enough = Ledger(Registry(TOYS), view=StateView(), work_limit=needed)
    assert enough.call("relay", "both", {"first": "a", "second": "b"}).code == 0
    short = Ledger(Registry(TOYS), view=StateView(), work_limit=needed - 1)
    assert short.call("relay", "both", {"first": "a", "second": "b"}).code == "contract.out_of_work"


# ── broken contracts ──────────────────────────────────────────────────────────────────────────────────────────────
BREAKING = {
    "missing_key": "x = {'a': 1}['b']",
    "index": "x = (1,)[args.number + 5]",
    "type": "x = args.number + 'a'",
    "none": "x = None < 1",
    "unbound": "if args.number > 5:\n        y = 1\n    x = y",
    "unpack": "x, y = (1, 2, 3)",
    "attribute": "x = (1).number",
    "call_nothing": "x = args.number.get(1)",
    "divide": "x = 1 // (args.number - args.number)",
    "modulo": "x = 1 % (args.number - args.number)",
    "multiply": "x = 9223372036854775807 * (args.number + 2)",
    "add": "x = 9223372036854775807 + (args.number + 1)",
    "subtract": "x = -9223372036854775807 - 2 - args.number",
    "negate": "x = -(-9223372036854775807 - 1)",
    "sum": "x = sum((9223372036854775807, 1))",
    "augment": "x = 9223372036854775807\n    x += 1",
    "repeat": "x = 'a' * 1000000",
    "repeat_tuple": "x = (1,) * 1000000",
    "percent": "x = 'a%s' % 1",
    "too_long": "x = 'a'\n    for _ in range(30):\n        x = x + x",
    "add_lists": "x = [1] + [2]",
    "mixed": "x = b'a' + 'a'",
    "bool_sum": "x = True + 1",
    "range": "x = list(range(1000000000))",
    "unhashable": "x = {[1]: 1}",
    "unsortable": "x = sorted((1, 'a'))",
    "in_number": "x = 1 in 5",
    "grow_while_walking": "x = {1: 1}\n    for key in x:\n        x[key + 1] = 1",
    "uneven": "for x, y in zip((1, 2), (1,)):\n        pass",
    "key_not_tuple": "ctx.put('a', 1)",
    "read_not_tuple": "x = ctx.get('a')",
    "put_nothing": "ctx.put(('a',), None)",
    "put_class": "ctx.put(('a',), args)",
    "put_big": "ctx.put(('a',), ((1, 2, 3, 4) , tuple(x for x in range(60000))))",
    "key_big": "ctx.put(tuple(x for x in range(60000)), 1)",
    "key_float_free": "ctx.put((ctx,), 1)",
    "deep": "x = ()\n    for _ in range(20):\n        x = (x,)\n    ctx.put(('a',), x)",
    "not_nfc": "ctx.put(('a',), args.text + '')",
    "emit_undeclared": "ctx.emit(args)",
    "emit_number": "ctx.emit(1)",
    "emit_wrong_type": "ctx.emit(Said('a', 'a'))",
    "emit_missing": "ctx.emit(Said(1))",
    "emit_not_nfc": "ctx.emit(Said(1, args.text))",
    "emit_big": "ctx.emit(Big(tuple(x for x in range(2000))))",
    "emit_many": "for x in range(65):\n        ctx.emit(Said(x, 'a'))",
    "timer_past": "ctx.at(ctx.time_ms, 'run', (1,))",
    "timer_far": "ctx.at('a', 'run', (1,))",
    "timer_unknown": "ctx.at(ctx.time_ms + 1, 'missing', (1,))",
    "timer_arguments": "ctx.at(ctx.time_ms + 1, 'run', (1, 2, 3))",
    "call_arguments": "ctx.call('toy', 'run', 1)",
    "fail_no_code": "ctx.fail(1)",
    "fail_text": "ctx.fail('not a code')",
    "fail_as_runtime": "ctx.fail('contract.out_of_work')",
    "schedule": "ctx.schedule('toy', 2, ctx.transaction_id, ctx.height + 1)",
    "missing_argument": "ctx.get()",
    "walk_number": "for x in args.number:\n        pass",
}
@pytest.mark.parametrize("name", BREAKING)
def test_a_broken_call_leaves_nothing_and_neighbours_go_on(name: str, view: Any) -> None:
    ledger = Ledger(Registry([BREAKER.replace("{body}", BREAKING[name]).encode()]), view=view)
    assert ledger.call("toy", "good", {"number": 1}).code == 0
    before = writes(ledger)
    decomposed = "e\u0301"  # the strict decoder never lets it in; a contract could still put it together
    outcome = ledger.raw("toy", "run", {2: decomposed})
    assert (outcome.code, outcome.write_count, outcome.events) == ("contract.broken", 0, ())
    assert writes(ledger) == before
    assert ledger.call("toy", "good", {"number": 2}).code == 0
    assert len(writes(ledger)) == len(before) + 1


def test_a_broken_call_is_logged_by_place_without_its_data(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(Registry([BREAKER.replace("{body}", "x = {'a': 1}[args.text]").encode()]))
    with caplog.at_level(logging.WARNING):
        assert ledger.raw("toy", "run", {2: "MARKED"}).code == "contract.broken"
    assert "KeyError in toy, line 30" in caplog.text
    assert "MARKED" not in caplog.text


@pytest.mark.parametrize("fault", [CorruptionError("state.corrupt"), UnavailableError("state.gone"), MemoryError()])
def test_a_fault_of_the_node_is_no_outcome(fault: BaseException) -> None:
    ledger = Ledger(Registry(TOYS))
    ledger.call("counter", "add", {"name": "a"})
    healthy = ledger.view.get
    before = writes(ledger)

    def failing(contract: str, key: object) -> object:
        if contract == "counter":
            raise fault
        return healthy(contract, key)

    ledger.view.get = failing
    with pytest.raises(type(fault)):
        ledger.call("relay", "both", {"first": "a", "second": "b"})
    assert writes(ledger) == before  # no frame stayed open


# ── views ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_views_only_read(view: Any) -> None:
    for body in ("ctx.put(('a',), 1)", "ctx.delete(('a',))", "ctx.emit(1)", "ctx.call('toy', 'run', ())"):
        source = BREAKER.replace("{body}", "pass") + f"\n\n@contract.view\ndef look(ctx: View) -> None:\n    {body}\n"
        registry = Registry([source.replace("Context, Contract", "Context, Contract, View").encode()])
        ledger = Ledger(registry, view=type(view)(None) if isinstance(view, CoreStateView) else StateView())
        with pytest.raises(InvalidInputError, match=r"contract\.broken"):
            ledger.ask("toy", "look")


def test_views_refuse_what_does_not_fit(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match=r"contract\.unknown"):
        ledger.ask("missing", "value", name="a")
    with pytest.raises(NotFoundError, match=r"unknown_method"):
        ledger.ask("counter", "add", name="a")
    for arguments in ({}, {"name": "a", "more": 1}, {"name": 1}, {"nam": "a"}):
        with pytest.raises(InvalidInputError, match=r"bad_arguments"):
            ledger.ask("counter", "value", **arguments)


def test_answers_are_tuples_all_the_way_down(view: Any) -> None:
    source = BREAKER.replace("{body}", "pass").replace("Context, Contract", "Context, Contract, Value, View")
    source += "\n\n@contract.view\ndef look(ctx: View) -> Value:\n    return [1, [2, (3, [4])]]\n"
    assert Ledger(Registry([source.encode()]), view=view).ask("toy", "look") == (1, (2, (3, (4,))))


def test_views_that_read_each_other_end(view: Any) -> None:
    source = BREAKER.replace("{body}", "pass").replace("Context, Contract", "Context, Contract, Value, View")
    source += "\n\n@contract.view\ndef look(ctx: View) -> Value:\n    return ctx.read('toy', 'look')\n"
    with pytest.raises(InvalidInputError, match=r"contract\.too_deep"):
        Ledger(Registry([source.encode()]), view=view).ask("toy", "look")


# ── timers ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_timer_runs_at_the_first_block_at_or_past_its_time(ledger: Ledger) -> None:
    assert ledger.runtime.earliest_timer(ledger.view) is None
    at = ledger.time_ms + 1_500
    assert ledger.call("counter", "remind", {"name": "t", "time_ms": at}).code == 0
    assert ledger.runtime.earliest_timer(ledger.view) == at
    ledger.next_block(at - 1)
    assert ledger.timers() == []
    ledger.next_block(at)
    [(identifier, outcome)] = ledger.timers()
    assert len(identifier) == 32
    assert outcome.events == (Event("counter", "Added", ("t", 1)),)
    assert ledger.timers() == []
    assert ledger.runtime.earliest_timer(ledger.view) is None


def test_a_timer_id_comes_from_the_salt_and_hides_it(ledger: Ledger) -> None:
    at = ledger.time_ms + 10
    ledger.call("counter", "remind", {"name": "t", "time_ms": at})
    salt = keyed_digest("timer", named_bytes("salt 1") + bytes(8))[:16]
    ledger.next_block(at)
    assert ledger.timers()[0][0] == keyed_digest("timer", salt)


def test_timers_run_by_time_then_by_order_and_the_rest_waits(ledger: Ledger) -> None:
    start = ledger.time_ms
    times = [50, 10, 30, 10, 20, 10, 40]
    for number, after in enumerate(times):
        ledger.call("counter", "remind", {"name": f"t{number}", "time_ms": start + after})
    ledger.next_block(start + 40)
    first = ledger.timers(limit=4)
    assert [outcome.events[0].values[0] for _, outcome in first] == ["t1", "t3", "t5", "t4"]
    assert len({identifier for identifier, _ in first}) == 4
    ledger.next_block(start + 41)
    assert [outcome.events[0].values[0] for _, outcome in ledger.timers(limit=4)] == ["t2", "t6"]
    assert ledger.runtime.earliest_timer(ledger.view) == start + 50


def test_a_timer_that_fails_is_gone_and_its_neighbours_run(ledger: Ledger) -> None:
    start = ledger.time_ms
    ledger.call("relay", "later", {"first": "a", "second": "b", "refuse": True})
    ledger.call("counter", "remind", {"name": "c", "time_ms": start + 20})
    ledger.next_block(start + 20)
    assert [outcome.code for _, outcome in ledger.timers()] == ["relay.asked_to", 0]
    assert ledger.ask("counter", "names") == ("c",)
    assert ledger.runtime.earliest_timer(ledger.view) is None


def test_a_failed_call_sets_no_timer(ledger: Ledger) -> None:
    source = BREAKER.replace("{body}", "ctx.at(ctx.time_ms + 1, 'good', args)\n    ctx.fail('toy.no')")
    made = Ledger(Registry([source.encode()]))
    assert made.call("toy", "run").code == "toy.no"
    assert made.runtime.earliest_timer(made.view) is None


def test_timers_of_one_salt_have_different_ids(view: Any) -> None:
    source = BREAKER.replace("{body}", "for x in range(3):\n        ctx.at(ctx.time_ms + 1, 'good', (x,))")
    ledger = Ledger(Registry([source.encode()]), view=view)
    ledger.call("toy", "run")
    ledger.calls -= 1  # the next transaction has the same salt
    ledger.call("toy", "run")
    ledger.next_block()
    outcomes = ledger.timers()
    assert len({identifier for identifier, _ in outcomes}) == len(outcomes) == 6


def test_a_timer_set_by_a_timer_waits_for_the_next_block(view: Any) -> None:
    source = BREAKER.replace("{body}", "ctx.at(ctx.time_ms + 1, 'run', args)")
    ledger = Ledger(Registry([source.encode()]), view=view)
    ledger.call("toy", "run")
    for _ in range(3):
        ledger.next_block()
        assert [outcome.code for _, outcome in ledger.timers()] == [0]


# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def growing(view: Any) -> Ledger:
    """A chain that began with version 1, on a node that now holds version 2 too."""
    made = Ledger(Registry(TOYS), view=view)
    made.runtime = Runtime(Registry(ALL_TOYS))
    made.next_block()
    return made


def switch(ledger: Ledger, contract: str, version: int, after: int, **more: object) -> Outcome:
    held = ledger.runtime.registry.find(contract, version)
    arguments = {
        "contract": contract,
        "version": version,
        "code_hash": bytes(32) if held is None else held.code_hash,
        "height": ledger.height + after,
    }
    arguments |= more
    return ledger.call("governance", "switch", arguments)


def test_a_contract_switches_at_its_height_and_migrates(growing: Ledger) -> None:
    growing.raw("counter", "add", {1: "a", 2: 5})
    assert switch(growing, "counter", 2, 2).code == 0
    growing.next_block()
    assert growing.raw("counter", "add", {1: "a"}).events == (Event("counter", "Added", ("a", 6)),)
    with pytest.raises(NotFoundError):
        growing.ask("counter", "changed", name="a")
    growing.next_block()
    first = growing.raw("counter", "add", {1: "b"})
    assert first.events == (Event("runtime", "Switched", ("counter", 2)), Event("counter", "Added", ("b", 1)))
    assert growing.raw("counter", "add", {1: "c"}).events == (Event("counter", "Added", ("c", 1)),)
    assert (growing.ask("counter", "value", name="a"), growing.ask("counter", "changed", name="a")) == (6, None)
    assert growing.ask("counter", "changed", name="b") == growing.time_ms


def test_a_switch_comes_with_the_first_call_whatever_that_call_does(growing: Ledger) -> None:
    switch(growing, "counter", 2, 1)
    growing.next_block()
    outcome = growing.raw("missing", "add", {})
    assert (outcome.code, outcome.events) == ("contract.unknown", (Event("runtime", "Switched", ("counter", 2)),))
    assert growing.ask("counter", "changed", name="a") is None


def test_a_timer_may_be_the_first_call_of_the_new_version(growing: Ledger) -> None:
    growing.raw("counter", "remind", {1: "t", 2: growing.time_ms + 1})
    switch(growing, "counter", 2, 1)
    growing.next_block()
    [(_, outcome)] = growing.timers()
    assert [event.name for event in outcome.events] == ["Switched", "Added"]
    assert growing.ask("counter", "changed", name="t") == growing.time_ms


def test_a_failed_migration_keeps_the_old_version(growing: Ledger) -> None:
    growing.raw("counter", "add", {1: "a", 2: 5})
    growing.raw("counter", "add", {1: "b", 2: 2_000_000})
    switch(growing, "counter", 2, 1)
    growing.next_block()
    first = growing.raw("counter", "add", {1: "a"})
    refused = Event("runtime", "SwitchRefused", ("counter", 2, "counter.too_large"))
    assert first.events == (refused, Event("counter", "Added", ("a", 6)))
    growing.next_block()
    assert growing.raw("counter", "add", {1: "a"}).events == (Event("counter", "Added", ("a", 7)),)


@pytest.mark.parametrize(
    ("contract", "version", "after", "code"),
    [
        ("counter", 2, 0, "governance.height_passed"),
        ("counter", 1, 1, "governance.bad_version"),
        ("counter", 0, 1, "governance.bad_version"),
        ("unheard_of", 0, 1, "governance.bad_version"),
        ("runtime", 1, 1, "governance.bad_version"),
    ],
)
def test_a_switch_that_makes_no_sense_is_refused(
    growing: Ledger, contract: str, version: int, after: int, code: str
) -> None:
    assert switch(growing, contract, version, after, code_hash=bytes(32)).code == code


def test_a_version_without_a_migration_from_the_present_one_stays_out(view: Any) -> None:
    ledger = Ledger(Registry(TOYS), view=view)
    third = Path(counter.__file__).with_name("counter_2.py").read_bytes().replace(b"version=2", b"version=3")
    third = third.replace(b"from_version=1", b"from_version=2")
    ledger.runtime = Runtime(Registry([*TOYS, third]))
    assert switch(ledger, "counter", 3, 1).code == 0
    ledger.next_block()
    refused = Event("runtime", "SwitchRefused", ("counter", 3, "contract.no_migration"))
    assert ledger.raw("counter", "add", {1: "a"}).events == (refused, Event("counter", "Added", ("a", 1)))


def test_a_coming_switch_can_be_replaced_and_taken_back(growing: Ledger) -> None:
    assert switch(growing, "counter", 2, 1, code_hash=bytes(32)).code == 0
    assert switch(growing, "counter", 2, 2).code == 0
    growing.next_block()
    assert growing.raw("counter", "add", {1: "a"}).events == (Event("counter", "Added", ("a", 1)),)
    assert switch(growing, "counter", 1, 5).code == 0
    growing.next_block()
    assert growing.raw("counter", "add", {1: "a"}).events == (Event("counter", "Added", ("a", 2)),)


def test_a_switch_scheduled_by_a_failed_call_is_none(growing: Ledger) -> None:
    assert switch(growing, "counter", 2, 1, refuse=True).code == "governance.rejected"
    growing.next_block()
    assert growing.raw("counter", "add", {1: "a"}).events == (Event("counter", "Added", ("a", 1)),)


def test_a_new_contract_comes_into_force_at_its_height(view: Any) -> None:
    ledger = Ledger(Registry(TOYS), view=view)
    ledger.runtime = Runtime(Registry([*TOYS, BREAKER.replace("{body}", "pass").encode()]))
    assert ledger.raw("toy", "good", {}).code == "contract.unknown"
    assert switch(ledger, "toy", 1, 1).code == 0
    assert ledger.raw("toy", "good", {}).code == "contract.unknown"
    ledger.next_block()
    assert ledger.raw("toy", "good", {}).code == 0


def test_a_node_without_the_code_in_force_stops(growing: Ledger) -> None:
    switch(growing, "counter", 2, 1)
    lacking = Runtime(Registry(TOYS))
    growing.runtime, complete = lacking, growing.runtime
    assert growing.raw("counter", "add", {1: "a"}).code == 0  # it goes on up to the height
    growing.next_block()
    with pytest.raises(UnavailableError, match=r"contract\.version_missing"):
        growing.raw("counter", "add", {1: "a"})
    growing.runtime = complete
    growing.raw("counter", "add", {1: "a"})
    growing.runtime = Runtime(Registry(TOYS))
    with pytest.raises(UnavailableError, match=r"contract\.version_missing"):
        growing.raw("counter", "add", {1: "a"})
    altered = Path(counter.__file__).with_name("counter_2.py").read_bytes() + b"# altered\n"
    growing.runtime = Runtime(Registry([*TOYS, altered]))
    with pytest.raises(UnavailableError, match=r"contract\.version_missing"):
        growing.raw("counter", "add", {1: "a"})


def test_an_abandoned_block_leaves_no_trace_in_the_runtime() -> None:
    """The engine may propose, drop and redo a block of the same height with the same runtime."""
    ledger = Ledger(Registry(TOYS))
    ledger.runtime = Runtime(Registry(ALL_TOYS))
    switch(ledger, "counter", 2, 1)
    ledger.next_block()
    base = {path: stored for path, stored in ledger.view.write_set() if stored is not None}
    results = []
    for _ in range(2):
        ledger.view = StateView(base)
        results.append((ledger.raw("counter", "add", {1: "a"}).events, ledger.view.write_set()))
        ledger.calls -= 1
        ledger.index -= 1
    assert results[0] == results[1]
    assert results[0][0][0].name == "Switched"


# ── registry ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_package_has_its_contracts() -> None:
    assert {"access", "identity", "records"} <= set(Registry.default().names)


def test_the_set_hash_tells_every_change() -> None:
    source = Path(counter.__file__).read_bytes()
    plain = Registry([source])
    for same in ([source, source], [counter], ["tests.contracts_toy.counter"]):
        assert Registry(same).contract_set_hash() == plain.contract_set_hash()
    assert len(plain.contract_set_hash()) == 32
    others = [
        Registry([source + b"# a comment\n"]),
        Registry([source.replace(b'"counter", version', b'"count", version')]),
        Registry([source.replace(b"version=1", b"version=2")]),
        Registry([source, "tests.contracts_toy.relay"]),
    ]
    assert len({registry.contract_set_hash() for registry in [plain, *others]}) == 5


def test_two_codes_for_one_version_are_refused() -> None:
    source = Path(counter.__file__).read_bytes()
    with pytest.raises(ConflictError, match=r"contract\.name_taken"):
        Registry([source, source + b"# another\n"])
    with pytest.raises(ConflictError, match=r"contract\.name_taken"):
        Registry([source.replace(b'"counter", version', b'"runtime", version')])
    with pytest.raises(NotFoundError, match=r"contract\.no_source"):
        Registry(["no_such_module_anywhere"])


@pytest.fixture
def installed_package(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Puts a distribution that names a contract by entry point on the path."""

    def install(module: str) -> None:
        (tmp_path / "outside.py").write_text(BREAKER.replace("{body}", "pass"))
        (tmp_path / "outside_broken.py").write_text("while True:\n    pass\n")
        information = tmp_path / "outside-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[ehrfast.contracts]\ntoy = {module}\n")

    sys.path.insert(0, str(tmp_path))
    yield install
    sys.path.remove(str(tmp_path))


def test_an_installed_package_adds_its_contract(installed_package: Callable[[str], None]) -> None:
    installed_package("outside")
    assert "toy" in Registry.default().names
    assert "outside" not in sys.modules  # read, never imported


def test_an_installed_package_passes_the_guard_or_stops_the_node(installed_package: Callable[[str], None]) -> None:
    installed_package("outside_broken")
    with pytest.raises(InvalidInputError, match=r"guard\.while"):
        Registry.default()


def test_fields_types_and_docs_are_readable() -> None:
    [add, remind] = Registry([counter]).methods("counter")
    assert (add.name, add.doc) == ("add", "Adds to a counter and answers its new value.")
    assert [(f.name, f.type.describe(), f.required, f.default, f.doc) for f in add.fields] == [
        ("name", "Code", True, None, "the counter; it begins at 0"),
        ("amount", "Natural", False, 1, "how much"),
    ]
    assert remind.name == "remind"
    assert [one.name for one in Registry([counter]).views("counter")] == ["names", "value"]
    with pytest.raises(NotFoundError):
        Registry([counter]).methods("missing")


@pytest.mark.parametrize(
    ("method", "claimed", "lane"),
    [
        ("add", 0, 2),
        ("add", 1, 2),
        ("add", 2, 2),
        ("remind", 0, 0),
        ("remind", 1, 1),
        ("remind", 2, 1),
        ("missing", 0, 2),
    ],
)
def test_a_lane_is_lowered_or_raised_by_the_method(method: str, claimed: int, lane: int) -> None:
    assert Registry([counter]).lane("counter", method, claimed) == lane
    assert Registry([counter]).lane("missing", method, claimed) == 2


def test_genesis_installs_once_and_undoes_itself_when_refused(view: Any) -> None:
    source = BREAKER.replace("{body}", "pass")
    source += "\n\n@contract.genesis\ndef begin(ctx: Context) -> None:\n    ctx.fail('toy.no')\n"
    runtime = Runtime(Registry([source.encode()]))
    with pytest.raises(InvalidInputError, match=r"toy\.no"):
        runtime.genesis(view, BlockContext(CHAIN_ID, 0, 1), type("Founding", (), {"organisations": ()})())
    assert list(view.write_set() if isinstance(view, StateView) else view.write_set().items()) == []
