"""Signing contract calls for the keys this organisation holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from ehrfast._core import SealedPack, SigningKey, Transaction, sign_transaction
from ehrfast.chain.chain import Chain
from ehrfast.consensus.lanes import ROUTINE

EXPIRES_AFTER_MS: Final = 55 * 60 * 1000
"""Five minutes below the replay window, so clocks may differ a little."""


def sign_call(
    chain: Chain,
    key: SigningKey,
    contract: str,
    method: str,
    arguments: object,
    *,
    numbered: bool = False,
    packs: Sequence[SealedPack] = (),
    lane: int = ROUTINE,
) -> Transaction:
    """A signed transaction that calls a contract method.

    Args:
        arguments: the method's argument dataclass, or a mapping of its field names.
        numbered: they are already the numbered map a transaction carries, and are first checked when the call runs.
        packs: sealed packs it attaches, in order.
    """
    if not numbered:
        arguments = chain.runtime.encode_arguments(contract, method, arguments)
    return sign_transaction(
        key,
        chain.chain_id,
        contract,
        method,
        cast("Mapping[int, object]", arguments),
        lane=lane,
        expires=chain.clock.judging_ms(chain.published.time_ms) + EXPIRES_AFTER_MS,
        attachments=[(pack.root, pack.wraps_root) for pack in packs],
    )
