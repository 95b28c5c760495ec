"""The guard and the loader: what a contract file may say, and its counted copy that runs.

Owns an allow-list over the syntax tree; anything it does not name is refused with a rule and a line.
Comes before the registry; nothing of a refused file is executed, and nothing of an accepted one is imported.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final, NoReturn

from ehrfast.contracts.meter import COUNTED, OPERATIONS
from ehrfast.contracts.schema import (
    INTEGER_MAX,
    SCALAR_NAMES,
    TEXT_MAX,
    Field,
    Schema,
    Type,
    make_schema,
    row_type,
    type_of,
)
from ehrfast.errors import InvalidInputError

SOURCE_BYTES_MAX: Final = 256 * 1024
DEPTH_MAX: Final = 40

CONTRACT_MODULE: Final = "ehrfast.contracts.contract"
IMPORTS: Final = {
    "__future__": ("annotations",),
    "dataclasses": ("dataclass",),
    "typing": ("NamedTuple",),
    CONTRACT_MODULE: ("Contract", "Context", "View", "Value", *(n for n in SCALAR_NAMES if n[0].isupper())),
}
CONTEXT_VALUES: Final = (
    "attachments", "caller", "chain_id", "height", "index", "sender", "time_ms", "transaction_id",
)  # fmt: skip
CONTEXT_METHODS: Final = (
    "at", "call", "check_public_key", "delete", "emit", "fail", "get", "put", "read", "schedule",
)  # fmt: skip
CONTAINER_METHODS: Final = ("append", "get", "items", "keys", "values")
TYPE_WORDS: Final = ("Context", "View", "Value", "int", "bytes", "str", "bool", "object", *SCALAR_NAMES)
GENERIC_TYPES: Final = ("tuple", "list", "dict")

# What the allow-list leaves out, by the name its refusal carries; everything else not allowed is `syntax`.
NAMED_RULES: Final[dict[str, tuple[type[ast.AST], ...]]] = {
    "try": (ast.Try, ast.TryStar),
    "raise": (ast.Raise,),
    "assert": (ast.Assert,),
    "yield": (ast.Yield, ast.YieldFrom),
    "async": (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await),
    "global": (ast.Global,),
    "nonlocal": (ast.Nonlocal,),
    "while": (ast.While,),
    "with": (ast.With,),
    "delete": (ast.Delete,),
    "import": (ast.Import, ast.ImportFrom),
    "nested_function": (ast.FunctionDef,),
    "nested_class": (ast.ClassDef,),
    "lambda": (ast.Lambda,),
    "match": (ast.Match,),
    "walrus": (ast.NamedExpr,),
    "star": (ast.Starred,),
    "format": (ast.JoinedStr, ast.FormattedValue),
    "set": (ast.Set, ast.SetComp),
}
_RULE_OF: Final = {node: rule for rule, nodes in NAMED_RULES.items() for node in nodes}

DECORATORS: Final = ("method", "view", "timer", "genesis", "migration")
LANES: Final = {"emergency": 0, "urgent": 1, "routine": 2}


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a contract as published: its fields, its lanes, and the counted code."""

    name: str
    kind: str
    doc: str
    schema: Schema
    run: Callable[..., Any]
    urgent: bool = False
    claimable: int = 2
    takes_class: bool = True


@dataclass(frozen=True, slots=True)
class LoadedContract:
    """A contract that passed the guard, ready to run.

    code_hash: SHA-256 of the file's bytes, which the guard accepts only in one form (ASCII, LF): `sha256sum` shows it.
    migrations: by the version they start from.
    """

    name: str
    version: int
    doc: str
    code_hash: bytes
    methods: dict[str, Function]
    views: dict[str, Function]
    timers: dict[str, Function]
    events: dict[type[Any], Schema]
    genesis: Function | None
    migrations: dict[int, Function]


