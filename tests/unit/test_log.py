"""The binding of the log: what it refuses, and that threads may share it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ehrfast import _core
from ehrfast.errors import InvalidInputError, VerificationError


def test_a_question_beyond_the_log_names_both_sizes() -> None:
    log = _core.Log()
    log.append([b"a", b"b"])
    with pytest.raises(InvalidInputError) as refused:
        log.root(3)
    assert refused.value.code == "log.size_beyond_log"
    assert refused.value.details == {"asked": 3, "tree_size": 2}
    with pytest.raises(InvalidInputError, match=r"log\.index_out_of_range"):
        log.leaf_hash(2)
    with pytest.raises(InvalidInputError, match=r"log\.sizes_descend"):
        log.prove_consistency(2, 1)
    with pytest.raises(InvalidInputError, match=r"log\.size_beyond_log"):
        log.truncate(3)
    assert log.tree_size == 2


def test_hashes_come_in_whole() -> None:
    log = _core.Log()
    with pytest.raises(InvalidInputError, match=r"input\.wrong_length"):
        log.append_hashes(bytes(33))
    with pytest.raises(InvalidInputError, match=r"input\.not_contiguous"):
        log.append_hashes(np.zeros((4, 64), np.uint8)[:, ::2])
    with pytest.raises(TypeError):
        log.append([b"bytes", "text"])  # type: ignore[list-item]
    assert log.tree_size == 0


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        ((2, 1, bytes(32), bytes(32), []), "proof.sizes_descend"),
        ((0, 1, bytes(32), bytes(32), []), "proof.from_empty"),
        ((0, 0, bytes(32), bytes(32), []), "proof.from_empty"),
        ((1, 2, bytes(32), bytes(32), []), "proof.wrong_length"),
        ((2, 2, bytes(32), bytes(32), [bytes(32)]), "proof.wrong_length"),
        ((2, 2, bytes(32), b"1" * 32, []), "proof.root_mismatch"),
        ((2, 2, bytes(31), bytes(31), []), "proof.hash_length"),
        ((3, 4, bytes(32), bytes(32), [bytes(32)] * 3), "proof.old_root_mismatch"),
    ],
)
def test_a_consistency_proof_is_refused_by_name(claim: tuple[int, int, bytes, bytes, list[bytes]], code: str) -> None:
    with pytest.raises(VerificationError) as refused:
        _core.verify_consistency(*claim)
    assert refused.value.code == code


def test_readers_beside_an_appender_see_whole_appends() -> None:
    batches = [[b"%d" % (batch * 700 + i) for i in range(700)] for batch in range(30)]
    expected = _core.Log()
    sizes = {0: expected.root()}
    for batch in batches:
        expected.append(batch)
        sizes[expected.tree_size] = expected.root()
    log = _core.Log()

    def read() -> int:
        seen = 0
        while (tree_size := log.tree_size) < 21_000:
            assert sizes[tree_size] == log.root(tree_size)
            seen += 1
        return seen

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(3)]
        for batch in batches:
            log.append(batch)
        assert all(reader.result() >= 0 for reader in readers)
    assert log.root() == expected.root()
