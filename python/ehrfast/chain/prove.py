"""Proof: evidence for the last published checkpoint. Before: a published state. After: a text anyone can check
offline."""

from __future__ import annotations

from collections.abc import Sequence

from ehrfast._core import Log, StateDb, state_path
from ehrfast.chain.publish import Published
from ehrfast.model.proof import Evidence, StateRow, build_evidence


def prove(
    keys: Sequence[tuple[str, tuple[object, ...]]],
    *,
    published: Published,
    log: Log,
    state: StateDb,
    note: bytes,
    opening_key: bytes | None = None,
) -> Evidence:
    """Proves the presence, or the absence, of state values.

    Args:
        keys: (contract, key) of each value.
        published: the version to prove; `state` must be at its height.
        note: the checkpoint, with whatever cosignatures are there.
        opening_key: discloses the record; None proves without disclosing.
    """
    rows = []
    for contract, key in keys:
        path = state_path(contract, key)
        rows.append(StateRow(contract, key, state.get(path), published.trie.prove(path)))
    index = published.tree_size - 1
    return build_evidence(
        block_leaf=published.block_leaf,
        index=index,
        inclusion=log.prove_inclusion(index, published.tree_size),
        checkpoint=note,
        rows=rows,
        opening_key=opening_key,
    )
