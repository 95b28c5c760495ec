"""Who signs: identities with their keys, and credentials that give an identity a role at an organisation for a time.

Owns the rule of every later check: a key or credential is judged by block time, start inclusive, end exclusive, and
what is revoked or rotated in a block is dead from the next one. Nobody issues for themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ehrfast.contracts.contract import Code, Context, Contract, Id, Natural, PublicKey, Value, View

contract = Contract("identity", version=1)

ROLES = (
    "patient",
    "physician",
    "nurse",
    "pharmacist",
    "device",
    "researcher",
    "trial_monitor",
    "payer",
    "manufacturer",
    "distributor",
    "auditor",
    "organisation_admin",
    "consortium_governor",
    "gateway",
)
ADMIN = "organisation_admin"
SELF = 0
CUSTODIAL = 1
ACTIVE = 0
REVOKED = 1
ADMINS_MAX = 64


class AdminOf(NamedTuple):
    identity: Id
    key: PublicKey


class Organisation(NamedTuple):
    organisation: Id
    admins: tuple[AdminOf, ...]
    threshold: Natural


@dataclass(frozen=True, slots=True)
class Founding:
    """The organisations a chain begins with.

    organisations: each with its admins and how many of them decide together
    """

    organisations: tuple[Organisation, ...]


@dataclass(frozen=True, slots=True)
class Enrol:
    """A new identity at the sender's organisation, with its first key and role.

    identity: random id of the new identity
    key: its Ed25519 public key
    custody: who holds the signing key: 0 the person, 1 the organisation
    role: one of the closed list of roles
    from_ms: start of the role, inclusive; null for this block
    until_ms: end of the role, exclusive; null for open
    subject: random patient id, for the role patient
    """

    identity: Id
    key: PublicKey
    custody: Natural
    role: Code
    from_ms: Natural | None = None
    until_ms: Natural | None = None
    subject: Id | None = None


@dataclass(frozen=True, slots=True)
class IssueCredential:
    """A role for an identity, at the sender's organisation.

    identity: who gets the role; not the sender
    role: one of the closed list of roles
    from_ms: start, inclusive; null for this block
    until_ms: end, exclusive; null for open
    """

    identity: Id
    role: Code
    from_ms: Natural | None = None
    until_ms: Natural | None = None


@dataclass(frozen=True, slots=True)
class RevokeCredential:
    """Ends a role given by the sender's organisation; dead from the next block.

    identity: who loses the role
    role: the role
    """

    identity: Id
    role: Code


@dataclass(frozen=True, slots=True)
class RotateKey:
    """Replaces the key that signs this very transaction; it is dead from the next block.

    key: the new Ed25519 public key of the same identity
    """

    key: PublicKey


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """Declares a key dead from the next block: by its identity, or by an admin of its organisation.

    key: the public key
    """

    key: PublicKey


@contract.event
@dataclass(frozen=True, slots=True)
class Enrolled:
    identity: Id
    organisation: Id
    role: Code


@contract.event
@dataclass(frozen=True, slots=True)
class CredentialIssued:
    identity: Id
    organisation: Id
    role: Code


@contract.event
@dataclass(frozen=True, slots=True)
class CredentialRevoked:
    identity: Id
    organisation: Id
    role: Code


@contract.event
@dataclass(frozen=True, slots=True)
class KeyRotated:
    identity: Id


@contract.event
@dataclass(frozen=True, slots=True)
class KeyRevoked:
    identity: Id


@contract.genesis
def found(ctx: Context, args: Founding) -> None:
    """Writes the founding organisations; their admins are the only identities nobody enrolled."""
    for organisation, admins, threshold in args.organisations:
        if ctx.get(("organisation", organisation)) is not None:
            ctx.fail("identity.exists")
        if not 1 <= threshold <= len(admins) or len(admins) > ADMINS_MAX:
            ctx.fail("identity.bad_threshold")
        ctx.put(("organisation", organisation), (tuple(key for _, key in admins), threshold, ctx.time_ms))
        for identity, key in admins:
            add_identity(ctx, identity, organisation, SELF, key, None)
            add_credential(ctx, identity, organisation, ADMIN, ctx.time_ms, None, identity)


@contract.method(claimable="urgent")
def enrol(ctx: Context, args: Enrol) -> None:
    """Enrols an identity at the organisation of the admin who signs."""
    issuer, organisation = require_admin(ctx)
    if args.custody != SELF and args.custody != CUSTODIAL:
        ctx.fail("identity.bad_custody")
    if args.subject is not None and args.role != "patient":
        ctx.fail("identity.subject_without_patient")
    add_identity(ctx, args.identity, organisation, args.custody, args.key, args.subject)
    give_role(ctx, args.identity, organisation, args.role, args.from_ms, args.until_ms, issuer)
    ctx.emit(Enrolled(args.identity, organisation, args.role))


@contract.method(claimable="urgent")
def issue_credential(ctx: Context, args: IssueCredential) -> None:
    """Gives an enrolled identity a role at the organisation of the admin who signs."""
    issuer, organisation = require_admin(ctx)
    if issuer == args.identity:
        ctx.fail("identity.self_issue")
    if ctx.get(("identity", args.identity)) is None:
        ctx.fail("identity.unknown")
    give_role(ctx, args.identity, organisation, args.role, args.from_ms, args.until_ms, issuer)
    ctx.emit(CredentialIssued(args.identity, organisation, args.role))


@contract.method(urgent=True, claimable="urgent")
def revoke_credential(ctx: Context, args: RevokeCredential) -> None:
    """Ends a role that the organisation of the admin who signs had given."""
    _, organisation = require_admin(ctx)
    row = ctx.get(("credential", args.identity, organisation, args.role))
    if row is None:
        ctx.fail("identity.no_credential")
    from_ms, until_ms, issuer, revoked_at = row
    if revoked_at is not None:
        ctx.fail("identity.already_revoked")
    ctx.put(("credential", args.identity, organisation, args.role), (from_ms, until_ms, issuer, ctx.time_ms))
    ctx.emit(CredentialRevoked(args.identity, organisation, args.role))


@contract.method(urgent=True, claimable="urgent")
def rotate_key(ctx: Context, args: RotateKey) -> None:
    """Replaces the sender's key; what the old one signed stays valid as of its block time."""
    identity, _ = require_sender(ctx)
    organisation, custody, status, current, subject, enrolled_ms = ctx.get(("identity", identity))
    if current != ctx.sender:
        ctx.fail("identity.not_current_key")
    add_key(ctx, args.key, identity)
    _, from_ms, _, revoked_at = ctx.get(("key", ctx.sender))
    ctx.put(("key", ctx.sender), (identity, from_ms, ctx.time_ms + 1, revoked_at))
    ctx.put(("identity", identity), (organisation, custody, status, args.key, subject, enrolled_ms))
    ctx.emit(KeyRotated(identity))


