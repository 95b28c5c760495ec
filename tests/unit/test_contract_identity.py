"""The identity contract: who may enrol, separation of duty, periods, rotation, revocation."""

from __future__ import annotations

from typing import Any

import pytest
from ehrfast._core import SigningKey
from ehrfast.contracts import Outcome, Registry
from ehrfast.contracts.identity import ROLES
from ehrfast.errors import InvalidInputError

from tests.reference.ledger import Founding, Ledger, Organisation, named_bytes

NORTH, SOUTH = named_bytes("north"), named_bytes("south")


def key(name: str) -> bytes:
    """A good public key, the same for a name."""
    return SigningKey.from_seed(named_bytes(name, 32)).public_key


def founded(name: str) -> tuple[bytes, bytes]:
    return named_bytes(name), key(name)


@pytest.fixture
def ledger() -> Ledger:
    north = Organisation(NORTH, (founded("north admin"), founded("second admin")))
    made = Ledger(
        Registry(["ehrfast.contracts.identity"]),
        Founding((north, Organisation(SOUTH, (founded("south admin"),)))),
    )
    made.next_block()
    return made


def enrol(ledger: Ledger, name: str, role: str = "physician", by: str = "north admin", **more: object) -> Outcome:
    arguments = {"identity": named_bytes(name), "key": key(name), "custody": 0, "role": role, **more}
    return ledger.call("identity", "enrol", arguments, sender=key(by))


def call(ledger: Ledger, method: str, by: str, **arguments: object) -> Outcome:
    return ledger.call("identity", method, arguments, sender=key(by))


def roles(ledger: Ledger, name: str, organisation: bytes = NORTH) -> Any:
    return ledger.ask("identity", "roles", identity=named_bytes(name), organisation=organisation)


def holder(ledger: Ledger, name: str) -> Any:
    return ledger.ask("identity", "by_key", key=key(name))


def test_genesis_writes_organisations_and_their_admins(ledger: Ledger) -> None:
    assert holder(ledger, "north admin") == (named_bytes("north admin"), NORTH)
    assert roles(ledger, "north admin") == ("organisation_admin",)
    assert roles(ledger, "north admin", SOUTH) == ()
    assert ledger.ask("identity", "organisation", id=NORTH) == ((key("north admin"), key("second admin")), 1, 1_000_000)


@pytest.mark.parametrize(
    ("organisations", "code"),
    [
        ((Organisation(NORTH, (founded("a"),), 2),), "identity.bad_threshold"),
        ((Organisation(NORTH, (founded("a"),), 0),), "identity.bad_threshold"),
        ((Organisation(NORTH, (), 0),), "identity.bad_threshold"),
        ((Organisation(NORTH, (founded("a"),)), Organisation(NORTH, (founded("b"),))), "identity.exists"),
        ((Organisation(NORTH, (founded("a"), founded("a"))),), "identity.exists"),
        ((Organisation(NORTH, (founded("a"), (named_bytes("b"), key("a")))),), "identity.key_in_use"),
        ((Organisation(NORTH, ((named_bytes("a"), bytes(32)),)),), "key.small_order"),
        ((Organisation(b"short", (founded("a"),)),), "contract.bad_arguments"),
    ],
)
def test_a_genesis_that_does_not_hold_together_is_refused(organisations: tuple[Organisation, ...], code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Ledger(Registry(["ehrfast.contracts.identity"]), Founding(organisations))
    assert refused.value.code == code


def test_enrol_writes_identity_key_and_role(ledger: Ledger) -> None:
    outcome = enrol(ledger, "patient", "patient", custody=1, subject=named_bytes("subject"))
    assert outcome.code == 0
    assert outcome.events[0].values == (named_bytes("patient"), NORTH, "patient")
    row = (NORTH, 1, 0, key("patient"), named_bytes("subject"), ledger.time_ms)
    assert ledger.ask("identity", "identity", id=named_bytes("patient")) == row
    assert ledger.ask("identity", "acting", key=key("patient")) == (named_bytes("patient"), NORTH, ("patient",))
    issued = ledger.ask("identity", "credential", identity=named_bytes("patient"), organisation=NORTH, role="patient")
    assert issued == (ledger.time_ms, None, named_bytes("north admin"), None)


@pytest.mark.parametrize("role", ROLES)
def test_every_role_of_the_list_can_be_given(ledger: Ledger, role: str) -> None:
    assert enrol(ledger, "someone", role).code == 0
    assert roles(ledger, "someone") == (role,)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"role": "surgeon"}, "identity.unknown_role"),
        ({"role": "Physician"}, "identity.unknown_role"),
        ({"custody": 2}, "identity.bad_custody"),
        ({"subject": named_bytes("subject")}, "identity.subject_without_patient"),
        ({"from_ms": 1_000_999}, "identity.bad_period"),
        ({"until_ms": 1_001_000}, "identity.bad_period"),
        ({"from_ms": 1_002_000, "until_ms": 1_002_000}, "identity.bad_period"),
        ({"identity": named_bytes("north admin")}, "identity.exists"),
        ({"key": key("north admin")}, "identity.key_in_use"),
        ({"key": bytes(32)}, "key.small_order"),
        ({"key": (1).to_bytes(32, "little")}, "key.small_order"),
        ({"key": b"\xff" * 32}, "key.not_canonical"),
    ],
)
def test_enrol_refuses(ledger: Ledger, more: dict[str, Any], code: str) -> None:
    before = ledger.view.write_set()
    outcome = enrol(ledger, "doctor", **{"role": "physician", **more})
    assert (outcome.code, outcome.events) == (code, ())
    assert ledger.view.write_set() == before