def load(source: bytes) -> LoadedContract:
    """Checks a contract's source and builds the copy that runs.

    Raises:
        InvalidInputError: `guard.<rule>` with the line; nothing was executed.
    """
    tree = _parse(source)
    checked = _Module(tree)
    space: dict[str, Any] = {"__builtins__": {}, "__name__": f"contract.{checked.name}"}
    space |= COUNTED | OPERATIONS
    space |= {name: schema.made for name, schema in checked.classes.items()}
    space |= {name: kind.row for name, kind in checked.rows.items()}
    counted = _Counting(checked).module()
    exec(_compile(counted, checked.name), space)
    published: dict[str, dict[Any, Function]] = {kind: {} for kind in DECORATORS}
    for name, declared in checked.published.items():
        function = Function(
            name=name,
            kind=declared.kind,
            doc=declared.doc,
            schema=declared.schema,
            run=space[name],
            urgent=declared.urgent,
            claimable=declared.claimable,
            takes_class=declared.takes_class,
        )
        published[declared.kind][declared.from_version if declared.kind == "migration" else name] = function
    return LoadedContract(
        name=checked.name,
        version=checked.version,
        doc=ast.get_docstring(tree) or "",
        code_hash=hashlib.sha256(source).digest(),
        methods=published["method"],
        views=published["view"],
        timers=published["timer"],
        events={checked.classes[name].made: checked.classes[name] for name in checked.events},
        genesis=next(iter(published["genesis"].values()), None),
        migrations=published["migration"],
    )


def _refuse(rule: str, node: ast.AST | int) -> NoReturn:
    line = node if isinstance(node, int) else getattr(node, "lineno", 0)
    raise InvalidInputError(f"guard.{rule}", {"line": line})


def _parse(source: bytes) -> ast.Module:
    if len(source) > SOURCE_BYTES_MAX:
        _refuse("too_large", 0)
    for number, line in enumerate(source.split(b"\n"), 1):
        if any(byte < 32 or byte > 126 for byte in line):
            _refuse("encoding", number)
    try:
        with warnings.catch_warnings(action="ignore"):  # which constructs are warned of differs between Pythons
            tree = ast.parse(source.decode("ascii"))
    except SyntaxError as error:
        _refuse("not_python", error.lineno or 0)
    except (RecursionError, MemoryError, ValueError):
        _refuse("too_deep", 0)
    _check_depth(tree)
    return tree


