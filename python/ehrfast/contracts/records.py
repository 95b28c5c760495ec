"""Where a sealed record lies and what it commits to: one row per version, never its content.

Owns version order, the class keys in force, erasures and legal holds; the custodian is the organisation of the key that
signs, and the only one that may add versions. Refuses a row sealed under a key that is not the posted one.
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
ERASED = 2
PRUNED = 4
ADMIN = "organisation_admin"
PRUNING_ROLES = (ADMIN, "gateway")
HOLDING_ROLES = (ADMIN, "auditor")
SUBJECT = "subject"
RECORD = "record"
HOLD_REASONS = ("litigation", "investigation", "regulator", "complaint", "safety", "other")
HOLDS_MAX = 1024
PLACES_MAX = 700
REWRAPS_MAX = 255
PACK_REWRAPS_MAX = 4096
CLASSES_MAX = 64


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


class Place(NamedTuple):
    """Where a sealed item lies in the log.

    height: of its block
    pack: root of its pack
    position: which item of that pack, from 0
    """

    height: Natural
    pack: Digest
    position: Natural


@dataclass(frozen=True, slots=True)
class Erase:
    """Takes a record away, all versions; only that it existed stays provable.

    record: id of the record
    version: its current version
    manifests: the lists that name it; what else they name is listed anew in this transaction's pack
    """

    record: Id
    version: Natural
    manifests: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class EraseSubject:
    """Takes a patient away: every key that opens what is theirs is destroyed.

    subject: random patient id
    classes: the classes whose posted keys end here
    """

    subject: Id
    classes: tuple[Code, ...]


class Version(NamedTuple):
    """One version of one record."""

    record: Id
    version: Natural


@dataclass(frozen=True, slots=True)
class Prune:
    """Lets the bytes of versions go from the log; they may come back.

    versions: up to 700
    current: whether current versions may go too
    """

    versions: tuple[Version, ...]
    current: bool = False


@dataclass(frozen=True, slots=True)
class Restore:
    """Says that pruned versions are back.

    versions: up to 700
    """

    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold: nothing it covers is erased or pruned while it stands.

    hold: random id of the hold
    kind: subject or record
    target: id of the subject or the record
    reason: litigation, investigation, regulator, complaint, safety or other
    """

    hold: Id
    kind: Code
    target: Id
    reason: Code


@dataclass(frozen=True, slots=True)
class Release:
    """Ends a hold.

    hold: its id
    """

    hold: Id


@contract.event
@dataclass(frozen=True, slots=True)
class RecordErased:
    record: Id
    number: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class SubjectErased:
    subject: Id
    number: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class RecordsPruned:
    custodian: Id
    count: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class RecordsRestored:
    custodian: Id
    count: Natural


@contract.event
@dataclass(frozen=True, slots=True)
class HoldPlaced:
    hold: Id
    reason: Code


@contract.event
@dataclass(frozen=True, slots=True)
class HoldReleased:
    hold: Id


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
                (),
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
    if has_flag(held[10], DELETED):
        ctx.fail("records.deleted")
    if has_flag(held[10], ERASED):
        ctx.fail("records.erased")
    if len(held[14]) >= REWRAPS_MAX:
        ctx.fail("records.too_many_rewraps")
    subject, class_ = held[0], held[2]
    if current_epoch(ctx, subject, custodian, class_) != args.epoch:
        ctx.fail("records.epoch_stale")
    if args.attachment >= len(ctx.attachments):
        ctx.fail("records.bad_place")
    pack_root, wraps_root = ctx.attachments[args.attachment]
    if pack_root != held[5]:
        ctx.fail("records.pack_changed")
    again: tuple[Value, ...] = ctx.get(("again", pack_root)) or ()
    if len(again) >= PACK_REWRAPS_MAX:
        ctx.fail("records.too_many_rewraps")
    if ctx.height not in again:
        ctx.put(("again", pack_root), again + (ctx.height,))  # noqa: RUF005
    rewraps = held[14] + (ctx.height,)
    ctx.put(
        (args.record, args.version),
        (subject, custodian, class_, args.epoch, held[4], pack_root, wraps_root) + held[7:14] + (rewraps,),  # noqa: RUF005
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
    if has_flag(held[10], DELETED):
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
            (),
        ),
    )
    ctx.emit(RecordDeleted(args.record, args.version))


