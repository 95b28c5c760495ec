"""The planted faults: for each guard that protects data, the change that breaks it and the tests that must see it.

A plant is one piece of text in one file and what stands there instead, applied to copies only. Rust plants are built
together, each behind the environment variable EHRFAST_PLANT, so that one build serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Plant:
    """One fault.

    Args:
        name: of the fault.
        file: below the repository.
        old: text that occurs there exactly once.
        new: what stands there instead; in Rust ``PLANTED`` is whether this plant is chosen.
        tests: that must fail with it, and pass without: pytest ids, or names in the Rust suite.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def rust(self) -> bool:
        """Whether it is compiled."""
        return self.file.endswith(".rs")

    def applied(self, text: str) -> str:
        """The file with the fault in it.

        Raises:
            ValueError: the text is not there, or more than once.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: its text occurs {text.count(self.old)} times in {self.file}")
        chosen = f'std::env::var_os("EHRFAST_PLANT").is_some_and(|name| name == "{self.name}")'
        return text.replace(self.old, self.new.replace("PLANTED", chosen))


PLANTS: Final = (
    Plant(
        "sync skipped",
        "rust/core/src/store/segments.rs",
        "        segment.file.write_at(frame, tail.end)?;\n        segment.file.sync_data()\n",
        "        segment.file.write_at(frame, tail.end)?;\n"
        "        if PLANTED { Ok(()) } else { segment.file.sync_data() }\n",
        (
            "store::segments::a_crash_at_any_operation_loses_nothing_acknowledged",
            "store::segments::an_append_costs_one_sync",
        ),
    ),
    Plant(
        "key slot not overwritten",
        "rust/core/src/store/key_store.rs",
        "        slots.write_at(&[0; SLOT_BYTES], slot_offset(state.generation))?;\n",
        "        if !PLANTED {\n"
        "            slots.write_at(&[0; SLOT_BYTES], slot_offset(state.generation))?;\n"
        "        }\n",
        ("store::key_store::the_slot_of_a_former_generation_is_overwritten",),
    ),
    Plant(
        "nonce reused",
        "rust/core/src/store/segments.rs",
        "            salt: digest::random_array()?,\n            previous_leaf_hash: tail.leaf_hash,\n",
        "            salt: if PLANTED { [7; 32] } else { digest::random_array()? },\n"
        "            previous_leaf_hash: tail.leaf_hash,\n",
        ("store::segments::a_block_written_twice_shares_no_key_stream",),
    ),
    Plant(
        "batch verdict ignored",
        "rust/core/src/transaction.rs",
        "if verdicts.next() == Some(true) { Ok(item.transaction) }",
        "if verdicts.next() == Some(true) || PLANTED { Ok(item.transaction) }",
        ("transaction::each_item_gets_its_own_verdict_and_stops_no_other",),
    ),
    Plant(
        "verdict of decoded transactions ignored",
        "python/ehrfast/chain/admit.py",
        "verdicts[i] = item if code is None else code",
        "verdicts[i] = item",
        ("tests/planted/test_guards.py::test_a_decoded_transaction_is_judged_like_its_bytes",),
    ),
    Plant(
        "audit forgotten",
        "python/ehrfast/access/session.py",
        '        self._gate.audit_access(principal, self._purpose, "read", [entry], counted=False)\n'
        "        content = self._gate.open(entry, row).content\n",
        "        content = self._gate.open(entry, row).content\n",
        (
            "tests/walk/test_walk.py::test_every_read_is_in_the_patients_own_audit_log_before_it_answers",
            "tests/walk/test_failures.py::test_no_read_answers_when_its_audit_cannot_be_kept",
        ),
    ),
    Plant(
        "gate left out",
        "python/ehrfast/access/gate.py",
        "if entry is None or decision is None or not decision.permits:",
        "if entry is None or decision is None:",
        ("tests/walk/test_walk.py::test_who_may_not_read_is_refused_and_hidden_equals_absent",),
    ),
    Plant(
        "break-glass inherited",
        "python/ehrfast/policy/codes.py",
        "below - {BREAK_GLASS} if permit and word != BREAK_GLASS else below",
        "below",
        ("tests/unit/test_consent.py::test_break_glass_is_not_inherited_from_a_treatment_permit",),
    ),
    Plant(
        "unreadable consent dropped",
        "python/ehrfast/policy/fhir.py",
        "return tuple(each for each in found if each is not None)",
        "return tuple(each for each in found if isinstance(each, Consent))",
        ("tests/unit/test_consent.py::test_a_malformed_newer_deny_does_not_leave_the_field_to_an_older_permit",),
    ),
    Plant(
        "unresolvable actor let through",
        "python/ehrfast/policy/decide.py",
        "(rule.permit or not _may_be(rule.actors, asking))",
        "True",
        ("tests/unit/test_consent.py::test_an_actor_that_cannot_be_resolved_is_denied_and_not_permitted",),
    ),
    Plant(
        "consent outlives its end",
        "python/ehrfast/policy/decide.py",
        "if not rule.from_ms <= asking.now < rule.until_ms:",
        "if not rule.from_ms <= asking.now <= rule.until_ms:",
        ("tests/unit/test_consent.py::test_a_consent_is_expired_at_the_tick",),
    ),
)