def _compile(tree: ast.Module, name: str) -> CodeType:
    """What only the compiler tells: a `break` outside a loop, a parameter named twice."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return compile(tree, f"<contract {name}>", "exec", dont_inherit=True)
    except SyntaxError as error:
        _refuse("not_python", error.lineno or 0)


def _check_depth(tree: ast.AST) -> None:
    level: list[ast.AST] = [tree]
    for _ in range(DEPTH_MAX):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    _refuse("too_deep", next((node for node in level if hasattr(node, "lineno")), tree))


@dataclass(frozen=True, slots=True)
class _Published:
    kind: str
    doc: str
    schema: Schema
    urgent: bool
    claimable: int
    from_version: int
    takes_class: bool


class _Module:
    """The checked declarations of one file. Building it is the check."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.name = ""
        self.version = 0
        self.imported: set[str] = set()
        self.constants: dict[str, object] = {}
        self.classes: dict[str, Schema] = {}
        self.rows: dict[str, Type] = {}
        self.events: list[str] = []
        self.functions: dict[str, ast.FunctionDef] = {}
        self.published: dict[str, _Published] = {}
        self.statements: list[ast.stmt] = []
        for statement in _after_docstring(tree.body):
            self._declare(statement)
        if not self.name:
            _refuse("no_contract", 0)
        self.fields = {field.name for schema in self.classes.values() for field in schema.fields}
        self.fields |= {column.name for row in self.rows.values() for column in row.columns}
        self.taken = self.imported | set(self.constants) | set(self.classes) | set(self.rows)
        self.taken |= {"contract", *COUNTED, *TYPE_WORDS, *GENERIC_TYPES}
        for function in self.functions.values():
            self._publish(function)
        for function in self.functions.values():
            _Body(self, function).check()
        self._refuse_recursion()

    def _declare(self, statement: ast.stmt) -> None:
        match statement:
            case ast.ImportFrom():
                self._import(statement)
            case ast.Assign(targets=[ast.Name(id="contract")], value=ast.Call() as call):
                self._contract(call)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._own_name(name, statement)
                if not name.isupper():
                    _refuse("module_state", statement)
                self.constants[name] = self._constant(value)
                self.statements.append(statement)
            case ast.ClassDef():
                self._class(statement)
            case ast.FunctionDef(name=name):
                self._own_name(name, statement)
                self.functions[name] = statement
            case _:
                _refuse(_RULE_OF.get(type(statement), "module_state"), statement)

    def _own_name(self, name: str, node: ast.AST) -> None:
        _check_name(name, node)
        known = (self.imported, self.constants, self.classes, self.rows, self.functions, COUNTED, TYPE_WORDS)
        if name == "contract" or name in GENERIC_TYPES or any(name in names for names in known):
            _refuse("shadowing", node)

    def _import(self, statement: ast.ImportFrom) -> None:
        allowed = IMPORTS.get(statement.module or "", ()) if not statement.level else ()
        for alias in statement.names:
            if alias.name not in allowed or alias.asname:
                _refuse("import", statement)
            self.imported.add(alias.name)

    def _contract(self, call: ast.Call) -> None:
        match call:
            case ast.Call(
                func=ast.Name(id="Contract"),
                args=[ast.Constant(value=str(name))],
                keywords=[ast.keyword(arg="version", value=ast.Constant(value=int(version)))],
            ) if "Contract" in self.imported and not self.name and type(version) is int and 1 <= version <= 65_535:
                if not (0 < len(name) <= 32 and name.replace("_", "a").isalnum() and name == name.lower()):
                    _refuse("contract_name", call)
                self.name, self.version = name, version
            case _:
                _refuse("contract_declaration", call)

    def _constant(self, node: ast.expr) -> object:
        match node:
            case ast.Constant():
                return _check_constant(node)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(value))) if type(value) is int:
                _check_constant(node.operand)
                return -value
            case ast.Tuple(elts=items):
                return tuple(self._constant(item) for item in items)
            case ast.Name(id=name) if name in self.constants:
                return self.constants[name]
        _refuse(_RULE_OF.get(type(node), "module_state"), node)

    def _class(self, statement: ast.ClassDef) -> None:
        self._own_name(statement.name, statement)
        if statement.keywords or getattr(statement, "type_params", []):
            _refuse("class", statement)
        decorators = [ast.unparse(item) for item in statement.decorator_list]
        bases = [ast.unparse(item) for item in statement.bases]
        fields = tuple(self._fields(statement))
        if bases == ["NamedTuple"] and not decorators and "NamedTuple" in self.imported and fields:
            self.rows[statement.name] = row_type(statement.name, fields)
            return
        frozen = "dataclass(frozen=True, slots=True)"
        if bases or "dataclass" not in self.imported or decorators not in ([frozen], ["contract.event", frozen]):
            _refuse("class", statement)
        if len(decorators) == 2:
            if not self.name:
                _refuse("contract_declaration", statement)
            self.events.append(statement.name)
        self.classes[statement.name] = make_schema(statement.name, fields)

    def _fields(self, statement: ast.ClassDef) -> Iterator[Field]:
        docs = _field_docs(ast.get_docstring(statement) or "")
        seen: set[str] = set()
        optional = False
        for item in _after_docstring(statement.body):
            match item:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value, simple=1):
                    _check_name(name, item)
                    if name in CONTAINER_METHODS or name in CONTEXT_METHODS or name in seen:
                        _refuse("field_name", item)
                    seen.add(name)
                    if value is None and optional:
                        _refuse("field_default", item)
                    optional = value is not None
                    yield Field(
                        name=name,
                        type=self._type(annotation),
                        doc=docs.get(name, ""),
                        required=value is None,
                        default=None if value is None else self._constant(value),
                    )
                case _:
                    _refuse(_RULE_OF.get(type(item), "class_body"), item)

    def _type(self, annotation: ast.expr) -> Type:
        found = type_of(annotation, self.rows)
        if found is None:
            _refuse("type", annotation)
        return found

    def _publish(self, function: ast.FunctionDef) -> None:
        if not function.decorator_list:
            return
        if len(function.decorator_list) > 1:
            _refuse("decorator", function.decorator_list[1])
        decorator = function.decorator_list[0]
        options: dict[str, object] = {}
        node: ast.expr = decorator
        if isinstance(decorator, ast.Call):
            node = decorator.func
            options = self._options(decorator)
        match node:
            case ast.Attribute(value=ast.Name(id="contract"), attr=kind) if kind in DECORATORS and self.name:
                pass
            case _:
                _refuse("decorator", decorator)
        allowed = {"method": {"urgent", "claimable"}, "migration": {"from_version"}}.get(kind, set())
        urgent, claimable = options.get("urgent", False), options.get("claimable", "routine")
        from_version = options.get("from_version", 0)
        if set(options) - allowed or not isinstance(urgent, bool) or claimable not in LANES:
            _refuse("decorator", decorator)
        if not isinstance(from_version, int) or (kind == "migration" and not 1 <= from_version < self.version):
            _refuse("decorator", decorator)
        schema, takes_class = self._parameters(function, kind)
        self.published[function.name] = _Published(
            kind=kind,
            doc=ast.get_docstring(function) or "",
            schema=schema,
            urgent=urgent,
            claimable=LANES[str(claimable)],
            from_version=from_version,
            takes_class=takes_class,
        )

    def _options(self, decorator: ast.Call) -> dict[str, object]:
        if decorator.args:
            _refuse("decorator", decorator)
        options: dict[str, object] = {}
        for keyword in decorator.keywords:
            if keyword.arg is None or not isinstance(keyword.value, ast.Constant):
                _refuse("decorator", decorator)
            options[keyword.arg] = keyword.value.value
        return options

    def _parameters(self, function: ast.FunctionDef, kind: str) -> tuple[Schema, bool]:
        """The schema of a published function: the fields of its arguments class, or a view's own parameters."""
        given = function.args.args
        context = "View" if kind == "view" else "Context"
        if not given or given[0].arg != "ctx" or _name_of(given[0].annotation) != context:
            _refuse("parameters", function)
        rest = given[1:]
        if kind == "view":
            fields = tuple(Field(one.arg, self._type(one.annotation or function.args)) for one in rest)  # type: ignore[arg-type]
            return make_schema(function.name, fields), False
        if kind == "migration" or not rest:
            if rest:
                _refuse("parameters", function)
            return make_schema(function.name, ()), False
        named = _name_of(rest[0].annotation)
        if len(rest) > 1 or named not in self.classes or named in self.events:
            _refuse("parameters", function)
        return self.classes[named], True

    def _refuse_recursion(self) -> None:
        calls = {
            name: set(_called_names(function)) & set(self.functions)
            for name, function in self.functions.items()
        }
        finished: set[str] = set()
        while len(finished) < len(calls):
            ready = {name for name, called in calls.items() if name not in finished and called <= finished}
            if not ready:
                first = min((self.functions[name] for name in calls if name not in finished), key=lambda f: f.lineno)
                _refuse("recursion", first)
            finished |= ready