@contract.method(urgent=True, claimable="urgent")
def erase(ctx: Context, args: Erase) -> None:
    """Takes all versions of a record away: their commitments now, their bytes when the custodian's node has seen it."""
    author, custodian = require_role(ctx, (ADMIN,))
    current = ctx.get((args.record,))
    if current is None:
        ctx.fail("records.unknown")
    if current != args.version:
        ctx.fail("records.version_conflict")
    if len(args.manifests) > PLACES_MAX:
        ctx.fail("records.row_count")
    newest = ctx.get((args.record, current))
    if newest[1] != custodian:
        ctx.fail("records.not_custodian")
    if newest[2] == AUDIT:
        ctx.fail("records.audit_final")
    if has_flag(newest[10], ERASED):
        ctx.fail("records.erased")
    refuse_held(ctx, newest[0], args.record, custodian)
    for version in range(1, current + 1):
        held = ctx.get((args.record, version))
        ctx.put(
            (args.record, version),
            held[:4] + (None,) + held[5:10] + (held[10] + ERASED,) + held[11:],  # noqa: RUF005
        )
    number = note_erasure(ctx, RECORD, args.record, custodian, author, tuple(tuple(place) for place in args.manifests))
    ctx.emit(RecordErased(args.record, number))


@contract.method(urgent=True, claimable="urgent")
def erase_subject(ctx: Context, args: EraseSubject) -> None:
    """Takes a patient away: no record is put to them any more, and their class keys are out of force."""
    author, custodian = require_role(ctx, (ADMIN,))
    if args.subject == custodian:
        ctx.fail("records.not_a_patient")
    if len(args.classes) > CLASSES_MAX:
        ctx.fail("records.row_count")
    if is_erased(ctx, args.subject, custodian):
        ctx.fail("records.subject_erased")
    refuse_held(ctx, args.subject, None, custodian)
    ctx.put(("erased", args.subject, custodian), ctx.height)
    for class_ in args.classes:
        ctx.delete(("epoch", args.subject, custodian, class_))
    number = note_erasure(ctx, SUBJECT, args.subject, custodian, author, ())
    ctx.emit(SubjectErased(args.subject, number))


@contract.method(claimable="urgent")
def prune(ctx: Context, args: Prune) -> None:
    """Lets the bytes of versions go; rows and proofs stay as they are."""
    _, custodian = require_role(ctx, PRUNING_ROLES)
    if not 1 <= len(args.versions) <= ROWS_MAX:
        ctx.fail("records.row_count")
    for record, version in args.versions:
        held = owned(ctx, record, version, custodian)
        if held[2] == AUDIT:
            ctx.fail("records.audit_final")
        if has_flag(held[10], DELETED):
            ctx.fail("records.deleted")
        if has_flag(held[10], PRUNED):
            ctx.fail("records.pruned")
        if not args.current and ctx.get((record,)) == version:
            ctx.fail("records.current_version")
        refuse_held(ctx, held[0], record, custodian)
        ctx.put((record, version), held[:10] + (held[10] + PRUNED,) + held[11:])  # noqa: RUF005
    ctx.emit(RecordsPruned(custodian, len(args.versions)))


@contract.method(claimable="urgent")
def restore(ctx: Context, args: Restore) -> None:
    """Says that the bytes of pruned versions are back."""
    _, custodian = require_role(ctx, PRUNING_ROLES)
    if not 1 <= len(args.versions) <= ROWS_MAX:
        ctx.fail("records.row_count")
    for record, version in args.versions:
        held = owned(ctx, record, version, custodian)
        if not has_flag(held[10], PRUNED):
            ctx.fail("records.not_pruned")
        ctx.put((record, version), held[:10] + (held[10] - PRUNED,) + held[11:])  # noqa: RUF005
    ctx.emit(RecordsRestored(custodian, len(args.versions)))


