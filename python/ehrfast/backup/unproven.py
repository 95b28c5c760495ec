"""The mark of a restored folder: until a checkpoint from outside matches its head, it is for reading only.

Refuses an older head than a witness knows. Owns the file ``restored.json`` and the two ways to take it away: a witness
cosigns the head, so that no other copy can go on from an older one, or the operator shows the newest checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ehrfast.errors import ConflictError, CorruptionError, EhrfastError, NotFoundError
from ehrfast.model.ask_witness import WitnessAddress, request_cosignature
from ehrfast.model.checkpoint import open_checkpoint
from ehrfast.model.durable import write_synced

MARK: Final = "restored.json"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain of the folder ends.

    Args:
        note: its signed checkpoint there.
        vkey: the verifier key of that checkpoint.
        prove_consistency: of its log.
    """

    note: bytes
    vkey: str
    prove_consistency: Callable[[int, int], Sequence[bytes]]


def mark(folder: Path, sequence: int) -> None:
    """Marks a folder as restored out of the backup of that sequence."""
    value = {"format": _FORMAT, "backup": sequence}
    write_synced(folder / MARK, json.dumps(value).encode(), 0o600)


def require_unmarked(folder: Path) -> None:
    """Returns when the folder may be written.

    Raises:
        ConflictError: ``node.restored``.
    """
    if (folder / MARK).exists():
        raise ConflictError("node.restored", {"folder": str(folder)})


def unmark(folder: Path) -> None:
    """Takes the mark away."""
    (folder / MARK).unlink(missing_ok=True)


def ask_witnesses(heads: Iterable[Head], witnesses: Iterable[WitnessAddress]) -> dict[str, str | None]:
    """Shows every head to every witness; gives what each said by name: None where it cosigned all, else a code.

    Raises:
        CorruptionError: ``log.shorter_than_witnessed``, ``log.not_the_witnessed``: this is an older or another history.
    """
    listed = list(heads)
    said: dict[str, str | None] = {}
    for address in witnesses:
        name = address.key.name
        said[name] = None
        for head in listed:
            try:
                request_cosignature(address.url, address.vkey, 0, head.prove_consistency, head.note)
            except ConflictError as error:
                code = "log.shorter_than_witnessed" if error.code == "witness.ahead" else "log.not_the_witnessed"
                raise CorruptionError(code, {**error.details, "witness": name}) from None
            except EhrfastError as error:
                said[name] = error.code
    return said


def match_checkpoint(heads: Iterable[Head], note: bytes) -> None:
    """Returns when the operator's checkpoint is the head of one chain.

    Raises:
        ConflictError: ``checkpoint.not_the_head``: of another size, so something is missing here, or there.
        CorruptionError: ``log.not_the_checkpoint``.
        NotFoundError: ``checkpoint.other_log``.
    """
    for head in heads:
        try:
            asked = open_checkpoint(note, head.vkey)
        except EhrfastError:
            continue
        own = open_checkpoint(head.note, head.vkey)
        if asked.tree_size != own.tree_size:
            raise ConflictError("checkpoint.not_the_head", {"given": asked.tree_size, "tree_size": own.tree_size})
        if asked.root != own.root:
            raise CorruptionError("log.not_the_checkpoint", {"tree_size": own.tree_size})
        return
    raise NotFoundError("checkpoint.other_log")