class _Body:
    """Checks one function: every node must be named below."""

    def __init__(self, module: _Module, function: ast.FunctionDef) -> None:
        self.module = module
        self.function = function
        arguments = function.args
        extra = (arguments.vararg, arguments.kwarg, *arguments.posonlyargs, *arguments.kwonlyargs)
        if any(extra) or getattr(function, "type_params", []):
            _refuse("star" if arguments.vararg or arguments.kwarg else "parameters", function)
        if arguments.defaults:
            _refuse("default", function)
        self.locals = {one.arg for one in arguments.args}
        for one in arguments.args:
            self._own_local(one.arg, one)
            if one.annotation is None:
                _refuse("annotation", one)
            self._annotation(one.annotation)
        if function.returns is not None:
            self._annotation(function.returns)
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                self._own_local(node.id, node)
                self.locals.add(node.id)

    def check(self) -> None:
        body = _after_docstring(self.function.body)
        for statement in body:
            self._statement(statement)

    def _own_local(self, name: str, node: ast.AST) -> None:
        if name != "_":
            _check_name(name, node)
        if name in self.module.taken:
            _refuse("shadowing", node)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Return(value=value):
                if value is not None:
                    self._value(value)
            case ast.Assign(targets=[target], value=value):
                self._target(target)
                self._value(value)
            case ast.AnnAssign(target=ast.Name(), annotation=annotation, value=value, simple=1) if value is not None:
                self._annotation(annotation)
                self._value(value)
            case ast.AugAssign(target=ast.Name(id=name), op=operator, value=value):
                self._operator(operator, node)
                self._known(name, node)
                self._value(value)
            case ast.For(target=target, iter=over, body=body, orelse=[]):
                self._loop_target(target)
                self._value(over)
                self._block(body)
            case ast.If(test=test, body=body, orelse=orelse):
                self._value(test)
                self._block(body)
                self._block(orelse)
            case ast.Expr(value=ast.Call() as call):
                self._value(call)
            case ast.Pass() | ast.Break() | ast.Continue():
                pass
            case ast.Assign(targets=targets):
                for target in targets:
                    self._target(target)
                _refuse("assignment", node)
            case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
                self._target(target)
                _refuse("assignment", node)
            case ast.Expr(value=value):
                _refuse(_RULE_OF.get(type(value), "statement"), node)
            case _:
                _refuse(_RULE_OF.get(type(node), "syntax"), node)

    def _block(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _target(self, node: ast.expr) -> None:
        match node:
            case ast.Name():
                pass
            case ast.Tuple(elts=items):
                for item in items:
                    self._loop_target(item)
            case ast.Subscript(value=ast.Name(id=name), slice=index) if not isinstance(index, ast.Slice):
                if name not in self.locals:
                    _refuse("module_state", node)
                self._value(index)
            case ast.Attribute():
                _refuse("attribute_assignment", node)
            case _:
                _refuse(_RULE_OF.get(type(node), "assignment"), node)

    def _loop_target(self, node: ast.expr) -> None:
        match node:
            case ast.Name():
                pass
            case ast.Tuple(elts=items):
                for item in items:
                    self._loop_target(item)
            case ast.Attribute():
                _refuse("attribute_assignment", node)
            case _:
                _refuse(_RULE_OF.get(type(node), "assignment"), node)

    def _known(self, name: str, node: ast.AST) -> None:
        if name not in self.locals and name not in self.module.constants:
            _check_name(name, node)
            if name in self.module.functions or name in self.module.classes or name in self.module.rows:
                _refuse("function_value", node)
            _refuse("unknown_name", node)

    def _value(self, node: ast.expr) -> None:
        match node:
            case ast.Constant():
                _check_constant(node)
            case ast.Name(id=name):
                self._known(name, node)
            case ast.Tuple(elts=items) | ast.List(elts=items):
                self._values(items)
            case ast.Dict(keys=keys, values=values):
                if None in keys:
                    _refuse("star", node)
                self._values([key for key in keys if key is not None])
                self._values(values)
            case ast.BinOp(left=left, op=operator, right=right):
                self._operator(operator, node)
                self._values((left, right))
            case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
                self._value(operand)
            case ast.UnaryOp():
                _refuse("operator", node)
            case ast.BoolOp(values=values):
                self._values(values)
            case ast.Compare():
                self._comparison(node)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self._values((test, body, orelse))
            case ast.Attribute(value=value, attr=name):
                _check_name(name, node)
                if name not in self.module.fields and name not in CONTEXT_VALUES:
                    _refuse("attribute", node)
                self._value(value)
            case ast.Subscript(value=value, slice=index):
                self._value(value)
                self._index(index)
            case ast.Call():
                self._call(node)
            case ast.ListComp(elt=element, generators=generators):
                self._comprehension(generators)
                self._value(element)
            case ast.DictComp(key=key, value=value, generators=generators):
                self._comprehension(generators)
                self._values((key, value))
            case ast.GeneratorExp():
                _refuse("generator", node)
            case _:
                _refuse(_RULE_OF.get(type(node), "syntax"), node)

    def _values(self, nodes: Sequence[ast.expr]) -> None:
        for node in nodes:
            self._value(node)

    def _operator(self, operator: ast.operator, node: ast.AST) -> None:
        if not isinstance(operator, (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod)):
            _refuse("operator", node)

    def _comparison(self, node: ast.Compare) -> None:
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, (ast.Is, ast.IsNot)) and not (
                isinstance(right, ast.Constant) and right.value is None
            ):
                _refuse("identity", node)
        if len(node.ops) > 1 and any(isinstance(operator, (ast.In, ast.NotIn)) for operator in node.ops):
            _refuse("comparison", node)
        self._values((node.left, *node.comparators))

    def _index(self, node: ast.expr) -> None:
        if isinstance(node, ast.Slice):
            if node.step is not None:
                _refuse("slice", node)
            self._values([bound for bound in (node.lower, node.upper) if bound is not None])
        else:
            self._value(node)

    def _comprehension(self, generators: Sequence[ast.comprehension]) -> None:
        for generator in generators:
            if generator.is_async:
                _refuse("async", generator.target)
            self._loop_target(generator.target)
            self._value(generator.iter)
            self._values(generator.ifs)

    def _call(self, node: ast.Call) -> None:
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                _refuse("star", node)
        if any(keyword.arg is None for keyword in node.keywords):
            _refuse("star", node)
        named = False
        match node.func:
            case ast.Name(id=name) if name in self.locals:
                _refuse("call", node)
            case ast.Name(id=name) if name in self.module.functions:
                pass
            case ast.Name(id=name) if name in self.module.classes or name in self.module.rows:
                named = True
            case ast.Name(id=name) if name in COUNTED:
                if len(node.args) == 1 and isinstance(node.args[0], ast.GeneratorExp) and not node.keywords:
                    self._generator(name, node.args[0])
                    return
            case ast.Attribute(value=value, attr=name) if name in CONTEXT_METHODS or name in CONTAINER_METHODS:
                self._value(value)
            case ast.Attribute(attr=name):
                _check_name(name, node)
                _refuse("method", node)
            case ast.Name(id=name):
                _check_name(name, node)
                _refuse("call", node)
            case _:
                _refuse(_RULE_OF.get(type(node.func), "call"), node)
        if node.keywords and not named:
            _refuse("keyword", node)
        self._values(node.args)
        for keyword in node.keywords:
            self._value(keyword.value)

    def _generator(self, name: str, node: ast.GeneratorExp) -> None:
        if name in ("range", "len", "enumerate", "reversed", "zip", "bool", "abs"):
            _refuse("generator", node)
        self._comprehension(node.generators)
        self._value(node.elt)

    def _annotation(self, node: ast.expr) -> None:
        match node:
            case ast.Name(id=name) if name in TYPE_WORDS or name in self.module.classes or name in self.module.rows:
                pass
            case ast.Constant(value=None):
                pass
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                self._annotation(left)
                self._annotation(right)
            case ast.Subscript(value=ast.Name(id=name), slice=index) if name in GENERIC_TYPES:
                for item in index.elts if isinstance(index, ast.Tuple) else [index]:
                    if not (isinstance(item, ast.Constant) and item.value is Ellipsis):
                        self._annotation(item)
            case _:
                _refuse(_RULE_OF.get(type(node), "annotation"), node)