def test_only_an_admin_enrols_and_only_at_home(ledger: Ledger) -> None:
    enrol(ledger, "doctor")
    for method in ("enrol", "issue_credential", "revoke_credential"):
        arguments: dict[str, object] = {"identity": named_bytes("x"), "role": "nurse"}
        if method == "enrol":
            arguments |= {"key": key("x"), "custody": 0}
        assert call(ledger, method, "doctor", **arguments).code == "identity.not_permitted"
        assert call(ledger, method, "stranger", **arguments).code == "identity.no_key"
    enrol(ledger, "other", by="south admin")
    assert holder(ledger, "other") == (named_bytes("other"), SOUTH)


def test_nobody_issues_for_themselves(ledger: Ledger) -> None:
    own = call(ledger, "issue_credential", "north admin", identity=named_bytes("north admin"), role="physician")
    assert own.code == "identity.self_issue"
    by_another = call(ledger, "issue_credential", "second admin", identity=named_bytes("north admin"), role="physician")
    assert by_another.code == 0
    assert roles(ledger, "north admin") == ("organisation_admin", "physician")


def test_a_credential_is_of_the_organisation_that_issued_it(ledger: Ledger) -> None:
    enrol(ledger, "doctor")
    assert call(ledger, "issue_credential", "south admin", identity=named_bytes("doctor"), role="nurse").code == 0
    assert (roles(ledger, "doctor"), roles(ledger, "doctor", SOUTH)) == (("physician",), ("nurse",))
    revoked = call(ledger, "revoke_credential", "south admin", identity=named_bytes("doctor"), role="physician")
    assert revoked.code == "identity.no_credential"


def test_a_period_has_an_inclusive_start_and_an_exclusive_end(ledger: Ledger) -> None:
    start, end = ledger.time_ms + 1_000, ledger.time_ms + 3_000
    enrol(ledger, "doctor", from_ms=start, until_ms=end)
    seen = []
    for time_ms in (start - 1, start, end - 1, end):
        ledger.next_block(time_ms)
        by_time = ledger.ask(
            "identity", "has_role", identity=named_bytes("doctor"), organisation=NORTH, role="physician", time=time_ms
        )
        assert by_time == bool(roles(ledger, "doctor"))
        seen.append(by_time)
    assert seen == [False, True, True, False]


def test_an_admin_whose_time_is_over_enrols_nobody(ledger: Ledger) -> None:
    enrol(ledger, "deputy", "organisation_admin", until_ms=ledger.time_ms + 1_000)
    assert enrol(ledger, "one", by="deputy").code == 0
    ledger.next_block()
    assert enrol(ledger, "two", by="deputy").code == "identity.not_permitted"


def test_a_role_in_force_is_not_issued_twice_and_an_ended_one_again(ledger: Ledger) -> None:
    enrol(ledger, "doctor", until_ms=ledger.time_ms + 1_000)
    again = {"identity": named_bytes("doctor"), "role": "physician"}
    assert call(ledger, "issue_credential", "north admin", **again).code == "identity.credential_exists"
    ledger.next_block()
    assert roles(ledger, "doctor") == ()
    assert call(ledger, "issue_credential", "north admin", **again).code == 0
    assert roles(ledger, "doctor") == ("physician",)
    call(ledger, "revoke_credential", "north admin", **again)
    assert call(ledger, "issue_credential", "north admin", **again).code == 0
    nobody = {"identity": named_bytes("nobody"), "role": "nurse"}
    assert call(ledger, "issue_credential", "north admin", **nobody).code == "identity.unknown"