@contract.method(urgent=True, claimable="urgent")
def hold(ctx: Context, args: Hold) -> None:
    """Places a legal hold."""
    author, custodian = require_role(ctx, HOLDING_ROLES)
    if args.reason not in HOLD_REASONS:
        ctx.fail("records.unknown_reason")
    if ctx.get(("hold", args.hold)) is not None:
        ctx.fail("records.hold_exists")
    if args.kind != SUBJECT and args.kind != RECORD:
        ctx.fail("records.unknown_kind")
    subject = args.target
    if args.kind == RECORD:
        version = ctx.get((args.target,))
        if version is None:
            ctx.fail("records.unknown")
        subject = owned(ctx, args.target, version, custodian)[0]
    elif is_erased(ctx, subject, custodian):
        ctx.fail("records.subject_erased")
    standing: tuple[Value, ...] = ctx.get(("holds", custodian)) or ()
    if len(standing) >= HOLDS_MAX:
        ctx.fail("records.too_many_holds")
    ctx.put(("holds", custodian), standing + (args.hold,))  # noqa: RUF005
    ctx.put(
        ("hold", args.hold),
        (args.kind, args.target, subject, custodian, args.reason, author, ctx.time_ms, None, None),
    )
    count_hold(ctx, args.kind, args.target, subject, custodian, 1)
    ctx.emit(HoldPlaced(args.hold, args.reason))


@contract.method(claimable="urgent")
def release(ctx: Context, args: Release) -> None:
    """Ends a legal hold."""
    author, custodian = require_role(ctx, HOLDING_ROLES)
    placed = ctx.get(("hold", args.hold))
    if placed is None or placed[3] != custodian:
        ctx.fail("records.no_hold")
    if placed[7] is not None:
        ctx.fail("records.hold_released")
    standing = ctx.get(("holds", custodian))
    ctx.put(("holds", custodian), tuple(each for each in standing if each != args.hold))
    ctx.put(("hold", args.hold), placed[:7] + (author, ctx.time_ms))  # noqa: RUF005
    count_hold(ctx, placed[0], placed[1], placed[2], custodian, 0 - 1)
    ctx.emit(HoldReleased(args.hold))


@contract.view
def erasures(ctx: View) -> int:
    """How many erasures there were; they are numbered from 1."""
    count: int = ctx.get(("erasures",)) or 0
    return count


@contract.view
def erasure(ctx: View, number: Natural) -> tuple[Value, ...] | None:
    """(kind, id of the record or subject, custodian, author, height, time ms, manifests), null when there is none."""
    noted: tuple[Value, ...] | None = ctx.get(("erasure", number))
    return noted


@contract.view
def again(ctx: View, pack: Digest) -> tuple[int, ...]:
    """Heights of the blocks in which a pack travelled again, whichever of its records was re-wrapped."""
    heights: tuple[int, ...] = ctx.get(("again", pack)) or ()
    return heights


@contract.view
def subject_erased(ctx: View, subject: Id, custodian: Id) -> int | None:
    """The height at which a subject was erased, null when it was not."""
    height: int | None = ctx.get(("erased", subject, custodian))
    return height


@contract.view
def holds(ctx: View, custodian: Id) -> tuple[Id, ...]:
    """The holds that stand at an organisation."""
    standing: tuple[Id, ...] = ctx.get(("holds", custodian)) or ()
    return standing


@contract.view
def hold_of(ctx: View, hold: Id) -> tuple[Value, ...] | None:
    """(kind, target, subject, custodian, reason, author, since ms, released by or null, released ms or null)."""
    placed: tuple[Value, ...] | None = ctx.get(("hold", hold))
    return placed


@contract.view
def current(ctx: View, id: Id) -> int | None:
    """The current version of a record, null when there is none."""
    version: int | None = ctx.get((id,))
    return version


@contract.view
def row(ctx: View, id: Id, version: Natural) -> tuple[Value, ...] | None:
    """(subject, custodian, class, epoch, commitment, pack root, wraps root, position, place, author, flags, height,
    index, time ms, heights of its rewraps); commitment and roots are null in a deletion, the commitment in an erasure.
    Flags add up: 1 deleted, 2 erased, 4 pruned."""
    held: tuple[Value, ...] | None = ctx.get((id, version))
    return held


