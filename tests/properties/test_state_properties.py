"""StateView and WriteSet against the twin in plain dictionaries, over random calls, frames and blocks."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import pytest
from ehrfast._core import StateView, WriteSet, state_path
from ehrfast.errors import ConflictError, InvalidInputError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.reference import state as twin
from tests.reference import trie as twin_trie
from tests.reference.cbor import encode

KEYS = st.sampled_from([("a", 1), ("a", 2), ("b", b"\x01" * 16), ("b", b"\x02" * 16)])
CONTRACTS = st.sampled_from(["records", "identity"])
SALTS = st.sampled_from([b"\x01" * 16, b"\x02" * 16, b"\x03" * 32])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20) | st.text("aé日", max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.integers(-3, 3), inner, max_size=3),
    max_leaves=6,
) | st.sampled_from([1, 2])


class Blocks(RuleBasedStateMachine):
    """The same calls to both views, which must see and write the same."""

    @initialize()
    def start(self) -> None:
        self.view, self.twin = StateView(None), twin.StateView()
        self.depth = 0

    @precondition(lambda self: self.depth < 8)
    @rule(salt=SALTS)
    def begin(self, salt: bytes) -> None:
        self.view.begin(salt)
        self.twin.begin(salt)
        self.depth += 1

    @precondition(lambda self: self.depth)
    @rule(contract=CONTRACTS, key=KEYS, value=VALUES)
    def put(self, contract: str, key: object, value: object) -> None:
        self.view.put(contract, key, value)
        self.twin.put(contract, key, value)

    @precondition(lambda self: self.depth)
    @rule(contract=CONTRACTS, key=KEYS)
    def delete(self, contract: str, key: object) -> None:
        self.view.delete(contract, key)
        self.twin.delete(contract, key)

    @precondition(lambda self: self.depth)
    @rule()
    def accept(self) -> None:
        assert self.view.accept() == self.twin.accept()
        self.depth -= 1

    @precondition(lambda self: self.depth)
    @rule()
    def drop(self) -> None:
        self.view.drop_frame()
        self.twin.drop_frame()
        self.depth -= 1

    @precondition(lambda self: not self.depth)
    @rule()
    def next_block(self) -> None:
        self.view, self.twin = StateView(None, self.view), twin.StateView(None, self.twin)

    @rule(contract=CONTRACTS, key=KEYS)
    def read(self, contract: str, key: object) -> None:
        value = self.view.get(contract, key)
        assert value == self.twin.get(contract, key)
        assert not isinstance(value, (list, dict))
        assert self.view.get_bytes(contract, key) == self.twin.get_bytes(contract, key)

    @invariant()
    def same_writes(self) -> None:
        assert self.view.depth == self.depth
        if not self.depth:
            writes = self.view.write_set()
            assert list(writes.items()) == self.twin.write_set()
            assert list(WriteSet.decode(writes.encode()).items()) == self.twin.write_set()


TestBlocks = Blocks.TestCase
TestBlocks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(CONTRACTS, VALUES)
def test_paths_equal_the_twin(contract: str, key: object) -> None:
    assert state_path(contract, key) == twin.state_path(contract, key)


def test_values_come_back_immutable() -> None:
    view = StateView(None)
    view.begin(b"\x01" * 16)
    view.put("toy", ("list",), [1, [2, {3: b"x"}]])
    value = view.get("toy", ("list",))
    assert value == (1, (2, MappingProxyType({3: b"x"})))
    assert isinstance(value, tuple)


def test_misuse_is_named() -> None:
    view = StateView(None)
    key = ("k",)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: view.put("toy", key, 1), "state.no_frame"),
        (lambda: view.delete("toy", key), "state.no_frame"),
        (lambda: view.accept(), "state.no_frame"),
        (lambda: view.drop_frame(), "state.no_frame"),
        (lambda: view.begin(b"\x00" * 15), "state.salt_length"),
        (lambda: view.get("", key), "state.contract_length"),
        (lambda: view.get("c" * 65, key), "state.contract_length"),
        (lambda: view.get("cafe\u0301", key), "state.contract_name"),
        (lambda: view.get("toy", b"k" * 1024), "state.key_too_large"),
        (lambda: view.get("toy", 1.5), "cbor.unsupported"),
    ]
    for call, code in refused:
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert caught.value.code == code
    for _ in range(8):
        view.begin(b"\x00" * 16)
    with pytest.raises(InvalidInputError, match=r"state\.too_deep"):
        view.begin(b"\x00" * 16)
    with pytest.raises(InvalidInputError, match=r"state\.open_frames"):
        view.write_set()
    with pytest.raises(InvalidInputError, match=r"state\.open_frames"):
        StateView(None, view)
    with pytest.raises(InvalidInputError, match=r"state\.value_length"):
        view.put("toy", key, b"v" * 65536)
    for _ in range(8):
        view.drop_frame()
    StateView(None, view)
    with pytest.raises(ConflictError, match=r"state\.sealed"):
        view.begin(b"\x00" * 16)


@given(st.data())
def test_only_the_encoding_of_a_write_set_is_one(data: st.DataObject) -> None:
    writes = twin_trie.generated_writes(data.draw(st.integers(0, 400)))
    encoded = encode((1, writes))
    assert list(WriteSet.decode(encoded).items()) == writes
    assert WriteSet.decode(encoded).encode() == encoded
    at = data.draw(st.integers(0, 8 * len(encoded) - 1))
    flipped = bytearray(encoded)
    flipped[at // 8] ^= 1 << at % 8
    try:
        other = WriteSet.decode(bytes(flipped))
    except InvalidInputError:
        return
    assert other.encode() == flipped
    assert list(other.items()) != writes


def test_a_write_set_is_ascending_and_every_value_has_room_for_its_blind() -> None:
    low, high = b"\x01" * 32, b"\x02" * 32
    for writes, code in [
        ([(high, None), (low, None)], "write_set.order"),
        ([(low, None), (low, None)], "write_set.order"),
        ([(low, b"\x00" * 16)], "write_set.value_length"),
        ([(low, b"\x00" * (17 + 65536))], "write_set.value_length"),
    ]:
        with pytest.raises(InvalidInputError) as caught:
            WriteSet.decode(encode((1, writes)))
        assert caught.value.code == code
