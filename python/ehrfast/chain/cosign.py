"""Cosigning: witnesses are shown the newest checkpoint. Before: a published checkpoint. After: kept cosignatures.

One thread and one request under way for each witness, none of them of the pipeline, and never an older checkpoint
after a newer one. A cosignature is on disk before anybody is told. A witness that is down changes nothing; one that has
seen another history than this log ends the writing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

from ehrfast.errors import CorruptionError, EhrfastError, UnavailableError, VerificationError
from ehrfast.model.ask_witness import WitnessAddress, request_cosignature
from ehrfast.model.checkpoint import (
    Checkpoint,
    Note,
    VerifierKey,
    add_signatures,
    verify_cosignature,
)
from ehrfast.model.durable import write_synced
from ehrfast.model.key_history import KeyHistory

FILE: Final = "cosignatures"
FORMAT: Final = 1
_KEPT_SIGNATURES: Final = 2
"""The log's and the witness's: a third would be ignored as of an unknown key, and so would a change of it."""
PAUSE_S: Final = 1.0
"""Between two requests that nobody waits for: a witness syncs for each, and a busy node makes many checkpoints."""
LONGEST_BACK_OFF_S: Final = 300.0
REQUEST_S: Final = 5.0
OPENING_S: Final = 3.0
PROVING_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The newest checkpoint a witness has cosigned.

    Args:
        vkey: of the witness.
        note: the checkpoint with the log's signature and this witness's.
        checkpoint: what the note says.
        time: when it was cosigned, by the witness's clock.
    """

    vkey: str
    note: bytes = field(repr=False)
    checkpoint: Checkpoint
    time: datetime

    @property
    def line(self) -> str:
        """The witness's signature line."""
        key = VerifierKey.decode(self.vkey)
        signatures = Note.parse(self.note).signatures
        return next(each.render() for each in signatures if (each.name, each.key_id) == (key.name, key.key_id))


@dataclass(frozen=True, slots=True)
class WitnessState:
    """How a witness stands to this log.

    Args:
        name: how it signs.
        tree_size, time: of the newest checkpoint it has cosigned, None before the first.
        failure: code of the last request's failure, None when it was answered or none was made.
    """

    url: str
    vkey: str
    name: str
    tree_size: int | None
    time: datetime | None
    failure: str | None


def load_cosigned(folder: Path, history: KeyHistory) -> dict[str, Cosigned]:
    """What witnesses had cosigned when it was last kept, by their keys; every signature is verified again.

    Raises:
        CorruptionError: ``cosignatures.damaged``.
    """
    try:
        kept = (folder / FILE).read_bytes()
        value = json.loads(kept)
        if value["format"] != FORMAT or render_cosigned(value["notes"]) != kept:
            raise ValueError
        kept_notes = {vkey: note.encode() for vkey, note in value["notes"].items()}
        if any(len(Note.parse(note).signatures) != _KEPT_SIGNATURES for note in kept_notes.values()):
            raise ValueError
        return {vkey: _opened(vkey, note, history) for vkey, note in kept_notes.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, VerificationError):
        raise CorruptionError("cosignatures.damaged", {"file": FILE}) from None


def render_cosigned(notes: Mapping[str, str]) -> bytes:
    """The file's one spelling, from each witness's key and the note with its line."""
    return (json.dumps({"format": FORMAT, "notes": notes}, indent=1, ensure_ascii=False) + "\n").encode()


def _opened(vkey: str, note: bytes, history: KeyHistory) -> Cosigned:
    checkpoint = history.open_checkpoint(note, witnesses=[vkey], quorum=1)
    return Cosigned(vkey, note, checkpoint, datetime.fromtimestamp(verify_cosignature(note, vkey), tz=UTC))


@dataclass(slots=True)
class _Followed:
    """One witness, and when it may be asked again; guarded by the cosigner's condition."""

    address: WitnessAddress
    key: VerifierKey
    asked_size: int = -1
    answered: bool = False
    failure: str | None = None
    failures: int = 0
    retry_at: float = 0.0
    rested_at: float = 0.0
    dropped: bool = False
    thread: threading.Thread | None = None


@dataclass(slots=True)
class _Wanted:
    """A checkpoint that somebody waits for, the lines got for it, and which witnesses will not give theirs now."""

    note: bytes
    waiting: int = 0
    lines: dict[str, str] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)