@contract.view
def epoch(ctx: View, subject: Id, custodian: Id, class_: Code) -> tuple[Id, PublicKey] | None:
    """(epoch id, X25519 public key) in force, null when none was posted."""
    held: tuple[Id, PublicKey] | None = ctx.get(("epoch", subject, custodian, class_))
    return held


def require_role(ctx: Context, roles: tuple[Code, ...]) -> tuple[Id, Id]:
    acting = ctx.read("identity", "acting", ctx.sender)
    if acting is None:
        ctx.fail("records.not_permitted")
    author, custodian, held = acting
    if not any(role in roles for role in held):
        ctx.fail("records.not_permitted")
    return author, custodian


def has_flag(flags: int, flag: int) -> bool:
    return flags // flag % 2 == 1


def owned(ctx: Context, record: Id, version: int, custodian: Id) -> tuple[Value, ...]:
    held: tuple[Value, ...] | None = ctx.get((record, version))
    if held is None:
        ctx.fail("records.unknown")
    if held[1] != custodian:
        ctx.fail("records.not_custodian")
    if has_flag(held[10], ERASED):
        ctx.fail("records.erased")
    return held


def is_erased(ctx: View, subject: Id, custodian: Id) -> bool:
    return ctx.get(("erased", subject, custodian)) is not None


def refuse_held(ctx: Context, subject: Id, record: Id | None, custodian: Id) -> None:
    """A hold on the subject covers all its records; to erase a subject, no record of it may be held either."""
    if (ctx.get(("held", SUBJECT, subject, custodian)) or 0) > 0:
        ctx.fail("records.held")
    if record is None:
        if (ctx.get(("held", "within", subject, custodian)) or 0) > 0:
            ctx.fail("records.held")
    elif (ctx.get(("held", RECORD, record, custodian)) or 0) > 0:
        ctx.fail("records.held")


def count_hold(ctx: Context, kind: Code, target: Id, subject: Id, custodian: Id, step: int) -> None:
    ctx.put(("held", kind, target, custodian), (ctx.get(("held", kind, target, custodian)) or 0) + step)
    if kind == RECORD:
        ctx.put(("held", "within", subject, custodian), (ctx.get(("held", "within", subject, custodian)) or 0) + step)


def note_erasure(
    ctx: Context, kind: Code, target: Id, custodian: Id, author: Id, manifests: tuple[Value, ...]
) -> int:
    number: int = (ctx.get(("erasures",)) or 0) + 1
    ctx.put(("erasures",), number)
    ctx.put(("erasure", number), (kind, target, custodian, author, ctx.height, ctx.time_ms, manifests))
    return number


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
        if held is None and is_erased(ctx, subject, custodian):
            ctx.fail("records.subject_erased")
        if held is not None and held[0] == epoch_id and held[1] != public_key:
            ctx.fail("records.duplicate_epoch")
        ctx.put(("epoch", subject, custodian, class_), (epoch_id, public_key))


def current_epoch(ctx: Context, subject: Id, custodian: Id, class_: Code) -> Id:
    held = ctx.get(("epoch", subject, custodian, class_))
    if held is None:
        ctx.fail("records.subject_erased" if is_erased(ctx, subject, custodian) else "records.no_epoch")
    epoch_id: Id = held[0]
    return epoch_id


def follow(ctx: Context, record: Id, current_version: int, version: int, custodian: Id, class_: Code) -> None:
    """A record goes on only at its custodian, in its class, by the next number, and an audit record not at all."""
    held = ctx.get((record, current_version))
    if held[1] != custodian:
        ctx.fail("records.not_custodian")
    if held[2] == AUDIT:
        ctx.fail("records.audit_final")
    if has_flag(held[10], ERASED):
        ctx.fail("records.erased")
    if held[2] != class_:
        ctx.fail("records.class_changed")
    if version != current_version + 1:
        ctx.fail("records.version_conflict")