def test_a_revoked_credential_is_dead_from_the_next_block(ledger: Ledger) -> None:
    enrol(ledger, "doctor")
    revoked = {"identity": named_bytes("doctor"), "role": "physician"}
    assert call(ledger, "revoke_credential", "second admin", **revoked).code == 0
    assert roles(ledger, "doctor") == ("physician",)
    assert call(ledger, "revoke_credential", "second admin", **revoked).code == "identity.already_revoked"
    ledger.next_block(ledger.time_ms + 1)
    assert roles(ledger, "doctor") == ()


def test_rotation_keeps_the_old_key_for_this_block_only(ledger: Ledger) -> None:
    enrol(ledger, "doctor")
    ledger.next_block()
    assert call(ledger, "rotate_key", "doctor", key=key("new")).code == 0
    assert holder(ledger, "doctor") == holder(ledger, "new") == (named_bytes("doctor"), NORTH)
    assert call(ledger, "rotate_key", "doctor", key=key("third")).code == "identity.not_current_key"
    ledger.next_block(ledger.time_ms + 1)
    assert holder(ledger, "doctor") is None
    assert call(ledger, "rotate_key", "doctor", key=key("third")).code == "identity.no_key"
    assert call(ledger, "rotate_key", "new", key=key("third")).code == 0
    assert ledger.ask("identity", "identity", id=named_bytes("doctor"))[3] == key("third")


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (key("doctor"), "identity.key_in_use"),
        (key("south admin"), "identity.key_in_use"),
        (bytes(32), "key.small_order"),
    ],
)
def test_rotation_refuses_a_key_in_use_or_weak(ledger: Ledger, new: bytes, code: str) -> None:
    enrol(ledger, "doctor")
    assert call(ledger, "rotate_key", "doctor", key=new).code == code


@pytest.mark.parametrize("by", ["doctor", "second admin"])
def test_a_revoked_key_is_dead_from_the_next_block(ledger: Ledger, by: str) -> None:
    enrol(ledger, "doctor", "organisation_admin")
    assert call(ledger, "revoke_key", by, key=key("doctor")).code == 0
    assert enrol(ledger, "one", by="doctor").code == 0  # the same block
    assert call(ledger, "revoke_key", by, key=key("doctor")).code == "identity.already_revoked"
    ledger.next_block(ledger.time_ms + 1)
    assert enrol(ledger, "two", by="doctor").code == "identity.no_key"
    assert ledger.ask("identity", "identity", id=named_bytes("doctor"))[2] == 1


def test_a_key_is_revoked_by_its_own_or_its_admins_only(ledger: Ledger) -> None:
    enrol(ledger, "doctor")
    enrol(ledger, "nurse", "nurse")
    for by, code in [("nurse", "not_permitted"), ("south admin", "not_permitted"), ("stranger", "no_key")]:
        assert call(ledger, "revoke_key", by, key=key("doctor")).code == f"identity.{code}"
    assert call(ledger, "revoke_key", "north admin", key=key("stranger")).code == "identity.unknown_key"
    assert holder(ledger, "doctor") is not None


def test_revoking_a_former_key_leaves_the_identity_active(ledger: Ledger) -> None:
    enrol(ledger, "doctor")
    call(ledger, "rotate_key", "doctor", key=key("new"))
    ledger.next_block()
    assert call(ledger, "revoke_key", "new", key=key("doctor")).code == 0
    ledger.next_block()
    assert holder(ledger, "new") is not None
    assert ledger.ask("identity", "identity", id=named_bytes("doctor"))[2] == 0


def test_the_roles_are_those_of_the_model() -> None:
    model = pytest.importorskip("ehrfast.model.identity", reason="the model's vocabulary is not there")
    assert set(ROLES) == set(model.ROLES)


def test_revocations_are_urgent_whatever_they_claim() -> None:
    registry = Registry.default()
    for method in ("revoke_credential", "revoke_key", "rotate_key"):
        assert [registry.lane("identity", method, claimed) for claimed in (0, 1, 2)] == [1, 1, 1]
    assert [registry.lane("identity", "enrol", claimed) for claimed in (0, 1, 2)] == [1, 1, 2]


def test_unknown_things_are_null(ledger: Ledger) -> None:
    nobody = named_bytes("nobody")
    assert ledger.ask("identity", "identity", id=nobody) is None
    assert ledger.ask("identity", "organisation", id=nobody) is None
    assert ledger.ask("identity", "acting", key=key("nobody")) is None
    assert ledger.ask("identity", "credential", identity=nobody, organisation=NORTH, role="nurse") is None
    assert roles(ledger, "nobody") == ()
