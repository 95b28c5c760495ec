"""Assembly: leaves, state root and block leaf of an executed batch. Before: receipts and a write set. After: a block.

Runs in Rust without the GIL. The log grows here in memory only; whoever abandons the block truncates it again.
"""

from __future__ import annotations

from ehrfast._core import Block, Log, Trie, WriteSet
from ehrfast._core import assemble as assemble_block
from ehrfast.chain.execute import Execution
from ehrfast.consensus.engine import Batch


def assemble(
    execution: Execution, batch: Batch, writes: WriteSet, *, log: Log, trie: Trie, chain_id: str, height: int
) -> tuple[Block, Trie]:
    """Builds the block and the trie version after it.

    Args:
        writes: what the executed calls leave behind, last write per key.
        log: the chain's log, at the end of the block before.
        trie: the version after the block before, published or not.

    Raises:
        InvalidInputError: ``pack.root_mismatch`` when packs and attachments disagree.
    """
    return assemble_block(
        log,
        trie,
        chain_id=chain_id,
        height=height,
        engine_height=batch.engine_height,
        time_ms=batch.time_ms,
        proposer=batch.proposer,
        entries=execution.entries,
        writes=writes,
        packs=execution.packs,
    )