class Cosigner:
    """Asks witnesses and keeps what they sign.

    Args:
        folder: of the chain.
        history: the keys the log has had.
        note: its newest checkpoint.
        prove_consistency: of the log.
        known: what `load_cosigned` gave.
        following: whether witnesses are asked at all; beside a writer they are not.
    """

    def __init__(
        self,
        folder: Path,
        *,
        history: KeyHistory,
        note: bytes,
        prove_consistency: Callable[[int, int], Sequence[bytes]],
        known: dict[str, Cosigned],
        witnesses: Iterable[WitnessAddress] = (),
        following: bool = True,
    ) -> None:
        self._folder = folder
        self._history = history
        self._prove_consistency = prove_consistency
        self._known = dict(known)
        self._following = following
        self._newest = note
        self._newest_size = _checkpoint_of(note).tree_size
        self._changed = threading.Condition()
        self._keeping = threading.Lock()
        self._followed: dict[str, _Followed] = {}
        self._wanted: dict[int, _Wanted] = {}
        self._contradiction: CorruptionError | None = None
        self._cosigned: Callable[[bytes, Sequence[str]], None] | None = None
        self._contradicted: Callable[[BaseException], None] | None = None
        self._stopping = False
        for address in witnesses:
            self.add(address)

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, address: WitnessAddress) -> None:
        """Follows one more witness, or the same one at another address."""
        self.remove(address.vkey)
        followed = _Followed(address, address.key, answered=not self._following)
        with self._changed:
            self._followed[address.vkey] = followed
        if self._following:
            thread = threading.Thread(target=self._follow, args=(followed,), name="ehrfast-cosign", daemon=True)
            followed.thread = thread
            thread.start()

    def remove(self, vkey: str) -> None:
        """Asks a witness no more; what it has signed is kept."""
        with self._changed:
            dropped = self._followed.pop(vkey, None)
            if dropped is None:
                return
            dropped.dropped = True
            self._changed.notify_all()
        if dropped.thread is not None:
            dropped.thread.join()

    def wait_answered(self) -> None:
        """Returns once every witness has answered or failed, or after `OPENING_S`.

        Raises:
            CorruptionError: ``log.shorter_than_witnessed`` or ``log.not_the_witnessed``.
        """
        deadline = monotonic() + OPENING_S
        with self._changed:
            while self._contradiction is None and not all(each.answered for each in self._followed.values()):
                left = deadline - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if self._contradiction is not None:
                raise self._contradiction

    def attach(
        self, cosigned: Callable[[bytes, Sequence[str]], None], contradicted: Callable[[BaseException], None]
    ) -> None:
        """Says who is told of signature lines for a checkpoint, and of a witness that has seen another history."""
        with self._changed:
            self._cosigned, self._contradicted = cosigned, contradicted
            known, contradiction, newest = list(self._known.values()), self._contradiction, self._newest
        for each in known:
            if each.note.startswith(newest):
                cosigned(newest, [each.line])
        if contradiction is not None:
            contradicted(contradiction)

    def show(self, note: bytes, tree_size: int) -> None:
        """The log's newest checkpoint; cheap, for a pipeline thread."""
        with self._changed:
            self._newest, self._newest_size = note, tree_size
            self._changed.notify_all()

    def follow_key(self, history: KeyHistory, note: bytes) -> None:
        """The log signs with another key from now on; its newest checkpoint stands under that one too."""
        with self._changed:
            self._history, self._newest = history, note

    def stop(self) -> None:
        """Shows the last checkpoint to every witness that answers, then ends; a request takes some seconds at most."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            threads = [each.thread for each in self._followed.values() if each.thread is not None]
        for thread in threads:
            thread.join()

    # ── asking for one checkpoint ───────────────────────────────────────────────────────────────────────────────

    def want(self, note: bytes, tree_size: int, *, quorum: int | None) -> None:
        """Announces somebody who will `collect` for a checkpoint, which must be the newest one at this moment."""
        with self._changed:
            wanted = self._wanted.setdefault(tree_size, _Wanted(note))
            wanted.waiting += 1
            for vkey, known in self._known.items():
                if known.checkpoint.tree_size == tree_size:
                    wanted.lines[vkey] = known.line
            for vkey, followed in self._followed.items():
                if not self._following or (quorum is None and followed.failure is not None):
                    wanted.tried.add(vkey)
                elif followed.failure is not None:
                    wanted.tried.discard(vkey)
                    followed.retry_at = 0.0
            self._changed.notify_all()

    def collect(self, tree_size: int, *, quorum: int | None, timeout: float = PROVING_S) -> list[str]:
        """The signature lines for a checkpoint that is wanted.

        Args:
            quorum: how many are needed; by default whatever the witnesses that can be reached give.

        Raises:
            UnavailableError: ``checkpoint.quorum_missed``: fewer have cosigned in time.
        """
        deadline = monotonic() + timeout
        with self._changed:
            wanted = self._wanted[tree_size]
            try:
                while (left := deadline - monotonic()) > 0 and self._may_get_more(wanted, quorum):
                    self._changed.wait(left)
            finally:
                wanted.waiting -= 1
                if not wanted.waiting:
                    del self._wanted[tree_size]
            lines = list(wanted.lines.values())
        if quorum is not None and len(lines) < quorum:
            raise UnavailableError("checkpoint.quorum_missed", {"cosignatures": len(lines), "quorum": quorum})
        return lines

    def _may_get_more(self, wanted: _Wanted, quorum: int | None) -> bool:
        if self._stopping or self._contradiction is not None or (quorum is not None and len(wanted.lines) >= quorum):
            return False
        return bool(self._followed.keys() - wanted.lines.keys() - wanted.tried)

    # ── how it stands ───────────────────────────────────────────────────────────────────────────────────────────

    def cosigned(self) -> list[Cosigned]:
        """The newest checkpoint each witness has cosigned, larger trees first."""
        with self._changed:
            known = list(self._known.values())
        return sorted(known, key=lambda each: (-each.checkpoint.tree_size, each.vkey))

    def states(self) -> list[WitnessState]:
        """How every witness stands, in the order they were named."""
        with self._changed:
            return [self._state_of(followed) for followed in self._followed.values()]

    def _state_of(self, followed: _Followed) -> WitnessState:
        known = self._known.get(followed.address.vkey)
        return WitnessState(
            url=followed.address.url,
            vkey=followed.address.vkey,
            name=followed.key.name,
            tree_size=None if known is None else known.checkpoint.tree_size,
            time=None if known is None else known.time,
            failure=followed.failure,
        )

    # ── a witness's own thread ──────────────────────────────────────────────────────────────────────────────────

    def _follow(self, followed: _Followed) -> None:
        while (target := self._await_target(followed)) is not None:
            note, tree_size = target
            try:
                self._ask(followed, note, tree_size)
            except EhrfastError as error:
                self._note_failure(followed, error)
            except OSError:
                self._note_failure(followed, UnavailableError("cosignatures.not_written"))

    def _await_target(self, followed: _Followed) -> tuple[bytes, int] | None:
        """The checkpoint to ask for next, as soon as it may be asked; None when this witness is not followed longer."""
        with self._changed:
            while not (followed.dropped or self._contradiction is not None):
                target, due = self._target(followed)
                if self._stopping and (target is None or followed.failure is not None):
                    return None
                wait = None if target is None else due - monotonic()
                if target is not None and (self._stopping or (wait is not None and wait <= 0)):
                    followed.asked_size = max(followed.asked_size, target[1])
                    return target
                self._changed.wait(wait)
            return None

    def _target(self, followed: _Followed) -> tuple[tuple[bytes, int] | None, float]:
        vkey = followed.address.vkey
        for size in sorted(self._wanted):
            wanted = self._wanted[size]
            if size >= followed.asked_size and vkey not in wanted.lines and vkey not in wanted.tried:
                return (wanted.note, size), followed.retry_at
        if not followed.answered or self._known_size(followed) < self._newest_size:
            return (self._newest, self._newest_size), max(followed.retry_at, followed.rested_at)
        return None, 0.0

    def _ask(self, followed: _Followed, note: bytes, tree_size: int) -> None:
        address, key = followed.address, followed.key
        line = request_cosignature(
            address.url, key, self._known_size(followed), self._prove_consistency, note, timeout=REQUEST_S
        )
        self._keep(_opened(address.vkey, add_signatures(note, [line]), self._history))
        with self._changed:
            followed.answered, followed.failure, followed.failures = True, None, 0
            followed.retry_at, followed.rested_at = 0.0, monotonic() + PAUSE_S
            if tree_size in self._wanted:
                self._wanted[tree_size].lines[address.vkey] = line
            told = self._cosigned
            self._changed.notify_all()
        if told is not None:
            told(note, [line])

    def _keep(self, cosigned: Cosigned) -> None:
        with self._keeping:
            known = {**self._known, cosigned.vkey: cosigned}
            notes = {vkey: each.note.decode() for vkey, each in known.items()}
            write_synced(self._folder / FILE, render_cosigned(notes), 0o644)
            with self._changed:
                self._known = known

    def _note_failure(self, followed: _Followed, error: EhrfastError) -> None:
        with self._changed:
            followed.answered, followed.failure = True, error.code
            followed.failures += 1
            followed.retry_at = monotonic() + min(2.0 ** min(followed.failures - 1, 16), LONGEST_BACK_OFF_S)
            for wanted in self._wanted.values():
                wanted.tried.add(followed.address.vkey)
            found = None if self._contradiction is not None else self._contradiction_in(followed, error)
            self._contradiction = self._contradiction or found
            told = self._contradicted
            self._changed.notify_all()
        if found is not None and told is not None:
            told(found)

    def _contradiction_in(self, followed: _Followed, error: EhrfastError) -> CorruptionError | None:
        """What a refusal says about this log: it lost what the witness has seen, or it has become another one."""
        witness = followed.key.name
        match error.code:
            case "witness.ahead":
                known = error.details["witness_size"]
                if isinstance(known, int) and known > self._newest_size:
                    details = {"witness": witness, "known": known, "found": self._newest_size}
                    return CorruptionError("log.shorter_than_witnessed", details)
            case "witness.fork" | "witness.proof_refused":
                return CorruptionError("log.not_the_witnessed", {"witness": witness, "tree_size": self._newest_size})
        return None

    def _known_size(self, followed: _Followed) -> int:
        known = self._known.get(followed.address.vkey)
        return 0 if known is None else known.checkpoint.tree_size


def _checkpoint_of(note: bytes) -> Checkpoint:
    return Checkpoint.parse(Note.parse(note).text)
