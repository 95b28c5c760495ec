"""What a contract file may import: the declaration, the context it is given, and the names of argument types.

Everything here is inert when imported natively: the registry reads a contract's source, checks it with the guard
and runs its own counted copy, so the decorators below only have to leave the functions as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar, overload

Id: TypeAlias = Annotated[bytes, "16 random bytes"]
Digest: TypeAlias = Annotated[bytes, "32 bytes"]
PublicKey: TypeAlias = Annotated[bytes, "32 bytes: an Ed25519 or X25519 public key"]
Code: TypeAlias = Annotated[str, "1..64 of A-Za-z0-9._- : a word of a closed list"]
Natural: TypeAlias = Annotated[int, "0..2**63-1"]

Lane: TypeAlias = Literal["emergency", "urgent", "routine"]
Value: TypeAlias = Any
"""What state holds: int, bytes, str, bool, None and tuples of them."""

Function = TypeVar("Function", bound=Callable[..., object])
Declared = TypeVar("Declared", bound=type)


class View(Protocol):
    """What a published view sees: this contract's own names and other contracts' views, read-only."""

    @property
    def chain_id(self) -> str: ...
    @property
    def height(self) -> int: ...
    @property
    def time_ms(self) -> int: ...

    def get(self, key: tuple[Value, ...]) -> Value:
        """The value under one of this contract's own keys; None when there is none."""
        ...

    def read(self, contract: str, view: str, *arguments: Value) -> Value:
        """The answer of another contract's published view, at this very point of the block."""
        ...

    def fail(self, code: str) -> NoReturn:
        """Ends the whole transaction with a stable code; nothing it wrote stays."""
        ...


class Context(View, Protocol):
    """What a method sees: the transaction, block time and its own names. No clock, socket, store or randomness."""

    @property
    def sender(self) -> bytes: ...
    @property
    def index(self) -> int: ...
    @property
    def transaction_id(self) -> bytes: ...
    @property
    def attachments(self) -> tuple[tuple[bytes, bytes], ...]: ...
    @property
    def caller(self) -> str | None: ...

    def put(self, key: tuple[Value, ...], value: Value) -> None:
        """Writes one of this contract's own names."""
        ...

    def delete(self, key: tuple[Value, ...]) -> None:
        """Removes one of this contract's own names."""
        ...

    def call(self, contract: str, method: str, arguments: Value = ()) -> Value:
        """Calls another contract with the sender's rights; if it fails, so does everything.

        Args:
            arguments: the field values in declaration order, or an instance of a class declared in this file.
        """
        ...

    def emit(self, event: object) -> None:
        """Adds an instance of a class declared with `@contract.event` to the receipt."""
        ...

    def at(self, time_ms: int, method: str, arguments: Value = ()) -> bytes:
        """Sets a timer: the method runs at the first block at or past that time, later than this block.

        Returns:
            The timer's id, 32 bytes.
        """
        ...

    def check_public_key(self, key: bytes) -> None:
        """Fails with `key.small_order` or `key.not_canonical` unless the key may be registered."""
        ...

    def schedule(self, contract: str, version: int, code_hash: bytes, height: int) -> None:
        """Switches a contract to another version at a height; only the contract named `governance` may.

        A node without that code stops at that height. The present version takes a coming switch back.
        """
        ...


class Contract:
    """Declares a contract: its name, its version, and by decorators which functions are published.

    Example:
        >>> contract = Contract("counter", version=1)
        >>> contract.name, contract.version
        ('counter', 1)
    """

    __slots__ = ("name", "version")

    def __init__(self, name: str, *, version: int) -> None:
        self.name = name
        self.version = version

    @overload
    def method(self, function: Function, /) -> Function: ...
    @overload
    def method(self, /, *, urgent: bool = ..., claimable: Lane = ...) -> Callable[[Function], Function]: ...
    def method(
        self, function: Any = None, /, *, urgent: bool = False, claimable: Lane = "routine"
    ) -> Any:
        """Publishes a function to transactions and to other contracts.

        Args:
            urgent: its transactions go by the urgent lane whatever they claim.
            claimable: the fastest lane a transaction may claim; a faster claim is lowered to it.
        """
        return _unchanged if function is None else function

    def view(self, function: Function, /) -> Function:
        """Publishes a function that only reads."""
        return function

    def timer(self, function: Function, /) -> Function:
        """Marks a function that only a timer set by this contract may run."""
        return function

    def genesis(self, function: Function, /) -> Function:
        """Marks the function that writes this contract's first state."""
        return function

    def migration(self, *, from_version: int) -> Callable[[Function], Function]:
        """Marks the function that brings the state of an older version to this one, run once at the switch."""
        return _unchanged

    def event(self, declared: Declared, /) -> Declared:
        """Declares a class whose instances may be emitted."""
        return declared


def _unchanged(function: Function) -> Function:
    return function


@dataclass(frozen=True, slots=True)
class BlockContext:
    """The block a call runs in; time is block time, never the clock."""

    chain_id: str
    height: int
    time_ms: int


class Event(NamedTuple):
    """What a contract said, in its receipt: the declared class and its field values in order."""

    contract: str
    name: str
    values: tuple[object, ...]


class Outcome(NamedTuple):
    """What became of one call: code 0 when applied, else a stable text code and nothing written."""

    code: int | str
    work: int
    write_count: int
    events: tuple[Event, ...]


class StateView(Protocol):
    """The part of `ehrfast._core.StateView` that execution uses; its readable twin in the tests has it too."""

    def begin(self, salt: bytes) -> None: ...
    def get(self, contract: str, key: object) -> object: ...
    def put(self, contract: str, key: object, value: object) -> None: ...
    def delete(self, contract: str, key: object) -> None: ...
    def accept(self) -> int: ...
    def drop_frame(self) -> None: ...


class Transaction(Protocol):
    """The part of `ehrfast._core.Transaction` that execution uses."""

    @property
    def id(self) -> bytes: ...
    @property
    def sender(self) -> bytes: ...
    @property
    def contract(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def lane(self) -> int: ...
    @property
    def salt(self) -> bytes: ...
    @property
    def attachments(self) -> Sequence[tuple[bytes, bytes]]: ...
    @property
    def args(self) -> Any: ...
    def __len__(self) -> int: ...
