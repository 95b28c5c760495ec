"""Runs contracts over a state view: one call a transaction, nested calls, timers, version switches.

Owns what a call may do and what it costs; refuses by a code in the outcome, never by an exception, whatever a
transaction or a contract does. Invariant: a call that failed has written nothing. Comes after order, before assemble.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol, cast

from ehrfast.contracts import meter as cost
from ehrfast.contracts import timers
from ehrfast.contracts.contract import BlockContext, Event, Outcome, StateView, Transaction
from ehrfast.contracts.guard import Function, LoadedContract
from ehrfast.contracts.meter import Broken, Meter, Refusal
from ehrfast.contracts.registry import Registry
from ehrfast.contracts.schema import INTEGER_MAX, Mismatch, Schema, is_code
from ehrfast.errors import CorruptionError, InvalidInputError, NotFoundError, UnavailableError
from ehrfast.model.codec import cbor_encode, check_public_key

CALL_DEPTH_MAX: Final = 4
READ_DEPTH_MAX: Final = 8
EVENTS_MAX: Final = 64
EVENT_BYTES_MAX: Final = 4_096
MIGRATION_WORK_FACTOR: Final = 50
CONTRACTS_MAX: Final = 64
CODE_HASH_BYTES: Final = 32

_log: Final = logging.getLogger(__name__)
_new_tuple: Final = tuple.__new__
"""Makes a named tuple of ready fields: the constructor of its own costs twice as much, three times a transaction."""
_NAMES: Final = timers.NAMES
_CONTRACTS: Final = ("contracts",)
# The node itself cannot go on: execution stops instead of recording an outcome other nodes would not see.
_NODE_FAULTS: Final = (CorruptionError, UnavailableError, MemoryError)


@dataclass(frozen=True, slots=True)
class _Installed:
    """A row of the list of contracts in state; the last three say what comes next, and at which height."""

    name: str
    version: int
    code_hash: bytes
    next_version: int | None = None
    next_hash: bytes | None = None
    next_height: int | None = None

    def row(self) -> tuple[object, ...]:
        return (self.name, self.version, self.code_hash, self.next_version, self.next_hash, self.next_height)


@dataclass(slots=True)
class _BlockContracts:
    """The contracts in force for one block, and what is to be told about switches with its first outcome."""

    view: StateView
    block: BlockContext
    contracts: dict[str, LoadedContract]
    events: tuple[Event, ...]


class _Call:
    """What all contexts of one transaction share."""

    __slots__ = (
        "attachments", "block", "contracts", "events", "index", "meter", "salt", "sender", "transaction_id",
        "view",
    )  # fmt: skip

    def __init__(
        self,
        contracts: Mapping[str, LoadedContract],
        view: StateView,
        block: BlockContext,
        meter: Meter,
        sender: bytes = b"",
        transaction_id: bytes = b"",
        salt: bytes = b"",
        index: int = 0,
        attachments: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.contracts = contracts
        self.view = view
        self.block = block
        self.meter = meter
        self.sender = sender
        self.transaction_id = transaction_id
        self.salt = salt
        self.index = index
        self.attachments = attachments
        self.events: list[Event] = []


class _View:
    """The context of a published view. Public names are exactly those the guard lets a contract use."""

    __slots__ = ("_call", "_contract", "_depth", "_get", "_meter", "_name", "chain_id", "height", "time_ms")

    def __init__(self, call: _Call, contract: LoadedContract, depth: int) -> None:
        self._call = call
        self._contract = contract
        self._depth = depth
        self._get = call.view.get
        self._meter = call.meter
        self._name = contract.name
        block = call.block
        self.chain_id = block.chain_id
        self.height = block.height
        self.time_ms = block.time_ms

    def get(self, key: object) -> Any:
        meter = self._meter
        meter.left -= cost.READ
        if meter.left < 0:
            meter.exhausted()
        if not isinstance(key, tuple):
            raise Broken
        return self._get(self._name, key)

    def read(self, contract: str, view: str, *arguments: object) -> Any:
        call = self._call
        self._meter.charge(cost.READ)
        found = call.contracts.get(contract)
        if found is None:
            raise Refusal("contract.unknown")
        function = found.views.get(view)
        if function is None:
            raise Refusal("contract.unknown_method")
        if self._depth >= READ_DEPTH_MAX:
            raise Refusal("contract.too_deep")
        return _run_view(function, _View(call, found, self._depth + 1), arguments)

    def fail(self, code: str) -> NoReturn:
        if not isinstance(code, str) or not is_code(code) or code.startswith("contract."):
            raise Broken
        raise Refusal(code)


class _Context(_View):
    """The context of a method, a timer, a genesis or a migration."""

    __slots__ = ("_put", "attachments", "caller", "index", "sender", "transaction_id")

    def __init__(self, call: _Call, contract: LoadedContract, depth: int, caller: str | None) -> None:
        # The fields of a view are set here once more: a call into its constructor for each transaction shows.
        self._call = call
        self._contract = contract
        self._depth = depth
        view = call.view
        self._get = view.get
        self._put = view.put
        self._meter = call.meter
        self._name = contract.name
        block = call.block
        self.chain_id = block.chain_id
        self.height = block.height
        self.time_ms = block.time_ms
        self.caller = caller
        self.sender = call.sender
        self.index = call.index
        self.transaction_id = call.transaction_id
        self.attachments = call.attachments

    def put(self, key: object, value: object) -> None:
        meter = self._meter
        meter.left -= cost.WRITE
        if meter.left < 0:
            meter.exhausted()
        if not isinstance(key, tuple) or value is None:
            raise Broken
        self._put(self._name, key, value)

    def delete(self, key: object) -> None:
        self._meter.charge(cost.WRITE)
        if not isinstance(key, tuple):
            raise Broken
        self._call.view.delete(self._name, key)

    def call(self, contract: str, method: str, arguments: object = ()) -> Any:
        call = self._call
        self._meter.charge(cost.CALL)
        found = call.contracts.get(contract)
        if found is None:
            raise Refusal("contract.unknown")
        function = found.methods.get(method)
        if function is None:
            raise Refusal("contract.unknown_method")
        if self._depth >= CALL_DEPTH_MAX:
            raise Refusal("contract.too_deep")
        values = _values(arguments)
        view = call.view
        view.begin(call.salt)
        try:
            answer = _run(function, _Context(call, found, self._depth + 1, self._name), values)
        except BaseException:
            view.drop_frame()
            raise
        view.accept()
        return answer

    def emit(self, event: object) -> None:
        call = self._call
        schema = self._contract.events.get(type(event))
        if schema is None or len(call.events) >= EVENTS_MAX:
            raise Broken
        values = cast("Any", event)._values()
        if not schema.holds(*values):
            raise Broken
        size = len(cbor_encode(values))
        if size > EVENT_BYTES_MAX:
            raise Broken
        meter = self._meter
        meter.left -= cost.EVENT + size // cost.BYTES_PER_UNIT
        if meter.left < 0:
            meter.exhausted()
        call.events.append(_new_tuple(Event, (self._name, schema.name, values)))

    def at(self, time_ms: int, method: str, arguments: object = ()) -> bytes:
        call = self._call
        self._meter.charge(cost.TIMER)
        function = self._contract.timers.get(method) or self._contract.methods.get(method)
        if function is None or type(time_ms) is not int or not self.time_ms < time_ms <= INTEGER_MAX:
            raise Broken
        values = _values(arguments)
        _check(function.schema, values)
        return timers.add(call.view, call.salt, time_ms, self._name, method, values, call.sender).id

    def check_public_key(self, key: bytes) -> None:
        self._meter.charge(cost.KEY_CHECK)
        try:
            check_public_key(key)
        except InvalidInputError as error:
            raise Refusal(error.code) from None

    def schedule(self, contract: str, version: int, code_hash: bytes, height: int) -> None:
        self._meter.charge(cost.WRITE)
        typed = type(version) is int and type(height) is int and type(code_hash) is bytes and type(contract) is str
        if self._name != "governance" or not typed or not is_code(contract) or len(code_hash) != CODE_HASH_BYTES:
            raise Broken
        _schedule(self._call, contract, version, code_hash, height)


def _check(schema: Schema, values: tuple[Any, ...]) -> None:
    """What a contract itself made must be of its declared types."""
    try:
        schema.build(*values)
    except (Mismatch, TypeError):
        raise Broken from None


def _values(arguments: object) -> tuple[Any, ...]:
    if isinstance(arguments, tuple):
        return arguments
    taken = getattr(arguments, "_values", None)
    if taken is None:
        raise Broken
    return cast("tuple[Any, ...]", taken())


def _run(function: Function, context: _Context, values: tuple[Any, ...]) -> Any:
    """Runs a method or timer with values in field order."""
    if len(values) > len(function.schema.fields):
        raise Refusal("contract.bad_arguments")
    try:
        arguments = function.schema.build(*values)
    except (Mismatch, TypeError):
        raise Refusal("contract.bad_arguments") from None
    if function.takes_class:
        return function.run(context._meter, context, arguments)
    return function.run(context._meter, context)


def _run_view(function: Function, context: _View, values: tuple[Any, ...]) -> Any:
    if len(values) != len(function.schema.fields):
        raise Refusal("contract.bad_arguments")
    try:
        taken = function.schema.build(*values)
    except Mismatch:
        raise Refusal("contract.bad_arguments") from None
    return function.run(context._meter, context, *taken._values())


def _schedule(call: _Call, contract: str, version: int, code_hash: bytes, height: int) -> None:
    """Writes the coming switch into the list of contracts. Judged by state alone: nodes may hold different files."""
    if height <= call.block.height:
        raise Refusal("governance.height_passed")
    installed = _installed(call.view)
    now = installed.get(contract)
    if now is None and (len(installed) >= CONTRACTS_MAX or contract == _NAMES or version < 1):
        raise Refusal("governance.bad_version")
    kept = _Installed(contract, 0, b"") if now is None else _Installed(contract, now.version, now.code_hash)
    if (version, code_hash) == (kept.version, kept.code_hash):
        installed[contract] = kept
    elif version <= kept.version:
        raise Refusal("governance.bad_version")
    else:
        installed[contract] = _Installed(contract, kept.version, kept.code_hash, version, code_hash, height)
    _write_installed(call.view, installed)


def _installed(view: StateView) -> dict[str, _Installed]:
    rows = cast("tuple[tuple[Any, ...], ...]", view.get(_NAMES, _CONTRACTS) or ())
    return {row[0]: _Installed(*row) for row in rows}


def _write_installed(view: StateView, installed: Mapping[str, _Installed]) -> None:
    view.put(_NAMES, _CONTRACTS, tuple(installed[name].row() for name in sorted(installed)))


class FoundingOrganisation(Protocol):
    """An organisation of a genesis: 16-byte id, (identity id, public key) of each admin, how many decide together."""

    @property
    def id(self) -> bytes: ...
    @property
    def admins(self) -> Sequence[tuple[bytes, bytes]]: ...
    @property
    def threshold(self) -> int: ...


class Founding(Protocol):
    """The part of a genesis that contracts start from; `ehrfast.model.genesis.Genesis` has it."""

    @property
    def organisations(self) -> Sequence[FoundingOrganisation]: ...


class Runtime:
    """Executes transactions, timers and views of one chain with the contracts of a registry.

    Args:
        registry: what this node can run; what it must run stands in state.
        work_limit: units one transaction or timer may use, nested calls included.
    """

    def __init__(self, registry: Registry, *, work_limit: int = 2_000_000) -> None:
        self.registry = registry
        self.work_limit = work_limit
        self._current: _BlockContracts | None = None
        self._last_viewed: tuple[object, Mapping[str, LoadedContract]] | None = None

    def execute(self, view: StateView, transaction: Transaction, block: BlockContext, index: int) -> Outcome:
        """Runs one transaction in a frame of its own.

        Args:
            index: leaf index the transaction will have in the log.

        Returns:
            Code 0 with its events, or the code of the refusal with nothing written: what `ctx.fail` gave, or
            `contract.unknown`, `contract.unknown_method`, `contract.bad_arguments`, `contract.out_of_work`,
            `contract.too_deep`, `contract.broken`.

        Raises:
            UnavailableError: this node lacks the code in force, or cannot read its store; the block must stop.
            CorruptionError: the store holds what was not written.
        """
        salt = transaction.salt
        in_force = self._in_force(view, block, salt)
        told = in_force.events
        if told:
            in_force.events = ()
        contract = in_force.contracts.get(transaction.contract)
        if contract is None:
            return Outcome("contract.unknown", 0, 0, told)
        function = contract.methods.get(transaction.method)
        if function is None:
            return Outcome("contract.unknown_method", 0, 0, told)
        meter = Meter(self.work_limit)
        meter.left -= cost.CALL + len(transaction) // cost.BYTES_PER_UNIT
        call = _Call(
            in_force.contracts,
            view,
            block,
            meter,
            transaction.sender,
            transaction.id,
            salt,
            index,
            tuple(transaction.attachments),
        )
        context = _Context(call, contract, 1, None)
        view.begin(salt)
        try:
            arguments = function.schema.from_map(transaction.args)
            if function.takes_class:
                function.run(meter, context, arguments)
            else:
                function.run(meter, context)
        except BaseException as error:
            view.drop_frame()
            return Outcome(_code(error, context), meter.spent, 0, told)
        events = (*told, *call.events) if told else tuple(call.events)
        return _new_tuple(Outcome, (0, meter.limit - meter.left, view.accept(), events))

    def earliest_timer(self, view: StateView) -> int | None:
        """Block time in ms at which the next timer is due."""
        entry = timers.earliest(view)
        return None if entry is None else entry[0]

    def run_timers(
        self, view: StateView, block: BlockContext, first_index: int, *, limit: int = 64
    ) -> list[tuple[bytes, Outcome]]:
        """Runs due timers by (time, order of setting); those above the limit or set meanwhile wait for the next block.

        Args:
            first_index: leaf index of the first of them.

        Returns:
            (timer id, 32 bytes; outcome), in order. A timer that failed is gone like one that ran.
        """
        due: list[timers.Timer] = []
        while len(due) < limit:
            entry = timers.earliest(view)
            if entry is None or entry[0] > block.time_ms:
                break
            timer = timers.find(view, entry[1])
            view.begin(timer.salt)
            timers.remove_earliest(view)
            view.accept()
            due.append(timer)
        return [(timer.id, self._run_timer(view, block, timer, first_index + i)) for i, timer in enumerate(due)]

    def view(
        self, view: StateView, contract: str, name: str, arguments: Mapping[str, object], *, block: BlockContext
    ) -> object:
        """The answer of a published view; tuples all the way down.

        Args:
            block: the block whose time and height the view sees, usually the last published one.

        Raises:
            NotFoundError: `contract.unknown` or `contract.unknown_method`.
            InvalidInputError: `contract.bad_arguments`, or the code the view failed with.
        """
        contracts = self._viewed(view)
        found = contracts.get(contract)
        if found is None:
            raise NotFoundError("contract.unknown", {"contract": contract})
        function = found.views.get(name)
        if function is None:
            raise NotFoundError("contract.unknown_method", {"contract": contract, "method": name})
        fields = function.schema.fields
        if len(arguments) != len(fields) or any(one.name not in arguments for one in fields):
            raise InvalidInputError("contract.bad_arguments", {"contract": contract, "method": name})
        call = _Call(contracts, view, block, Meter(self.work_limit))
        context = _View(call, found, 1)
        try:
            return _frozen(_run_view(function, context, tuple([_frozen(arguments[one.name]) for one in fields])))
        except BaseException as error:
            code = _code(error, context)
            raise InvalidInputError(code, {"contract": contract, "method": name}) from None

    def genesis(
        self,
        view: StateView,
        block: BlockContext,
        founding: Founding,
    ) -> None:
        """Installs the newest version of every contract and writes their first state.

        Args:
            founding: the organisations of the genesis, each with its admins.

        Raises:
            InvalidInputError: a contract refused what it was given; the view is as before.
        """
        installed = {
            name: _Installed(name, contract.version, contract.code_hash)
            for name, contract in self.registry.newest.items()
        }
        contracts = self._contracts(installed)
        organisations = tuple((one.id, _frozen(one.admins), one.threshold) for one in founding.organisations)
        salt = bytes(timers.SALT_BYTES)
        view.begin(salt)
        try:
            _write_installed(view, installed)
            for name in sorted(contracts):
                function = contracts[name].genesis
                if function is None:
                    continue
                meter = Meter(self.work_limit * MIGRATION_WORK_FACTOR)
                call = _Call(contracts, view, block, meter, salt=salt)
                context = _Context(call, contracts[name], 1, None)
                try:
                    _run(function, context, (organisations,) if function.takes_class else ())
                except Exception as error:
                    raise InvalidInputError(_code(error, context), {"contract": name}) from None
        except BaseException:
            view.drop_frame()
            raise
        view.accept()

    def encode_arguments(self, contract: str, method: str, arguments: object) -> Mapping[int, object]:
        """See `Registry.encode_arguments`."""
        return self.registry.encode_arguments(contract, method, arguments)

    def lane(self, transaction: Transaction) -> int:
        """The lane its method allows: 0 emergency, 1 urgent, 2 routine."""
        return self.registry.lane(transaction.contract, transaction.method, transaction.lane)

    def _run_timer(self, view: StateView, block: BlockContext, timer: timers.Timer, index: int) -> Outcome:
        in_force = self._in_force(view, block, timer.salt)
        told = in_force.events
        in_force.events = ()
        contract = in_force.contracts.get(timer.contract)
        if contract is None:
            return Outcome("contract.unknown", 0, 0, told)
        function = contract.timers.get(timer.method) or contract.methods.get(timer.method)
        if function is None:
            return Outcome("contract.unknown_method", 0, 0, told)
        meter = Meter(self.work_limit)
        meter.left -= cost.CALL
        call = _Call(
            in_force.contracts,
            view,
            block,
            meter,
            sender=timer.sender,
            transaction_id=timer.id,
            salt=timer.salt,
            index=index,
        )
        context = _Context(call, contract, 1, None)
        view.begin(timer.salt)
        code: int | str = 0
        try:
            _run(function, context, timer.values)
        except BaseException as error:
            view.drop_frame()
            code = _code(error, context)
        return self._finish(call, code, told)

    def _finish(self, call: _Call, code: int | str, told: tuple[Event, ...]) -> Outcome:
        if code != 0:
            return Outcome(code, call.meter.spent, 0, told)
        written = call.view.accept()
        return Outcome(0, call.meter.spent, written, (*told, *call.events))

    def _in_force(self, view: StateView, block: BlockContext, salt: bytes) -> _BlockContracts:
        """The contracts of this block. The first call of a block does the switches whose height has come."""
        current = self._current
        if current is not None and current.view is view and (current.block is block or current.block == block):
            return current
        installed = _installed(view)
        due = [one for one in installed.values() if one.next_height is not None and one.next_height <= block.height]
        contracts = self._contracts(installed)
        events = tuple(self._switch(view, block, salt, installed, contracts, one) for one in due)
        current = _BlockContracts(view, block, contracts, events)
        self._current = current
        return current

    def _viewed(self, view: StateView) -> Mapping[str, LoadedContract]:
        """The contracts in force for a view; made once for each list of contracts that state holds."""
        rows = view.get(_NAMES, _CONTRACTS)
        known = self._last_viewed
        if known is None or known[0] != rows:
            known = self._last_viewed = (rows, self._contracts(_installed(view)))
        return known[1]

    def _contracts(self, installed: Mapping[str, _Installed]) -> dict[str, LoadedContract]:
        return {
            name: self._held(name, one.version, one.code_hash) for name, one in installed.items() if one.version
        }

    def _held(self, name: str, version: int, code_hash: bytes | None) -> LoadedContract:
        held = self.registry.find(name, version)
        if held is None or held.code_hash != code_hash:
            raise UnavailableError("contract.version_missing", {"contract": name, "version": version})
        return held

    def _switch(
        self,
        view: StateView,
        block: BlockContext,
        salt: bytes,
        installed: dict[str, _Installed],
        contracts: dict[str, LoadedContract],
        one: _Installed,
    ) -> Event:
        """Migrates one contract; when that fails the old version stays, and the log says so."""
        assert one.next_version is not None
        following = self._held(one.name, one.next_version, one.next_hash)
        migration = following.migrations.get(one.version)
        before = contracts.get(one.name)
        contracts[one.name] = following
        meter = Meter(self.work_limit * MIGRATION_WORK_FACTOR)
        context = _Context(_Call(contracts, view, block, meter, salt=salt), following, 1, None)
        view.begin(salt)
        code: int | str = 0
        try:
            if migration is not None:
                migration.run(meter, context)
            elif before is not None:
                raise Refusal("contract.no_migration")
        except BaseException as error:
            view.drop_frame()
            code = _code(error, context)
        else:
            view.accept()
        view.begin(salt)
        if code == 0:
            installed[one.name] = _Installed(one.name, following.version, following.code_hash)
        elif before is None:
            del contracts[one.name], installed[one.name]
        else:
            contracts[one.name] = before
            installed[one.name] = _Installed(one.name, one.version, one.code_hash)
        _write_installed(view, installed)
        view.accept()
        if code == 0:
            return Event(_NAMES, "Switched", (one.name, following.version))
        return Event(_NAMES, "SwitchRefused", (one.name, following.version, code))


def _code(error: BaseException, context: _View) -> str:
    """The code an exception stands for; what is not the contract's doing goes on as it is."""
    if isinstance(error, Refusal):
        return error.code
    if isinstance(error, _NODE_FAULTS) or not isinstance(error, Exception):
        raise error
    if isinstance(error, Mismatch):
        return "contract.bad_arguments"
    _log.warning("contract.broken: %s in %s, line %d", type(error).__name__, context._name, _line(error))
    return "contract.broken"


def _line(error: Exception) -> int:
    """The deepest line of contract source the exception went through; its message may hold data and is not logged."""
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith("<contract "):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _frozen(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return tuple([_frozen(item) if isinstance(item, (list, tuple)) else item for item in value])
    return value
