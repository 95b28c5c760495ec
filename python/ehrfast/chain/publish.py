"""Publication: what is durable becomes visible. Before: a synced block. After: a signed checkpoint and a readable
state.

The checkpoint is signed only here, after the sync of its block, and stands in its slot before anybody is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ehrfast._core import Block, CheckpointFile, Log, SigningKey, StateDb, Trie
from ehrfast.model.checkpoint import Checkpoint, sign_checkpoint


@dataclass(frozen=True, slots=True)
class Published:
    """The newest state anyone may read, and the checkpoint that commits to it.

    Args:
        height: of the newest block.
        tree_size: leaves in the log, the block leaf being the last.
        time_ms: block time.
        block_leaf: the last leaf, as bytes.
        trie: the state trie after the block.
        note: the signed checkpoint.
    """

    chain_id: str
    height: int
    engine_height: int
    tree_size: int
    time_ms: int
    log_root: bytes
    state_root: bytes
    block_leaf: bytes = field(repr=False)
    trie: Trie = field(repr=False)
    note: bytes = field(repr=False)


def publish(
    block: Block, trie: Trie, *, log: Log, state: StateDb, signer: SigningKey, slots: CheckpointFile
) -> Published:
    """Feeds the state database, lets trie and log rest on it, and signs the checkpoint.

    The slot is written without a sync of its own: it only ever names a block that is already durable, so a lost slot
    is signed again at open, and a kept one can never name a lost block.
    """
    state.publish(block, trie, log)
    note = sign_checkpoint(Checkpoint(block.chain_id, block.tree_size, block.log_root), signer)
    slots.write(note, sync=False)
    return Published(
        chain_id=block.chain_id,
        height=block.height,
        engine_height=block.engine_height,
        tree_size=block.tree_size,
        time_ms=block.time_ms,
        log_root=block.log_root,
        state_root=block.state_root,
        block_leaf=block.leaf,
        trie=trie,
        note=note,
    )
