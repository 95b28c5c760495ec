"""Where a sealed record lies and what it commits to: one row per version, never its content.

Owns version order and the class keys in force; the custodian is the organisation of the key that signs, and the only
one that may add versions. Refuses a row sealed under a key that is not the posted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ehrfast.contracts.contract import Code, Context, Contract, Digest, Id, Natural, PublicKey, Value, View

contract = Contract("records", version=1)

WRITING_ROLES = ("gateway", "physician", "nurse", "pharmacist", "device")
ROWS_MAX = 700
POSITION_MAX = 65_535
PLACE_MAX = 1
AUDIT = "audit"
DELETED = 1


class Row(NamedTuple):
    """One version of one record.

    record: random id of the record
    version: 1 for a new record, else the current version + 1
    subject: random patient id, or the custodian itself
    class_: what kind of record a key opens
    epoch: id of the class key it was sealed under
    commitment: keyed digest of the content
    attachment: which pack of this transaction, from 0
    position: which item of that pack, from 0
    place: 0 on the chain, 1 a blob
    """

    record: Id
    version: Natural
    subject: Id
    class_: Code
    epoch: Id
    commitment: Digest
    attachment: Natural
    position: Natural
    place: Natural


class Epoch(NamedTuple):
    """A class key coming into force at the sender's organisation.

    subject: random patient id, or the custodian itself
    class_: what kind of record the key opens
    epoch: random id
    public_key: X25519, to write without being able to read
    """

    subject: Id
    class_: Code
    epoch: Id
    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class Put:
    """New records and new versions, with the class keys they need.

    rows: up to 700, record ids distinct
    epochs: posted before the rows are judged
    """

    rows: tuple[Row, ...]
    epochs: tuple[Epoch, ...] = ()


@dataclass(frozen=True, slots=True)
class PostEpochs:
    """Class keys coming into force.

    epochs: up to 700
    """

    epochs: tuple[Epoch, ...]


@dataclass(frozen=True, slots=True)
class Rewrap:
    """The same sealed version under another class key: other wraps, same pack.

    record: id of the record
    version: which version
    epoch: id of the class key now in force
    attachment: the entry of this transaction that names the new wraps root
    """

    record: Id
    version: Natural
    epoch: Id
    attachment: Natural


@dataclass(frozen=True, slots=True)
class Delete:
    """A version that says the record is deleted; later versions may follow.

    record: id of the record
    version: the current version + 1
    """

    record: Id
    version: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class RecordsPut:
    custodian: Id
    count: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class EpochsPosted:
    custodian: Id
    count: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class RecordRewrapped:
    record: Id
    version: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class RecordDeleted:
    record: Id
    version: Natural


@contract.method(claimable="emergency")
def put(ctx: Context, args: Put) -> None:
    """Adds record versions; all rows stand or none."""
    author, custodian = require_writer(ctx)
    if not 1 <= len(args.rows) <= ROWS_MAX or len(args.epochs) > ROWS_MAX:
        ctx.fail("records.row_count")
    post(ctx, custodian, args.epochs)
    attachments = ctx.attachments
    packs = len(attachments)
    height, index, time_ms = ctx.height, ctx.index, ctx.time_ms
    epochs: dict[Value, Value] = {}
    seen: dict[Id, bool] = {}
    for record, version, subject, class_, epoch, commitment, attachment, position, place in args.rows:
        if seen.get(record):
            ctx.fail("records.duplicate_record")
        seen[record] = True
        if attachment >= packs or position > POSITION_MAX or place > PLACE_MAX:
            ctx.fail("records.bad_place")
        sealed_under = epochs.get((subject, class_))
        if sealed_under is None:
            sealed_under = current_epoch(ctx, subject, custodian, class_)
            epochs[(subject, class_)] = sealed_under
        if sealed_under != epoch:
            ctx.fail("records.epoch_stale")
        current = ctx.get((record,))
        if current is None:
            if version != 1:
                ctx.fail("records.version_conflict")
        else:
            follow(ctx, record, current, version, custodian, class_)
        pack_root, wraps_root = attachments[attachment]
        ctx.put((record,), version)
        ctx.put(
            (record, version),
            (
                subject,
                custodian,
                class_,
                epoch,
                commitment,
                pack_root,
                wraps_root,
                position,
                place,
                author,
                0,
                height,
                index,
                time_ms,
            ),
        )
    ctx.emit(RecordsPut(custodian, len(args.rows)))


@contract.method(claimable="urgent")
def post_epochs(ctx: Context, args: PostEpochs) -> None:
    """Puts class keys into force; rows sealed under the former ones are refused from here on."""
    _, custodian = require_writer(ctx)
    if not 1 <= len(args.epochs) <= ROWS_MAX:
        ctx.fail("records.row_count")
    post(ctx, custodian, args.epochs)
    ctx.emit(EpochsPosted(custodian, len(args.epochs)))


@contract.method(claimable="urgent")
def rewrap(ctx: Context, args: Rewrap) -> None:
    """Names the new wraps of a version whose ciphertext stays."""
    _, custodian = require_writer(ctx)
    held = ctx.get((args.record, args.version))
    if held is None:
        ctx.fail("records.unknown")
    if held[1] != custodian:
        ctx.fail("records.not_custodian")
    if held[10] % 2 == DELETED:
        ctx.fail("records.deleted")
    subject, class_ = held[0], held[2]
    if current_epoch(ctx, subject, custodian, class_) != args.epoch:
        ctx.fail("records.epoch_stale")
    if args.attachment >= len(ctx.attachments):
        ctx.fail("records.bad_place")
    pack_root, wraps_root = ctx.attachments[args.attachment]
    if pack_root != held[5]:
        ctx.fail("records.pack_changed")
    ctx.put(
        (args.record, args.version),
        (subject, custodian, class_, args.epoch, held[4], pack_root, wraps_root) + held[7:],  # noqa: RUF005
    )
    ctx.emit(RecordRewrapped(args.record, args.version))


@contract.method(claimable="urgent")
def delete(ctx: Context, args: Delete) -> None:
    """Adds a version without content that marks the record deleted."""
    author, custodian = require_writer(ctx)
    current = ctx.get((args.record,))
    if current is None:
        ctx.fail("records.unknown")
    held = ctx.get((args.record, current))
    subject, class_ = held[0], held[2]
    follow(ctx, args.record, current, args.version, custodian, class_)
    if held[10] % 2 == DELETED:
        ctx.fail("records.deleted")
    ctx.put((args.record,), args.version)
    ctx.put(
        (args.record, args.version),
        (
            subject,
            custodian,
            class_,
            held[3],
            None,
            None,
            None,
            0,
            0,
            author,
            DELETED,
            ctx.height,
            ctx.index,
            ctx.time_ms,
        ),
    )
    ctx.emit(RecordDeleted(args.record, args.version))


@contract.view
def current(ctx: View, id: Id) -> int | None:
    """The current version of a record, null when there is none."""
    version: int | None = ctx.get((id,))
    return version


@contract.view
def row(ctx: View, id: Id, version: Natural) -> tuple[Value, ...] | None:
    """(subject, custodian, class, epoch, commitment, pack root, wraps root, position, place, author, flags, height,
    index, time ms); commitment and roots are null in a deletion."""
    held: tuple[Value, ...] | None = ctx.get((id, version))
    return held


@contract.view
def epoch(ctx: View, subject: Id, custodian: Id, class_: Code) -> tuple[Id, PublicKey] | None:
    """(epoch id, X25519 public key) in force, null when none was posted."""
    held: tuple[Id, PublicKey] | None = ctx.get(("epoch", subject, custodian, class_))
    return held


def require_writer(ctx: Context) -> tuple[Id, Id]:
    acting = ctx.read("identity", "acting", ctx.sender)
    if acting is None:
        ctx.fail("records.not_permitted")
    author, custodian, roles = acting
    if not any(role in WRITING_ROLES for role in roles):
        ctx.fail("records.not_permitted")
    return author, custodian


def post(ctx: Context, custodian: Id, epochs: tuple[Epoch, ...]) -> None:
    seen: dict[Value, bool] = {}
    for subject, class_, epoch_id, public_key in epochs:
        if seen.get((subject, class_)):
            ctx.fail("records.duplicate_epoch")
        seen[(subject, class_)] = True
        held = ctx.get(("epoch", subject, custodian, class_))
        if held is not None and held[0] == epoch_id and held[1] != public_key:
            ctx.fail("records.duplicate_epoch")
        ctx.put(("epoch", subject, custodian, class_), (epoch_id, public_key))


def current_epoch(ctx: Context, subject: Id, custodian: Id, class_: Code) -> Id:
    held = ctx.get(("epoch", subject, custodian, class_))
    if held is None:
        ctx.fail("records.no_epoch")
    epoch_id: Id = held[0]
    return epoch_id


def follow(ctx: Context, record: Id, current_version: int, version: int, custodian: Id, class_: Code) -> None:
    """A record goes on only at its custodian, in its class, by the next number, and an audit record not at all."""
    held = ctx.get((record, current_version))
    if held[1] != custodian:
        ctx.fail("records.not_custodian")
    if held[2] == AUDIT:
        ctx.fail("records.audit_final")
    if held[2] != class_:
        ctx.fail("records.class_changed")
    if version != current_version + 1:
        ctx.fail("records.version_conflict")
