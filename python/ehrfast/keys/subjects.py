"""Subjects: whose records they are, and the root keys that open them.

A subject is a patient (random id) or the custodian itself. Its root key is drawn once, durable before anything is
sealed under it, and exists only in key stores; class keys derive from it and an epoch posted on the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Final

from ehrfast._core import ClassKey, KeyStore, cbor_decode, cbor_encode, random_bytes
from ehrfast.errors import CorruptionError

SUBJECT_KIND: Final = "subject"
ALIAS_KIND: Final = "subject-alias"
ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Subject:
    """A patient, or the custodian.

    Args:
        id: 16 random bytes; the custodian's is its organisation id.
        root: 32-byte root key.
        reference: the patient's first known ``Type/id``, else what a Bundle called them; None for the custodian.
    """

    id: bytes
    root: bytes = field(repr=False)
    reference: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Epoch:
    """A class key in force, and whether the chain already knows its epoch."""

    key: ClassKey
    posted: bool


class Subjects:
    """The subjects one custodian holds root keys for.

    Args:
        store: the node's key store.
        custodian: id of the organisation.
        posted_epoch: the current epoch id of (subject, class) on the chain, or None.
    """

    def __init__(
        self, store: KeyStore, custodian: bytes, posted_epoch: Callable[[bytes, str], bytes | None]
    ) -> None:
        self.custodian = custodian
        self._store = store
        self._posted_epoch = posted_epoch
        self._lock = Lock()
        self._by_id: dict[bytes, Subject] = {}
        self._by_reference: dict[str, Subject] = {}
        self._epochs: dict[tuple[bytes, str], Epoch] = {}
        self._keys: dict[tuple[bytes, str, bytes], ClassKey] = {}
        for subject_id in store.ids(SUBJECT_KIND):
            self._remember(_read_subject(store, subject_id))
        for alias in store.ids(ALIAS_KIND):
            reference, subject_id = _read_alias(store, alias)
            if subject_id in self._by_id:
                self._call_also(self._by_id[subject_id], reference)

    def of(self, reference: str | None) -> Subject:
        """The subject a patient reference stands for, drawn now if it is new; None is the custodian."""
        known = self._by_id.get(self.custodian) if reference is None else self._by_reference.get(reference)
        return known or self.of_many([reference])[0]

    def of_many(self, references: Sequence[str | None]) -> list[Subject]:
        """Like `of` for many at once, with one sync for all that are new."""
        with self._lock:
            drawn: dict[str | None, Subject] = {}
            for reference in references:
                if self._find(reference) is None and reference not in drawn:
                    subject_id = self.custodian if reference is None else random_bytes(ID_BYTES)
                    drawn[reference] = Subject(subject_id, random_bytes(32), reference)
            if drawn:
                self._store.put(
                    [(SUBJECT_KIND, s.id, cbor_encode((s.root, s.reference))) for s in drawn.values()]
                )
                for subject in drawn.values():
                    self._remember(subject)
            found = [self._find(reference) for reference in references]
        return [subject for subject in found if subject is not None]

    def known(self, reference: str) -> Subject | None:
        """The subject of a reference, without drawing one."""
        return self._by_reference.get(reference)

    def by_id(self, subject_id: bytes) -> Subject | None:
        """The subject with that id, None when this node holds no root key for it."""
        return self._by_id.get(subject_id)

    def require_erased(self, subject_id: bytes) -> None:
        """Returns when a root key that the log names may be gone, because erasures have been carried out here.

        Raises:
            CorruptionError: ``keys.subject_missing``: it was lost.
        """
        if self._store.applied_erasure_height == 0:
            raise CorruptionError("keys.subject_missing", {"subject": subject_id.hex()})

    def join(self, reference: str, other: str) -> None:
        """Makes a second reference stand for the subject of a first one; durable when it returns."""
        with self._lock:
            subject = self._by_reference.get(reference)
            if subject is None or other in self._by_reference:
                return
            self._store.put([(ALIAS_KIND, random_bytes(ID_BYTES), cbor_encode((other, subject.id)))])
            self._call_also(subject, other)

    def entries_of(self, subject_id: bytes) -> list[tuple[str, bytes]]:
        """(kind, id) of everything in the key store that leads to a subject: its root key and its references."""
        aliases = [alias for alias in self._store.ids(ALIAS_KIND) if _read_alias(self._store, alias)[1] == subject_id]
        return [(SUBJECT_KIND, subject_id), *((ALIAS_KIND, alias) for alias in aliases)]

    def forget(self, subject_id: bytes) -> None:
        """Drops a subject and every key derived for it from memory, once the key store has forgotten them."""
        with self._lock:
            self._by_id.pop(subject_id, None)
            for reference in [each for each, subject in self._by_reference.items() if subject.id == subject_id]:
                del self._by_reference[reference]
            for name in [each for each in self._epochs if each[0] == subject_id]:
                del self._epochs[name]
            for derived in [each for each in self._keys if each[0] == subject_id]:
                del self._keys[derived]

    def current(self, subject: Subject, class_: str) -> Epoch:
        """The class key to seal under now: the posted epoch's, or a fresh epoch's that a transaction must post."""
        name = (subject.id, class_)
        epoch = self._epochs.get(name)
        if epoch is not None and epoch.posted:
            return epoch
        with self._lock:
            epoch = self._epochs.get(name)
            if epoch is None or not epoch.posted:
                posted = self._posted_epoch(subject.id, class_)
                if posted is not None:
                    epoch = Epoch(self._derive(subject, class_, posted), posted=True)
                elif epoch is None:
                    epoch = Epoch(self._derive(subject, class_, random_bytes(ID_BYTES)), posted=False)
                self._epochs[name] = epoch
        return epoch

    def forget_epoch(self, subject_id: bytes, class_: str) -> None:
        """Asks the chain again next time: the epoch was found stale."""
        self._epochs.pop((subject_id, class_), None)

    def key(self, subject: Subject, class_: str, epoch: bytes) -> ClassKey:
        """The class key of any epoch, for opening."""
        name = (subject.id, class_, epoch)
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = self._derive(subject, class_, epoch)
        return key

    def _derive(self, subject: Subject, class_: str, epoch: bytes) -> ClassKey:
        return ClassKey.derive(subject.root, subject.id, self.custodian, class_, epoch)

    def _find(self, reference: str | None) -> Subject | None:
        return self._by_id.get(self.custodian) if reference is None else self._by_reference.get(reference)

    def _call_also(self, subject: Subject, reference: str) -> None:
        """A second name; a ``Type/id`` is the one shown, rather than what a Bundle called its entry."""
        if subject.reference is not None and subject.reference.startswith("urn:") and not reference.startswith("urn:"):
            called, subject = subject.reference, replace(subject, reference=reference)
            self._by_id[subject.id] = self._by_reference[called] = subject
        self._by_reference[reference] = subject

    def _remember(self, subject: Subject) -> None:
        self._by_id[subject.id] = subject
        if subject.reference is not None:
            self._by_reference[subject.reference] = subject


def _read_subject(store: KeyStore, subject_id: bytes) -> Subject:
    row = cbor_decode(store.get(SUBJECT_KIND, subject_id) or b"\xf6")
    if not (isinstance(row, tuple) and len(row) == 2):
        raise CorruptionError("keys.malformed_entry", {"kind": SUBJECT_KIND})
    return Subject(subject_id, row[0], row[1])


def _read_alias(store: KeyStore, alias: bytes) -> tuple[str, bytes]:
    row = cbor_decode(store.get(ALIAS_KIND, alias) or b"\xf6")
    if not (isinstance(row, tuple) and len(row) == 2):
        raise CorruptionError("keys.malformed_entry", {"kind": ALIAS_KIND})
    return row[0], row[1]
