"""The guard over a table of what it must refuse, each with the rule's name and the line, and what it must accept."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from ehrfast.contracts.guard import NAMED_RULES, LoadedContract, load
from ehrfast.errors import InvalidInputError

HEAD = """\
from __future__ import annotations
from dataclasses import dataclass
from typing import NamedTuple
from ehrfast.contracts.contract import Code, Context, Contract, Id, Natural, Value, View
contract = Contract("toy", version=2)
LIMIT = 3
class Pair(NamedTuple):
    left: Id
    right: Natural
@dataclass(frozen=True, slots=True)
class Args:
    name: Code
    pairs: tuple[Pair, ...] = ()
def helper(ctx: Context, amount: int) -> int:
    return amount
"""
FIRST_LINE = HEAD.count("\n") + 1


def method(*body: str) -> str:
    """The lines of a body as a published method; its first line is FIRST_LINE + 2."""
    lines = "\n".join(f"    {line}" for line in body)
    return f"@contract.method\ndef run(ctx: Context, args: Args) -> None:\n{lines}\n"


# (rule, offset of the refused line from the first line after HEAD, source)
REFUSED: list[tuple[str, int, str]] = [
    # control flow that can hide a failure or never end
    ("try", 2, method("try:", "    pass", "except Exception:", "    pass")),
    ("try", 2, method("try:", "    pass", "finally:", "    pass")),
    ("try", 2, method("try:", "    pass", "except* ValueError:", "    pass")),
    ("raise", 2, method("raise ValueError")),
    ("assert", 2, method("assert args.name")),
    ("while", 2, method("while True:", "    pass")),
    ("while", 3, method("for x in args.pairs:", "    while x:", "        pass")),
    ("yield", 2, method("yield 1")),
    ("yield", 2, method("x = yield")),
    ("yield", 2, method("yield from args.pairs")),
    ("async", 0, "async def run(ctx: Context) -> None:\n    pass\n"),
    ("async", 2, method("await ctx")),
    ("async", 2, method("async for x in args.pairs:", "    pass")),
    ("async", 2, method("async with ctx:", "    pass")),
    ("async", 2, method("x = [y async for y in args.pairs]")),
    ("with", 2, method("with ctx:", "    pass")),
    ("match", 2, method("match args:", "    case Args(name=x):", "        pass")),
    ("match", 2, method("match ctx:", "    case object(__class__=x):", "        pass")),
    ("syntax", 2, method("for x in args.pairs:", "    pass", "else:", "    pass")),
    ("recursion", 0, "def loop(ctx: Context) -> int:\n    return loop(ctx)\n"),
    ("recursion", 0, "def a(x: int) -> int:\n    return b(x)\ndef b(x: int) -> int:\n    return a(x)\n"),
    # names and state outside the call
    ("global", 2, method("global x", "x = 4")),
    ("nonlocal", 2, method("nonlocal ctx")),
    ("module_state", 0, "CACHE = {}\n"),
    ("module_state", 0, "CACHE = []\n"),
    ("module_state", 0, "counter = 0\n"),
    ("module_state", 0, "LIMIT_2 = len((1, 2))\n"),
    ("module_state", 0, "print(1)\n"),
    ("module_state", 0, "if LIMIT:\n    LIMIT_2 = 1\n"),
    ("module_state", 0, "for x in (1, 2):\n    pass\n"),
    ("module_state", 0, "LIMIT: int = 4\n"),
    ("module_state", 0, "LIMIT += 1\n"),
    ("module_state", 2, method("NAMES[0] = 1")),
    ("set", 0, "NAMES = {1, 2}\n"),
    ("shadowing", 0, "LIMIT = 4\n"),
    ("shadowing", 2, method("LIMIT = 4")),
    ("shadowing", 2, method("len = 4")),
    ("shadowing", 2, method("x = [tuple for tuple in args.pairs]")),
    ("shadowing", 0, "def sorted(ctx: Context) -> None:\n    pass\n"),
    ("shadowing", 0, "class Context:\n    pass\n"),
    ("shadowing", 0, "def run(ctx: Context, range: int) -> None:\n    pass\n"),
    ("attribute_assignment", 2, method("args.name = 'x'")),
    ("attribute_assignment", 2, method("ctx.sender = args.name")),
    ("attribute_assignment", 2, method("args.count += 1")),
    ("attribute_assignment", 2, method("for args.name in args.pairs:", "    pass")),
    ("attribute_assignment", 2, method("x = [1 for args.name in args.pairs]")),
    ("attribute_assignment", 2, method("x, args.name = 1, 2")),
    ("attribute_assignment", 2, method("args.name: int = 1")),
    ("delete", 2, method("del args")),
    ("assignment", 2, method("x = y = 1")),
    ("assignment", 3, method("x = {}", "x[0] += 1")),
    ("assignment", 2, method("x: int")),
    ("assignment", 2, method("[x, y] = 1, 2")),
    ("star", 2, method("x, *y = args.pairs")),
    # imports
    ("import", 0, "import os\n"),
    ("import", 0, "import ehrfast.contracts.contract\n"),
    ("import", 0, "from os import path\n"),
    ("import", 0, "from time import time\n"),
    ("import", 0, "from ehrfast._core import random_bytes\n"),
    ("import", 0, "from ehrfast.contracts.contract import StateView\n"),
    ("import", 0, "from ehrfast.contracts.contract import Context as C\n"),
    ("import", 0, "from dataclasses import field\n"),
    ("import", 0, "from typing import get_type_hints\n"),
    ("import", 0, "from . import contract\n"),
    ("import", 0, "from ehrfast.contracts.contract import *\n"),
    ("import", 2, method("import os")),
    ("import", 2, method("from os import path")),
    # reaching for the interpreter
    ("private_name", 2, method("x = args.__class__")),
    ("private_name", 2, method("x = ctx._call")),
    ("private_name", 2, method("x = ().__class__.__bases__")),
    ("private_name", 2, method("x = ctx.get.__globals__")),
    ("private_name", 2, method("x = __builtins__")),
    ("private_name", 2, method("x = __import__('os')")),
    ("private_name", 2, method("_m = 1")),
    ("private_name", 2, method("__debug = 1")),
    ("private_name", 0, "def __getattr__(name: str) -> None:\n    pass\n"),
    ("private_name", 0, "def _hidden(ctx: Context) -> None:\n    pass\n"),
    ("private_name", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    __slots__: int\n"),
    ("private_name", 0, "def run(ctx: Context, __x: int) -> None:\n    pass\n"),
    ("call", 2, method("getattr(args, 'name')")),
    ("call", 2, method("x = eval('1')")),
    ("call", 2, method("exec('1')")),
    ("call", 2, method("x = open('/etc/passwd')")),
    ("call", 2, method("x = hash(args.name)")),
    ("call", 2, method("x = id(args)")),
    ("call", 2, method("x = type(args)")),
    ("call", 2, method("x = vars(args)")),
    ("call", 2, method("x = globals()")),
    ("call", 2, method("x = print(1)")),
    ("call", 2, method("x = int('1')")),
    ("call", 2, method("x = str(1)")),
    ("call", 2, method("x = float(1)")),
    ("call", 2, method("x = set(args.pairs)")),
    ("call", 2, method("x = frozenset(args.pairs)")),
    ("call", 2, method("x = map(helper, args.pairs)")),
    ("call", 2, method("x = isinstance(args, Args)")),
    ("call", 2, method("x = format(1, 'd')")),
    ("call", 2, method("x = pow(2, 100)")),
    ("call", 2, method("x = iter(args.pairs)")),
    ("call", 2, method("x = bytes(10)")),
    ("call", 2, method("x = (helper)(ctx, 1)(2)")),
    ("call", 2, method("x = [helper][0](ctx, 1)")),
    ("call", 2, method("x = contract(1)")),
    ("call", 3, method("f = args.name", "x = f(1)")),
    ("call", 3, method("helper = args.name", "x = helper(1)")),
    ("function_value", 2, method("f = helper")),
    ("function_value", 2, method("x = sorted((helper, run))")),
    ("function_value", 2, method("ctx.put(('f',), Args)")),
    ("unknown_name", 2, method("x = missing")),
    ("unknown_name", 2, method("x = len")),
    ("unknown_name", 2, method("x = Context")),
    ("unknown_name", 2, method("x = contract.name")),
    ("lambda", 2, method("f = lambda x: x")),
    ("lambda", 2, method("x = sorted(args.pairs, lambda p: p)")),
    ("keyword", 2, method("x = sorted(args.pairs, key=1)")),
    ("keyword", 2, method("x = helper(ctx, amount=1)")),
    ("nested_function", 2, method("def inner():", "    return 1")),
    ("nested_class", 2, method("class Inner:", "    pass")),
    ("walrus", 2, method("x = (y := 1)")),
    ("walrus", 2, method("if (y := 1):", "    pass")),
    ("walrus", 2, method("x = [y := z for z in args.pairs]")),
    ("star", 2, method("helper(*args.pairs)")),
    ("star", 2, method("helper(**{'ctx': ctx})")),
    ("star", 2, method("x = (*args.pairs, 1)")),
    ("star", 2, method("x = {**{}}")),
    ("star", 0, "def run(ctx: Context, *rest: int) -> None:\n    pass\n"),
    ("star", 0, "def run(ctx: Context, **rest: int) -> None:\n    pass\n"),
    ("parameters", 0, "def run(ctx: Context, /, x: int) -> None:\n    pass\n"),
    ("parameters", 0, "def run(ctx: Context, *, x: int) -> None:\n    pass\n"),
    ("default", 0, "def run(ctx: Context, x: list[int] = []) -> None:\n    pass\n"),
    ("default", 0, "def run(ctx: Context, x: int = 1) -> None:\n    pass\n"),
    # methods and attributes of values
    ("attribute", 2, method("x = args.append")),
    ("attribute", 2, method("x = args.missing")),
    ("attribute", 2, method("x = ctx.put")),
    ("method", 2, method("x = args.name.lower()")),
    ("method", 2, method("x = args.name.casefold()")),
    ("method", 2, method("x = args.name.upper()")),
    ("method", 2, method("x = args.name.isdigit()")),
    ("method", 2, method("x = args.name.encode()")),
    ("method", 2, method("x = args.name.strip()")),
    ("method", 2, method("x = '{0.__class__}'.format(args)")),
    ("method", 2, method("x = '{a}'.format_map({'a': args})")),
    ("method", 2, method("x = ''.join(('a', 'b'))")),
    ("method", 3, method("x = [1]", "x.extend(x)")),
    ("method", 2, method("args.pairs.sort()")),
    ("method", 2, method("x = args.name()")),
    ("method", 2, method("x = contract.method(1)")),
    ("format", 2, method("x = f'{args}'")),
    ("format", 2, method("x = f'{args!r:>{LIMIT}}'")),
    ("format", 2, method("x = f'plain'")),
    # arithmetic and values
    ("operator", 2, method("x = 1 / 2")),
    ("operator", 2, method("x = 2 ** 64")),
    ("operator", 2, method("x = 1 << 64")),
    ("operator", 2, method("x = 8 >> 1")),
    ("operator", 2, method("x = args.pairs & args.pairs")),
    ("operator", 2, method("x = args.pairs | args.pairs")),
    ("operator", 2, method("x = args.pairs ^ args.pairs")),
    ("operator", 2, method("x = args.pairs @ args.pairs")),
    ("operator", 2, method("x = ~1")),
    ("operator", 2, method("x = +1")),
    ("operator", 3, method("x = 1", "x /= 2")),
    ("operator", 3, method("x = 1", "x **= 2")),
    ("operator", 3, method("x = 1", "x |= 2")),
    ("float", 2, method("x = 0.5")),
    ("float", 2, method("x = 1e3")),
    ("float", 2, method("x = 1j")),
    ("float", 0, "RATE = 0.5\n"),
    ("integer_size", 2, method("x = 9223372036854775808")),
    ("integer_size", 0, "BIG = 99999999999999999999\n"),
    ("syntax", 2, method("x = ...")),
    ("set", 2, method("x = {1, 2}")),
    ("set", 2, method("x = {y for y in args.pairs}")),
    ("generator", 2, method("x = (y for y in args.pairs)")),
    ("generator", 2, method("x = enumerate(y for y in args.pairs)")),
    ("generator", 2, method("helper(y for y in args.pairs)")),
    ("identity", 2, method("x = args.name is 'a'")),
    ("identity", 2, method("x = 1 is not 2")),
    ("comparison", 2, method("x = 1 in (1,) in ((1,),)")),
    ("slice", 2, method("x = args.pairs[::2]")),
    ("text", 2, method(f"x = '{'a' * 1025}'")),
    ("text", 2, method("x = '\\u0130'")),
    ("statement", 2, method("args.name")),
    ("statement", 2, method("[x for x in args.pairs]")),
    ("walrus", 2, method("(x := 1)")),
    # decorators
    ("decorator", 0, "@staticmethod\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@contract.method(1)\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@contract.method(urgent=LIMIT)\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@contract.method(urgent=1)\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@contract.method(claimable='fast')\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@contract.method(**LIMIT)\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@contract.view(urgent=True)\ndef run(ctx: View) -> None:\n    pass\n"),
    ("decorator", 0, "@contract.__init__\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@(lambda f: f)\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@helper\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 1, "@contract.method\n@contract.view\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@contract.migration(from_version=2)\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("decorator", 0, "@contract.migration\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("class", 1, "@dataclass\nclass B:\n    x: int\n"),
    ("class", 1, "@dataclass(frozen=False, slots=True)\nclass B:\n    x: int\n"),
    ("class", 0, "class B:\n    x: int\n"),
    ("class", 0, "class B(Args):\n    x: int\n"),
    ("class", 0, "class B(NamedTuple, metaclass=Args):\n    x: int\n"),
    ("class", 0, "class B(NamedTuple, Args):\n    x: int\n"),
    ("class", 1, "@dataclass(frozen=True, slots=True)\nclass B(NamedTuple):\n    x: int\n"),
    # class bodies
    ("class_body", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x = 1\n"),
    ("class_body", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    print(1)\n"),
    ("nested_function", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    def __eq__(self, other): return True\n"),
    ("nested_class", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    class C: pass\n"),
    ("set", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: int = {1}\n"),
    ("module_state", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: int = []\n"),
    ("module_state", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: int = helper(1, 2)\n"),
    ("lambda", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: int = lambda: 1\n"),
    ("field_name", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    append: int\n"),
    ("field_name", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    put: int\n"),
    ("field_name", 3, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: int\n    x: int\n"),
    ("field_default", 3, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: int = 1\n    y: int\n"),
    # annotations
    ("type", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: 'int'\n"),
    ("type", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: float\n"),
    ("type", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: list[int]\n"),
    ("type", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: dict[str, int]\n"),
    ("type", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: object\n"),
    ("type", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: Args\n"),
    ("type", 2, "@dataclass(frozen=True, slots=True)\nclass B:\n    x: eval('int')\n"),
    ("type", 1, "@contract.view\ndef look(ctx: View, x: list[int]) -> int:\n    return 1\n"),
    ("annotation", 0, "def run(ctx: Context, x) -> None:\n    pass\n"),
    ("annotation", 0, "def run(ctx: Context, x: 'int') -> None:\n    pass\n"),
    ("annotation", 0, "def run(ctx: Context) -> print(1):\n    pass\n"),
    ("annotation", 0, "def run(ctx: Context, x: int.real) -> None:\n    pass\n"),
    ("lambda", 0, "def run(ctx: Context, x: (lambda: 1)) -> None:\n    pass\n"),
    ("walrus", 0, "def run(ctx: Context, x: (y := 1)) -> None:\n    pass\n"),
    ("annotation", 2, method("x: __import__('os') = 1")),
    # published functions
    ("parameters", 1, "@contract.method\ndef run(args: Args) -> None:\n    pass\n"),
    ("parameters", 1, "@contract.method\ndef run(ctx: View, args: Args) -> None:\n    pass\n"),
    ("parameters", 1, "@contract.method\ndef run(ctx: Context, name: Code) -> None:\n    pass\n"),
    ("parameters", 1, "@contract.method\ndef run(ctx: Context, args: Args, more: int) -> None:\n    pass\n"),
    ("parameters", 1, "@contract.view\ndef run(ctx: Context) -> None:\n    pass\n"),
    ("parameters", 1, "@contract.migration(from_version=1)\ndef run(ctx: Context, args: Args) -> None:\n    pass\n"),
    ("contract_declaration", 0, "contract = Contract('again', version=1)\n"),
    # the text of the file itself
    ("encoding", 0, "# \u202e\n"),
    ("encoding", 1, "# fine\n# caf\u00e9\n"),
    ("encoding", 0, "\tx = 1\n"),
    ("encoding", 0, "LIMIT_2 = 1\r\n"),
    ("encoding", 2, method("\uff45val('1')")),
    ("not_python", 2, method("x = = 1")),
    ("not_python", 2, method("break")),
    ("not_python", 3, method("if args.name:", "    continue")),
    ("not_python", 0, "def twice(x: int, x: int) -> None:\n    pass\n"),
    ("not_python", 0, "match = print 1\n"),
    ("too_deep", 2, method("x = " + "(" * 60 + "1" + ",)" * 60)),
    ("too_deep", 2, method("x = " + "-" * 60 + "1")),
]


@pytest.mark.parametrize(("rule", "offset", "source"), REFUSED)
def test_refuses_with_rule_and_line(rule: str, offset: int, source: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        load((HEAD + source).encode())
    assert refused.value.code == f"guard.{rule}"
    assert refused.value.details["line"] == FIRST_LINE + offset


def test_every_named_rule_is_in_the_table() -> None:
    assert set(NAMED_RULES) <= {rule for rule, _, _ in REFUSED}
    source = resources.files("ehrfast.contracts").joinpath("guard.py").read_text()
    rules = set(re.findall(r'_refuse\("(\w+)"', source)) | set(re.findall(r'get\(type\([a-z.]+\), "(\w+)"\)', source))
    elsewhere = {"no_contract", "too_large", "contract_name"}
    assert rules - elsewhere == {rule for rule, _, _ in REFUSED} & rules
    assert rules - elsewhere <= {rule for rule, _, _ in REFUSED}


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("no_contract", "LIMIT = 1\n"),
        ("no_contract", ""),
        ("contract_name", HEAD.replace('"toy"', '"Toy"')),
        ("contract_name", HEAD.replace('"toy"', '""')),
        ("contract_name", HEAD.replace('"toy"', '"' + "a" * 33 + '"')),
        ("contract_declaration", HEAD.replace("version=2", "version=0")),
        ("contract_declaration", HEAD.replace("version=2", "version=True")),
        ("contract_declaration", HEAD.replace("version=2", "version=1 + 1")),
        ("contract_declaration", HEAD.replace(", version=2", "")),
        ("contract_declaration", HEAD.replace("Contract, ", "")),
        ("too_large", HEAD + "#" * 300_000),
    ],
)
def test_refuses_files_that_declare_no_contract(rule: str, source: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        load(source.encode())
    assert refused.value.code == f"guard.{rule}"


ACCEPTED = [
    method("pass"),
    method("return"),
    method("x = 1 + 2 * 3 - 7 // 2 % 5", "ctx.put(('x',), x)"),
    method("x = -LIMIT"),
    method("x, (y, z) = 1, (2, 3)", "x += y * z"),
    method("for left, right in args.pairs:", "    if right > 3:", "        continue", "    break"),
    method("x = {}", "x['a'] = 1", "for key, item in x.items():", "    ctx.put((key,), item)"),
    method("x = [1]", "x.append(2)", "x[0] = 3", "ctx.put(('x',), tuple(x))"),
    method("x = [p.right for p in args.pairs if p.right]", "y = {p.left: p for p in args.pairs}"),
    method("x = sum(p.right for p in args.pairs)", "y = any(p.right > 1 for p in args.pairs)"),
    method("x = args.pairs[1:][0]", "y = args.pairs[-1]"),
    method("x = args.name in ('a', 'b') and not LIMIT < 3 <= 5"),
    method("x = None if args.name == 'a' else 1", "if x is None:", "    ctx.fail('toy.none')"),
    method("for i, p in enumerate(args.pairs):", "    ctx.emit(Args(name='a'))"),
    method("x = Pair(ctx.transaction_id, ctx.height)"),
    method("x: dict[str, int | None] = {}", "y: Value = ctx.get(('a', 1))"),
    method("run = 1", "_ = run"),
    method("x = ctx.call('other', 'method', (1, args.pairs))", "ctx.at(ctx.time_ms + 1, 'run', args)"),
    "@contract.view\ndef look(ctx: View, pair: Pair, names: tuple[Code, Id | None]) -> Value:\n    return names\n",
    "@contract.migration(from_version=1)\ndef up(ctx: Context) -> None:\n    pass\n",
    "@contract.timer\ndef ring(ctx: Context) -> None:\n    pass\n",
    "@contract.genesis\ndef begin(ctx: Context) -> None:\n    pass\n",
    "NAMES = (('a', -1), (b'b', None, True), LIMIT)\n",
]


@pytest.mark.parametrize("source", ACCEPTED)
def test_accepts(source: str) -> None:
    assert isinstance(load((HEAD + source).encode()), LoadedContract)


def test_accepts_every_contract_of_the_package_and_of_the_toy() -> None:
    folder = Path(__file__).parent.parent / "contracts_toy"
    toys = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    package = resources.files("ehrfast.contracts")
    built_in = [package.joinpath(f"{name}.py") for name in ("identity", "records", "access")]
    for source in [path.read_bytes() for path in toys] + [path.read_bytes() for path in built_in]:
        load(source)
    assert len(toys) >= 4


def test_a_refused_file_is_not_executed() -> None:
    planted = HEAD + "X = (1).__class__\n"
    with pytest.raises(InvalidInputError):
        load(planted.encode())