@contract.method(urgent=True, claimable="urgent")
def revoke_key(ctx: Context, args: RevokeKey) -> None:
    """Declares a key dead; when it is the current one, its identity signs nothing more."""
    row = ctx.get(("key", args.key))
    if row is None:
        ctx.fail("identity.unknown_key")
    identity, from_ms, until_ms, revoked_at = row
    organisation, custody, _, current, subject, enrolled_ms = ctx.get(("identity", identity))
    sender, _ = require_sender(ctx)
    if sender != identity and not holds_role(ctx, sender, organisation, ADMIN, ctx.time_ms):
        ctx.fail("identity.not_permitted")
    if revoked_at is not None:
        ctx.fail("identity.already_revoked")
    ctx.put(("key", args.key), (identity, from_ms, until_ms, ctx.time_ms))
    if current == args.key:
        ctx.put(("identity", identity), (organisation, custody, REVOKED, current, subject, enrolled_ms))
    ctx.emit(KeyRevoked(identity))


@contract.view
def by_key(ctx: View, key: PublicKey) -> tuple[Id, Id] | None:
    """(identity, organisation) of a key that is valid at block time, else null."""
    return key_holder(ctx, key)


@contract.view
def acting(ctx: View, key: PublicKey) -> tuple[Id, Id, tuple[Code, ...]] | None:
    """(identity, organisation, roles held there now) of a key that is valid at block time, else null."""
    holder = key_holder(ctx, key)
    if holder is None:
        return None
    identity, organisation = holder
    return identity, organisation, held_roles(ctx, identity, organisation)


@contract.view
def identity(ctx: View, id: Id) -> tuple[Id, int, int, PublicKey, Id | None, int] | None:
    """(organisation, custody, status, current key, subject or null, enrolled ms), null when unknown."""
    row: tuple[Id, int, int, PublicKey, Id | None, int] | None = ctx.get(("identity", id))
    return row


