"""Which contracts a node has: the files of this package, what other packages name by entry point, or a given list.

Owns names, versions and code hashes; every source passes the guard here, before anything can run it.
A contract of this package is one file beside this one: it is found by being there.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from types import MappingProxyType, ModuleType
from typing import Final

from ehrfast.contracts.guard import Function, LoadedContract, load
from ehrfast.contracts.schema import Field, Mismatch
from ehrfast.errors import ConflictError, InvalidInputError, NotFoundError
from ehrfast.model.codec import cbor_encode

ENTRY_POINTS: Final = "ehrfast.contracts"
RESERVED_NAME: Final = "runtime"
_MACHINERY: Final = frozenset({"__init__", "contract", "guard", "meter", "registry", "runtime", "schema", "timers"})


@dataclass(frozen=True, slots=True)
class PublishedFunction:
    """A method or view as a route, a command and their help need it."""

    contract: str
    name: str
    doc: str
    fields: tuple[Field, ...]


class Registry:
    """The contracts a node can run, by name and version.

    Args:
        contracts: sources as bytes, modules, names of modules (found, not imported), or contracts already loaded.

    Example:
        >>> from ehrfast.contracts import Registry
        >>> "records" in Registry.default().names
        True
    """

    def __init__(self, contracts: Iterable[bytes | str | ModuleType | LoadedContract]) -> None:
        self._contracts: dict[tuple[str, int], LoadedContract] = {}
        for given in contracts:
            self._add(given if isinstance(given, LoadedContract) else _load(_source(given)))
        self._newest: dict[str, LoadedContract] = {}
        for (name, _), contract in sorted(self._contracts.items()):
            self._newest[name] = contract

    @staticmethod
    def default() -> Registry:
        """The contracts of this package and of every installed package that names one."""
        built_in = [
            item.read_bytes()
            for item in resources.files("ehrfast.contracts").iterdir()
            if item.name.endswith(".py") and item.name.removesuffix(".py") not in _MACHINERY
        ]
        return Registry([*built_in, *(point.module for point in metadata.entry_points(group=ENTRY_POINTS))])

    def _add(self, contract: LoadedContract) -> None:
        key = (contract.name, contract.version)
        held = self._contracts.setdefault(key, contract)
        if contract.name == RESERVED_NAME or held.code_hash != contract.code_hash:
            raise ConflictError("contract.name_taken", {"contract": contract.name, "version": contract.version})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all contracts, sorted."""
        return tuple(sorted(self._newest))

    @property
    def newest(self) -> Mapping[str, LoadedContract]:
        """The highest version held of each contract."""
        return MappingProxyType(self._newest)

    def find(self, name: str, version: int) -> LoadedContract | None:
        """One version of a contract, None when this node lacks it."""
        return self._contracts.get((name, version))

    def contract_set_hash(self) -> bytes:
        """SHA-256 over the CBOR of the sorted (name, version, code hash) that a genesis made here installs."""
        rows = tuple((name, held.version, held.code_hash) for name, held in sorted(self._newest.items()))
        return hashlib.sha256(cbor_encode(rows)).digest()

    def methods(self, contract: str) -> tuple[PublishedFunction, ...]:
        """The methods of the newest version, by name, with fields, types and docs.

        Raises:
            NotFoundError: `contract.unknown`.
        """
        return self._published(contract, self._of(contract).methods)

    def views(self, contract: str) -> tuple[PublishedFunction, ...]:
        """The published views of the newest version, by name.

        Raises:
            NotFoundError: `contract.unknown`.
        """
        return self._published(contract, self._of(contract).views)

    def encode_arguments(self, contract: str, method: str, arguments: object) -> Mapping[int, object]:
        """Field values as the numbered map a transaction carries.

        Args:
            arguments: an instance of the method's arguments class (imported from its file), or field names to values.

        Raises:
            NotFoundError: `contract.unknown`, `contract.unknown_method`.
            InvalidInputError: `contract.bad_arguments`.
        """
        function = self._of(contract).methods.get(method)
        if function is None:
            raise NotFoundError("contract.unknown_method", {"contract": contract, "method": method})
        try:
            return function.schema.numbered(arguments)
        except Mismatch:
            raise InvalidInputError("contract.bad_arguments", {"contract": contract, "method": method}) from None

    def lane(self, contract: str, method: str, claimed: int) -> int:
        """The lane a transaction gets: its claim, lowered to what the method allows, raised where it is urgent."""
        held = self._newest.get(contract)
        function = held.methods.get(method) if held else None
        if function is None:
            return 2
        lane = max(claimed, function.claimable)
        return min(lane, 1) if function.urgent else lane

    def _of(self, contract: str) -> LoadedContract:
        held = self._newest.get(contract)
        if held is None:
            raise NotFoundError("contract.unknown", {"contract": contract})
        return held

    def _published(self, contract: str, functions: Mapping[str, Function]) -> tuple[PublishedFunction, ...]:
        return tuple(
            PublishedFunction(contract, name, function.doc, function.schema.fields)
            for name, function in sorted(functions.items())
        )


@cache
def _load(source: bytes) -> LoadedContract:
    return load(source)


def _source(given: bytes | str | ModuleType) -> bytes:
    if isinstance(given, bytes):
        return given
    spec = given.__spec__ if isinstance(given, ModuleType) else importlib.util.find_spec(given)
    reader = getattr(spec.loader, "get_data", None) if spec else None
    if spec is None or spec.origin is None or reader is None:
        raise NotFoundError("contract.no_source", {"module": spec.name if spec else str(given)})
    try:
        source: bytes = reader(spec.origin)
    except OSError as error:
        raise NotFoundError("contract.no_source", {"module": spec.name}) from error
    return source


