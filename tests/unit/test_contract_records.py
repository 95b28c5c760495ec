"""The records and access contracts: every way a row is refused, and what stands when none is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ehrfast._core import SigningKey, StateView
from ehrfast.contracts import Event, Outcome, Registry
from ehrfast.contracts.records import ROWS_MAX, WRITING_ROLES

from tests.reference.ledger import Founding, Ledger, Organisation, named_bytes

NORTH, SOUTH = named_bytes("north"), named_bytes("south")
PATIENT = named_bytes("patient")
PACK = (named_bytes("pack", 32), named_bytes("wraps", 32))
EPOCH = named_bytes("epoch")


def key(name: str) -> bytes:
    return SigningKey.from_seed(named_bytes(name, 32)).public_key


@pytest.fixture
def ledger() -> Ledger:
    """Two organisations with a gateway each, and a class key for the patient at the first."""
    north = Organisation(NORTH, ((named_bytes("north admin"), key("north admin")),))
    south = Organisation(SOUTH, ((named_bytes("south admin"), key("south admin")),))
    registry = Registry([f"ehrfast.contracts.{name}" for name in ("identity", "records", "access")])
    made = Ledger(registry, Founding((north, south)), view=StateView(None))
    made.next_block()
    enrol(made, "gateway", "gateway")
    enrol(made, "south gateway", "gateway", by="south admin")
    assert call(made, "post_epochs", epochs=[epoch_of("observation")]).code == 0
    made.next_block()
    return made


def enrol(ledger: Ledger, name: str, role: str, by: str = "north admin") -> None:
    arguments = {"identity": named_bytes(name), "key": key(name), "custody": 0, "role": role}
    assert ledger.call("identity", "enrol", arguments, sender=key(by)).code == 0


def epoch_of(class_: str, epoch: bytes = EPOCH, subject: bytes = PATIENT) -> tuple[Any, ...]:
    return (subject, class_, epoch, named_bytes("class key", 32))


def row(name: str = "a", version: int = 1, **changed: Any) -> tuple[Any, ...]:
    columns: dict[str, Any] = {
        "record": named_bytes(name),
        "version": version,
        "subject": PATIENT,
        "class": "observation",
        "epoch": EPOCH,
        "commitment": named_bytes(f"{name} {version}", 32),
        "attachment": 0,
        "position": 0,
        "place": 0,
    }
    return tuple((columns | changed).values())


def call(
    ledger: Ledger,
    method: str,
    *,
    by: str = "gateway",
    packs: Sequence[Any] = (PACK,),
    contract: str = "records",
    **arguments: Any,
) -> Outcome:
    return ledger.call(contract, method, arguments, sender=key(by), attachments=packs)


def put(ledger: Ledger, *rows: tuple[Any, ...], **more: Any) -> int | str:
    return call(ledger, "put", rows=rows, **more).code


def current(ledger: Ledger, name: str = "a") -> Any:
    return ledger.ask("records", "current", id=named_bytes(name))


def test_put_writes_the_row_and_the_current_version(ledger: Ledger) -> None:
    outcome = call(ledger, "put", rows=[row(position=7, place=1)])
    assert outcome.code == 0
    assert outcome.write_count == 2
    assert outcome.events == (Event("records", "RecordsPut", (NORTH, 1)),)
    expected = (PATIENT, NORTH, "observation", EPOCH, named_bytes("a 1", 32), *PACK, 7, 1, named_bytes("gateway"), 0)
    held = ledger.ask("records", "row", id=named_bytes("a"), version=1)
    assert held == (*expected, ledger.height, ledger.index - 1, ledger.time_ms, ())
    assert current(ledger) == 1
    assert current(ledger, "b") is None
    assert ledger.ask("records", "row", id=named_bytes("a"), version=2) is None


def test_versions_follow_one_another(ledger: Ledger) -> None:
    assert [put(ledger, row(version=version)) for version in (1, 2, 3)] == [0, 0, 0]
    assert current(ledger) == 3
    assert ledger.ask("records", "row", id=named_bytes("a"), version=2)[4] == named_bytes("a 2", 32)


def test_epochs_of_the_same_call_count(ledger: Ledger) -> None:
    fresh = named_bytes("fresh")
    rows = [row(**{"class": "medication", "epoch": fresh})]
    assert call(ledger, "put", rows=rows, epochs=[epoch_of("medication", fresh)]).code == 0
    held = ledger.ask("records", "epoch", subject=PATIENT, custodian=NORTH, class_="medication")
    assert held == (fresh, named_bytes("class key", 32))


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([], "records.row_count"),
        ([row(version=2)], "records.version_conflict"),
        ([row(version=0)], "records.version_conflict"),
        ([row("old", 1)], "records.version_conflict"),
        ([row("old", 3)], "records.version_conflict"),
        ([row("old", 2, **{"class": "medication", "epoch": named_bytes("other")})], "records.class_changed"),
        ([row(**{"class": "document"})], "records.no_epoch"),
        ([row(subject=named_bytes("nobody"))], "records.no_epoch"),
        ([row(subject=named_bytes("elsewhere"))], "records.no_epoch"),
        ([row(epoch=named_bytes("stale"))], "records.epoch_stale"),
        ([row("a"), row("b", epoch=named_bytes("stale"))], "records.epoch_stale"),
        ([row("a"), row("a")], "records.duplicate_record"),
        ([row("a"), row("b"), row("a", 2)], "records.duplicate_record"),
        ([row(attachment=1)], "records.bad_place"),
        ([row(position=65_536)], "records.bad_place"),
        ([row(place=2)], "records.bad_place"),
        ([row("log", 2, **{"class": "audit", "epoch": named_bytes("audit")})], "records.audit_final"),
    ],
)
def test_put_refuses_and_leaves_nothing(ledger: Ledger, rows: list[Any], code: str) -> None:
    others = [epoch_of("medication", named_bytes("other")), epoch_of("audit", named_bytes("audit"))]
    assert call(ledger, "post_epochs", epochs=others).code == 0
    south = [epoch_of("observation", subject=named_bytes("elsewhere"))]
    assert call(ledger, "post_epochs", epochs=south, by="south gateway").code == 0
    assert put(ledger, row("old"), row("log", **{"class": "audit", "epoch": named_bytes("audit")})) == 0
    before = ledger.view.write_set().encode()
    outcome = call(ledger, "put", rows=[row("z"), *rows] if rows else [])
    assert (outcome.code, outcome.write_count, outcome.events) == (code, 0, ())
    assert ledger.view.write_set().encode() == before


@pytest.mark.parametrize("position", [slice(0, 8), slice(0, 9)])
def test_a_row_of_another_shape_is_no_argument(ledger: Ledger, position: slice) -> None:
    shaped = row()[position] + ((0, 0) if position.stop == 9 else ())
    outcome = ledger.raw("records", "put", {1: (shaped,)}, sender=key("gateway"), attachments=[PACK])
    assert outcome.code == "contract.bad_arguments"
    for wrong in (row(commitment=bytes(31)), row(record=bytes(17)), row(version=-1), row(place=None), row(epoch="x")):
        outcome = ledger.raw("records", "put", {1: (wrong,)}, sender=key("gateway"), attachments=[PACK])
        assert outcome.code == "contract.bad_arguments"


def test_seven_hundred_rows_and_not_one_more(ledger: Ledger) -> None:
    rows = [row(str(number), position=number) for number in range(ROWS_MAX + 1)]
    assert put(ledger, *rows) == "records.row_count"
    assert put(ledger, *rows[:ROWS_MAX]) == 0
    epochs = [epoch_of("observation", subject=named_bytes(str(number))) for number in range(ROWS_MAX + 1)]
    assert call(ledger, "post_epochs", epochs=epochs).code == "records.row_count"
    assert call(ledger, "post_epochs", epochs=[]).code == "records.row_count"
    assert put(ledger, row("one more"), epochs=epochs) == "records.row_count"


@pytest.mark.parametrize("role", ["patient", "researcher", "organisation_admin", "auditor", "payer", *WRITING_ROLES])
def test_only_writing_roles_write(ledger: Ledger, role: str) -> None:
    enrol(ledger, "someone", role)
    expected = 0 if role in WRITING_ROLES else "records.not_permitted"
    assert put(ledger, row(), by="someone") == expected
    assert put(ledger, row("b"), by="stranger") == "records.not_permitted"


def test_a_role_that_ended_writes_no_more(ledger: Ledger) -> None:
    revoked = {"identity": named_bytes("gateway"), "role": "gateway"}
    assert ledger.call("identity", "revoke_credential", revoked, sender=key("north admin")).code == 0
    assert put(ledger, row()) == 0
    ledger.next_block()
    methods: dict[str, dict[str, Any]] = {
        "put": {"rows": [row("b")]},
        "post_epochs": {"epochs": [epoch_of("document")]},
        "rewrap": {"record": named_bytes("a"), "version": 1, "epoch": EPOCH, "attachment": 0},
        "delete": {"record": named_bytes("a"), "version": 2},
    }
    for method, arguments in methods.items():
        assert call(ledger, method, **arguments).code == "records.not_permitted"


def test_only_the_custodian_adds_versions(ledger: Ledger) -> None:
    put(ledger, row())
    assert call(ledger, "post_epochs", epochs=[epoch_of("observation")], by="south gateway").code == 0
    assert put(ledger, row(version=2), by="south gateway") == "records.not_custodian"
    deletion = {"record": named_bytes("a"), "version": 2}
    assert call(ledger, "delete", by="south gateway", **deletion).code == "records.not_custodian"
    again = {"record": named_bytes("a"), "version": 1, "epoch": EPOCH, "attachment": 0}
    assert call(ledger, "rewrap", by="south gateway", **again).code == "records.not_custodian"


def test_a_new_epoch_makes_the_old_one_stale(ledger: Ledger) -> None:
    fresh = named_bytes("fresh")
    assert call(ledger, "post_epochs", epochs=[epoch_of("observation", fresh)]).events == (
        Event("records", "EpochsPosted", (NORTH, 1)),
    )
    assert put(ledger, row()) == "records.epoch_stale"
    assert put(ledger, row(epoch=fresh)) == 0


@pytest.mark.parametrize("method", ["put", "post_epochs"])
def test_an_epoch_is_posted_once(ledger: Ledger, method: str) -> None:
    def post(*epochs: tuple[Any, ...]) -> int | str:
        rows = {"rows": [row()]} if method == "put" else {}
        return call(ledger, method, epochs=epochs, **rows).code

    other_key = (*epoch_of("observation")[:3], named_bytes("other key", 32))
    assert post(other_key) == "records.duplicate_epoch"
    assert post(epoch_of("document"), epoch_of("document", named_bytes("two"))) == "records.duplicate_epoch"
    assert post(epoch_of("document")) == 0


def test_rewrap_changes_epoch_and_wraps_root_alone(ledger: Ledger) -> None:
    put(ledger, row())
    fresh, wraps = named_bytes("fresh"), named_bytes("new wraps", 32)
    call(ledger, "post_epochs", epochs=[epoch_of("observation", fresh)])
    before = ledger.ask("records", "row", id=named_bytes("a"), version=1)
    arguments = {"record": named_bytes("a"), "version": 1, "epoch": fresh, "attachment": 0}
    outcome = call(ledger, "rewrap", packs=[(PACK[0], wraps)], **arguments)
    assert (outcome.code, outcome.write_count) == (0, 2)
    assert ledger.ask("records", "again", pack=PACK[0]) == (ledger.height,)
    after = ledger.ask("records", "row", id=named_bytes("a"), version=1)
    assert after == (*before[:3], fresh, *before[4:6], wraps, *before[7:14], (ledger.height,))
    assert current(ledger) == 1


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"record": named_bytes("missing")}, "records.unknown"),
        ({"version": 2}, "records.unknown"),
        ({"epoch": named_bytes("stale")}, "records.epoch_stale"),
        ({"attachment": 2}, "records.bad_place"),
        ({"attachment": 1}, "records.pack_changed"),
        ({"record": named_bytes("gone"), "version": 2}, "records.deleted"),
    ],
)
def test_rewrap_refuses(ledger: Ledger, changed: dict[str, Any], code: str) -> None:
    put(ledger, row(), row("gone"))
    call(ledger, "delete", record=named_bytes("gone"), version=2)
    arguments = {"record": named_bytes("a"), "version": 1, "epoch": EPOCH, "attachment": 0} | changed
    other = (named_bytes("other pack", 32), named_bytes("other wraps", 32))
    assert call(ledger, "rewrap", packs=[PACK, other], **arguments).code == code


def test_delete_adds_a_version_without_content_and_later_ones_may_follow(ledger: Ledger) -> None:
    put(ledger, row())
    outcome = call(ledger, "delete", packs=(), record=named_bytes("a"), version=2)
    assert outcome.events == (Event("records", "RecordDeleted", (named_bytes("a"), 2)),)
    held = ledger.ask("records", "row", id=named_bytes("a"), version=2)
    assert held[:3] == (PATIENT, NORTH, "observation")
    assert (held[4:7], held[10]) == ((None, None, None), 1)
    assert current(ledger) == 2
    assert call(ledger, "delete", record=named_bytes("a"), version=3).code == "records.deleted"
    assert put(ledger, row(version=3)) == 0
    assert ledger.ask("records", "row", id=named_bytes("a"), version=3)[10] == 0


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("missing", 1, "records.unknown"),
        ("a", 1, "records.version_conflict"),
        ("a", 3, "records.version_conflict"),
        ("log", 2, "records.audit_final"),
    ],
)
def test_delete_refuses(ledger: Ledger, name: str, version: int, code: str) -> None:
    put(ledger, row(), row("log", **{"class": "audit"}), epochs=[epoch_of("audit")])
    assert call(ledger, "delete", record=named_bytes(name), version=version).code == code


# ── access ────────────────────────────────────────────────────────────────────────────────────────────────────────
def append(ledger: Ledger, sequence: int, *rows: tuple[Any, ...], **more: Any) -> Outcome:
    given = rows or (audit_row(f"event {sequence}"),)
    return call(ledger, "append", contract="access", sequence=sequence, rows=given, **more)


def audit_row(name: str, **changed: Any) -> tuple[Any, ...]:
    return row(name, **{"class": "audit", **changed})


@pytest.fixture
def audited(ledger: Ledger) -> Ledger:
    assert call(ledger, "post_epochs", epochs=[epoch_of("audit")]).code == 0
    return ledger


def last(ledger: Ledger, by: str = "gateway") -> Any:
    return ledger.ask("access", "sequence", sender=key(by))


def test_append_puts_the_records_and_counts(audited: Ledger) -> None:
    outcome = append(audited, 1, audit_row("x"), audit_row("y"))
    assert outcome.code == 0
    assert [event.name for event in outcome.events] == ["RecordsPut", "Appended"]
    assert audited.ask("records", "row", id=named_bytes("y"), version=1)[9] == named_bytes("gateway")
    assert (last(audited), append(audited, 2).code, last(audited)) == (1, 0, 2)


@pytest.mark.parametrize("sequence", [0, 1, 3, 2**63 - 1])
def test_a_gap_or_a_repeat_is_refused(audited: Ledger, sequence: int) -> None:
    append(audited, 1)
    assert append(audited, sequence, audit_row("next")).code == "access.sequence_gap"
    assert (last(audited), append(audited, 2).code) == (1, 0)


def test_a_refused_append_does_not_count(audited: Ledger) -> None:
    assert append(audited, 1, audit_row("x", epoch=named_bytes("stale"))).code == "records.epoch_stale"
    assert last(audited) == 0
    assert append(audited, 1, audit_row("x"), packs=()).code == "records.bad_place"
    assert append(audited, 1, audit_row("x"), by="stranger").code == "records.not_permitted"
    assert append(audited, 1).code == 0


def test_every_sender_counts_for_itself(audited: Ledger) -> None:
    enrol(audited, "doctor", "physician")
    assert [append(audited, number).code for number in (1, 2)] == [0, 0]
    assert append(audited, 1, audit_row("theirs"), by="doctor").code == 0
    assert (last(audited), last(audited, "doctor"), last(audited, "stranger")) == (2, 1, 0)


def test_append_takes_audit_records_only(audited: Ledger) -> None:
    assert append(audited, 1, audit_row("x"), row("y")).code == "access.not_audit"
    assert append(audited, 1, audit_row("x", version=2)).code == "access.not_audit"
    assert current(audited, "x") is None


def test_append_posts_its_epochs(ledger: Ledger) -> None:
    assert append(ledger, 1).code == "records.no_epoch"
    assert append(ledger, 1, epochs=[epoch_of("audit")]).code == 0


def test_audit_takes_the_lane_of_its_read() -> None:
    registry = Registry.default()
    assert [registry.lane("access", "append", claimed) for claimed in (0, 1, 2)] == [0, 1, 2]


def test_an_erased_record_keeps_its_row_without_commitment(ledger: Ledger) -> None:
    put(ledger, row())
    put(ledger, row(version=2))
    manifests = [(1, PACK[0], 3)]
    arguments = {"record": named_bytes("a"), "version": 2, "manifests": manifests}
    assert call(ledger, "erase", **arguments).code == "records.not_permitted"
    assert call(ledger, "erase", by="south admin", **arguments).code == "records.not_custodian"
    assert call(ledger, "erase", by="north admin", **arguments | {"version": 1}).code == "records.version_conflict"
    outcome = call(ledger, "erase", by="north admin", **arguments)
    assert outcome.events == (Event("records", "RecordErased", (named_bytes("a"), 1)),)
    for version in (1, 2):
        held = ledger.ask("records", "row", id=named_bytes("a"), version=version)
        assert (held[4], held[5:7], held[10]) == (None, PACK, 2)
    noted = ledger.ask("records", "erasure", number=1)
    assert (noted[0], noted[1], noted[2], noted[6]) == ("record", named_bytes("a"), NORTH, ((1, PACK[0], 3),))
    assert ledger.ask("records", "erasures") == 1
    assert call(ledger, "erase", by="north admin", **arguments).code == "records.erased"
    assert put(ledger, row(version=3)) == "records.erased"
    versions = [(named_bytes("a"), 1)]
    assert call(ledger, "prune", versions=versions).code == "records.erased"


def test_an_erased_subject_takes_no_row_and_no_epoch(ledger: Ledger) -> None:
    put(ledger, row())
    arguments = {"subject": PATIENT, "classes": ("observation", "document")}
    assert call(ledger, "erase_subject", **arguments).code == "records.not_permitted"
    custodian = {"subject": NORTH, "classes": ()}
    assert call(ledger, "erase_subject", by="north admin", **custodian).code == "records.not_a_patient"
    assert call(ledger, "erase_subject", by="north admin", **arguments).code == 0
    assert ledger.ask("records", "subject_erased", subject=PATIENT, custodian=NORTH) == ledger.height
    assert ledger.ask("records", "epoch", subject=PATIENT, custodian=NORTH, class_="observation") is None
    assert put(ledger, row("b")) == "records.subject_erased"
    assert call(ledger, "post_epochs", epochs=[epoch_of("observation")]).code == "records.subject_erased"
    assert call(ledger, "erase_subject", by="north admin", **arguments).code == "records.subject_erased"


def test_pruning_spares_current_versions_and_comes_back(ledger: Ledger) -> None:
    put(ledger, row())
    put(ledger, row(version=2))
    first, second = (named_bytes("a"), 1), (named_bytes("a"), 2)
    assert call(ledger, "prune", versions=[first, second]).code == "records.current_version"
    assert call(ledger, "restore", versions=[first]).code == "records.not_pruned"
    assert call(ledger, "prune", by="south gateway", versions=[first]).code == "records.not_custodian"
    assert call(ledger, "prune", versions=[first]).code == 0
    assert call(ledger, "prune", versions=[first]).code == "records.pruned"
    before = ledger.ask("records", "row", id=first[0], version=1)
    assert (before[4], before[10]) == (named_bytes("a 1", 32), 4)
    assert call(ledger, "restore", versions=[first]).code == 0
    assert ledger.ask("records", "row", id=first[0], version=1)[10] == 0
    assert call(ledger, "prune", versions=[second], current=True).code == 0


def test_a_hold_covers_its_record_and_its_subject(ledger: Ledger) -> None:
    put(ledger, row())
    put(ledger, row(version=2), row("b"))
    erase_b = {"record": named_bytes("b"), "version": 1}

    def hold(name: str, kind: str, target: bytes, by: str = "north admin", reason: str = "litigation") -> int | str:
        arguments = {"hold": named_bytes(name), "kind": kind, "target": target, "reason": reason}
        return call(ledger, "hold", by=by, **arguments).code

    assert hold("one", "record", named_bytes("a"), by="gateway") == "records.not_permitted"
    assert hold("one", "record", named_bytes("a"), by="south admin") == "records.not_custodian"
    assert hold("one", "record", named_bytes("a"), reason="spite") == "records.unknown_reason"
    assert hold("one", "pack", named_bytes("a")) == "records.unknown_kind"
    assert hold("one", "record", named_bytes("a")) == 0
    assert hold("one", "subject", PATIENT) == "records.hold_exists"
    assert call(ledger, "prune", versions=[(named_bytes("a"), 1)]).code == "records.held"
    assert call(ledger, "erase", by="north admin", record=named_bytes("a"), version=2).code == "records.held"
    assert call(ledger, "erase_subject", by="north admin", subject=PATIENT, classes=()).code == "records.held"
    assert hold("two", "subject", PATIENT) == 0
    assert call(ledger, "erase", by="north admin", **erase_b).code == "records.held"
    assert ledger.ask("records", "holds", custodian=NORTH) == (named_bytes("one"), named_bytes("two"))
    assert call(ledger, "release", by="south admin", hold=named_bytes("two")).code == "records.no_hold"
    assert call(ledger, "release", by="north admin", hold=named_bytes("two")).code == 0
    assert call(ledger, "release", by="north admin", hold=named_bytes("two")).code == "records.hold_released"
    assert call(ledger, "erase", by="north admin", **erase_b).code == 0
    assert call(ledger, "erase_subject", by="north admin", subject=PATIENT, classes=()).code == "records.held"
    assert call(ledger, "release", by="north admin", hold=named_bytes("one")).code == 0
    assert call(ledger, "erase_subject", by="north admin", subject=PATIENT, classes=()).code == 0