@contract.view
def organisation(ctx: View, id: Id) -> tuple[tuple[PublicKey, ...], int, int] | None:
    """(founding admin keys, threshold, since ms), null when unknown."""
    row: tuple[tuple[PublicKey, ...], int, int] | None = ctx.get(("organisation", id))
    return row


@contract.view
def credential(ctx: View, identity: Id, organisation: Id, role: Code) -> tuple[int, int | None, Id, int | None] | None:
    """(from ms, until ms or null, issuer, revoked at ms or null) as last issued, null when never."""
    row: tuple[int, int | None, Id, int | None] | None = ctx.get(("credential", identity, organisation, role))
    return row


@contract.view
def has_role(ctx: View, identity: Id, organisation: Id, role: Code, time: Natural) -> bool:
    """Whether the role, as last issued, is valid at a time."""
    return holds_role(ctx, identity, organisation, role, time)


@contract.view
def roles(ctx: View, identity: Id, organisation: Id) -> tuple[Code, ...]:
    """Roles valid at block time."""
    return held_roles(ctx, identity, organisation)


def require_sender(ctx: Context) -> tuple[Id, Id]:
    holder = key_holder(ctx, ctx.sender)
    if holder is None:
        ctx.fail("identity.no_key")
    return holder


def require_admin(ctx: Context) -> tuple[Id, Id]:
    identity, organisation = require_sender(ctx)
    if not holds_role(ctx, identity, organisation, ADMIN, ctx.time_ms):
        ctx.fail("identity.not_permitted")
    return identity, organisation


def key_holder(ctx: View, key: PublicKey) -> tuple[Id, Id] | None:
    row = ctx.get(("key", key))
    if row is None:
        return None
    identity, from_ms, until_ms, revoked_at = row
    if not in_force(from_ms, until_ms, revoked_at, ctx.time_ms):
        return None
    organisation: Id = ctx.get(("identity", identity))[0]
    return identity, organisation


def holds_role(ctx: View, identity: Id, organisation: Id, role: Code, time_ms: int) -> bool:
    row = ctx.get(("credential", identity, organisation, role))
    if row is None:
        return False
    from_ms, until_ms, _, revoked_at = row
    return in_force(from_ms, until_ms, revoked_at, time_ms)


def held_roles(ctx: View, identity: Id, organisation: Id) -> tuple[Code, ...]:
    listed = ctx.get(("roles", identity, organisation)) or ()
    return tuple(role for role in listed if holds_role(ctx, identity, organisation, role, ctx.time_ms))


def in_force(from_ms: int, until_ms: int | None, revoked_at: int | None, time_ms: int) -> bool:
    if time_ms < from_ms or (until_ms is not None and time_ms >= until_ms):
        return False
    return revoked_at is None or time_ms <= revoked_at


def add_identity(
    ctx: Context, identity: Id, organisation: Id, custody: int, key: PublicKey, subject: Id | None
) -> None:
    if ctx.get(("identity", identity)) is not None:
        ctx.fail("identity.exists")
    add_key(ctx, key, identity)
    ctx.put(("identity", identity), (organisation, custody, ACTIVE, key, subject, ctx.time_ms))


def add_key(ctx: Context, key: PublicKey, identity: Id) -> None:
    ctx.check_public_key(key)
    if ctx.get(("key", key)) is not None:
        ctx.fail("identity.key_in_use")
    ctx.put(("key", key), (identity, ctx.time_ms, None, None))


def give_role(
    ctx: Context, identity: Id, organisation: Id, role: Code, from_ms: int | None, until_ms: int | None, issuer: Id
) -> None:
    if role not in ROLES:
        ctx.fail("identity.unknown_role")
    start = ctx.time_ms if from_ms is None else from_ms
    if start < ctx.time_ms or (until_ms is not None and until_ms <= start):
        ctx.fail("identity.bad_period")
    held = ctx.get(("credential", identity, organisation, role))
    if held is not None and held[3] is None and (held[1] is None or ctx.time_ms < held[1]):
        ctx.fail("identity.credential_exists")
    add_credential(ctx, identity, organisation, role, start, until_ms, issuer)


def add_credential(
    ctx: Context, identity: Id, organisation: Id, role: Code, from_ms: int, until_ms: int | None, issuer: Id
) -> None:
    ctx.put(("credential", identity, organisation, role), (from_ms, until_ms, issuer, None))
    listed: tuple[Value, ...] = ctx.get(("roles", identity, organisation)) or ()
    if role not in listed:
        ctx.put(("roles", identity, organisation), listed + (role,))  # noqa: RUF005
