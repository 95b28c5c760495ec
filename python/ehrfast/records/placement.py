"""Placement: which sealed items stand in the block log and which lie beside it as blobs; chosen before signing.

By type, then by size, then largest first until the rest fits the frame. Wraps and manifests never leave the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ehrfast._core import split_resources
from ehrfast.errors import InvalidInputError

CHAIN: Final = 0
BLOB: Final = 1
OFF_CHAIN_TYPES: Final = (
    "Account",
    "Appointment",
    "Communication",
    "Coverage",
    "Schedule",
    "Slot",
    "Task",
)
"""What is kept for running a house rather than for treating a patient."""
ITEM_BYTES: Final = 64 * 1024
INLINE_BYTES: Final = 4 * 1024 * 1024
"""Of one transaction's packs in the log of a node by itself."""
CLUSTER_INLINE_BYTES: Final = 160 * 1024
"""The same where an engine carries them between nodes."""
MAX_RESOURCE_BYTES: Final = 16 * 1024 * 1024
MAX_BINARY_BYTES: Final = 2 * 1024 * 1024 * 1024


def require_types(names: Iterable[str]) -> None:
    """Returns when every name is a resource type of FHIR R4.

    Raises:
        InvalidInputError: ``fhir.unknown_type``.
    """
    for name in names:
        if not name.isalpha():
            raise InvalidInputError("fhir.unknown_type")
        split_resources(f'{{"resourceType":"{name}"}}'.encode())


@dataclass(frozen=True, slots=True)
class Placement:
    """Where sealed items go.

    Args:
        off_chain: FHIR types that are always blobs.
        item_bytes: a larger item is a blob whatever its type.
        inline_bytes: items and wraps of one transaction that stay in the log.
    """

    off_chain: frozenset[str] = frozenset(OFF_CHAIN_TYPES)
    item_bytes: int = ITEM_BYTES
    inline_bytes: int = INLINE_BYTES

    @staticmethod
    def of(overrides: dict[str, str], *, inline_bytes: int = INLINE_BYTES) -> Placement:
        """The default table with some types placed otherwise.

        Args:
            overrides: FHIR type to ``chain`` or ``blob``.

        Raises:
            InvalidInputError: ``placement.unknown_place``.
        """
        if not set(overrides.values()) <= {"chain", "blob"}:
            raise InvalidInputError("placement.unknown_place", {"known": ["blob", "chain"]})
        kept = {name for name in OFF_CHAIN_TYPES if overrides.get(name) != "chain"}
        moved = {name for name, place in overrides.items() if place == "blob"}
        return Placement(frozenset(kept | moved), inline_bytes=inline_bytes)

    def choose(self, types: Sequence[str], sizes: Sequence[int], other_bytes: int) -> list[int]:
        """Positions of the items that become blobs, ascending.

        Args:
            types: FHIR type of each record.
            sizes: bytes of each sealed item.
            other_bytes: what stays in the log beside them: wraps and manifests.
        """
        chosen = {
            position
            for position, (name, size) in enumerate(zip(types, sizes, strict=True))
            if name in self.off_chain or size > self.item_bytes
        }
        left = other_bytes + sum(size for position, size in enumerate(sizes) if position not in chosen)
        if left > self.inline_bytes:
            for position in sorted(range(len(sizes)), key=lambda at: (-sizes[at], at)):
                if left <= self.inline_bytes:
                    break
                if position not in chosen:
                    chosen.add(position)
                    left -= sizes[position]
        return sorted(chosen)