def _check_name(name: str, node: ast.AST) -> None:
    if name.startswith("_") or name.endswith("__"):
        _refuse("private_name", node)


def _check_constant(node: ast.expr) -> object:
    value = node.value if isinstance(node, ast.Constant) else None
    if value is None or type(value) is bool:
        return value
    if type(value) is int:
        if abs(value) > INTEGER_MAX:
            _refuse("integer_size", node)
    elif type(value) is str or type(value) is bytes:
        if len(value) > TEXT_MAX or (type(value) is str and not value.isascii()):
            _refuse("text", node)
    else:
        _refuse("float" if type(value) in (float, complex) else "syntax", node)
    return value


def _called_names(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _name_of(annotation: ast.expr | None) -> str:
    return annotation.id if isinstance(annotation, ast.Name) else ""


def _after_docstring(body: Sequence[ast.stmt]) -> Sequence[ast.stmt]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *_]:
            return body[1:]
    return body


def _field_docs(docstring: str) -> dict[str, str]:
    """What a class docstring says of each field in lines of the form `name: text`."""
    docs: dict[str, str] = {}
    for line in docstring.splitlines():
        name, colon, text = line.strip().partition(": ")
        if colon and name.isidentifier():
            docs[name] = text
    return docs


class _Counting(ast.NodeTransformer):
    """Rewrites checked functions: a meter comes first among the parameters, every function entry, loop body and
    comprehension element counts a step, arithmetic and built-ins go through their bounded twins."""

    def __init__(self, module: _Module) -> None:
        self.checked = module

    def module(self) -> ast.Module:
        body: list[ast.stmt] = list(self.checked.statements)
        body += [self.visit(function) for function in self.checked.functions.values()]
        return ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        parameters = [ast.arg(arg="_m"), *(ast.arg(arg=one.arg) for one in node.args.args)]
        node.args = ast.arguments(posonlyargs=[], args=parameters, kwonlyargs=[], kw_defaults=[], defaults=[])
        node.body = [*_step(node), *(self.visit(statement) for statement in _after_docstring(node.body))]
        node.decorator_list, node.returns = [], None
        return node

    def visit_For(self, node: ast.For) -> ast.For:
        self.generic_visit(node)
        node.body = [*_step(node), *node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign:
        assert node.value is not None
        return ast.copy_location(ast.Assign(targets=[node.target], value=self.visit(node.value)), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.Assign:
        assert isinstance(node.target, ast.Name)
        loaded = ast.Name(id=node.target.id, ctx=ast.Load())
        value = _operation(type(node.op).__name__, loaded, self.visit(node.value))
        return ast.copy_location(ast.Assign(targets=[node.target], value=value), node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        return ast.copy_location(
            _operation(type(node.op).__name__, self.visit(node.left), self.visit(node.right)), node
        )

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            return ast.copy_location(_operation("USub", self.visit(node.operand)), node)
        self.generic_visit(node)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        match node:
            case ast.Compare(left=left, ops=[ast.In()], comparators=[right]):
                return ast.copy_location(_operation("In", left, right), node)
            case ast.Compare(left=left, ops=[ast.NotIn()], comparators=[right]):
                return ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=_operation("In", left, right)), node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.slice, ast.Slice):
            absent = ast.Constant(value=None)
            return ast.copy_location(
                _operation("Slice", node.value, node.slice.lower or absent, node.slice.upper or absent), node
            )
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.comprehension:
        self.generic_visit(node)
        step = ast.Call(func=_load("_m", "step"), args=[], keywords=[])
        node.ifs = [step, *node.ifs]
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if isinstance(node.func, ast.Name):
            name = node.func.id
            arguments = [self.visit(argument) for argument in node.args]
            keywords = [self.visit(keyword) for keyword in node.keywords]
            if name in COUNTED or name in self.checked.functions:
                arguments = [ast.Name(id="_m", ctx=ast.Load()), *arguments]
            return ast.copy_location(ast.Call(func=node.func, args=arguments, keywords=keywords), node)
        self.generic_visit(node)
        return node


def _load(name: str, attribute: str) -> ast.Attribute:
    return ast.Attribute(value=ast.Name(id=name, ctx=ast.Load()), attr=attribute, ctx=ast.Load())


def _operation(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(
        func=ast.Name(id=f"_{name}", ctx=ast.Load()),
        args=[ast.Name(id="_m", ctx=ast.Load()), *arguments],
        keywords=[],
    )


_STEP = ast.parse("_m.left -= 1\nif _m.left < 0: _m.exhausted()").body


def _step(node: ast.AST) -> list[ast.stmt]:
    """The statements that count one step: cheaper in place than a call."""
    return [ast.copy_location(copy.deepcopy(statement), node) for statement in _STEP]

