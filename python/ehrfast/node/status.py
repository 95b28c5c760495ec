"""How a node stands, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Cosignature:
    """The newest checkpoint that a witness has cosigned.

    Args:
        witness: its name.
        tree_size: of that checkpoint.
        time: by the witness's clock.
    """

    witness: str
    tree_size: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """How a node stands."""

    chain_id: str
    height: int
    tree_size: int
    log_root: str
    state_root: str
    records: int
    bytes_on_disk: int
    verifier_key: str
    organisation: str
    organisation_name: str
    administrator: str
    gateway: str
    clock_behind_ms: int
    erasures: int
    holds: int
    state_rotation_due: bool
    cosignatures: tuple[Cosignature, ...]
