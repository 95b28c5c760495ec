"""Key histories: what they give back, and every way in which a statement must not be believed."""

from __future__ import annotations

import pytest
from ehrfast._core import SigningKey
from ehrfast.errors import EhrfastError, InvalidInputError, VerificationError
from ehrfast.model.checkpoint import Checkpoint, Note, open_checkpoint, sign_checkpoint, verifier_key
from ehrfast.model.key_history import KeyHistory, Rotation

ORIGIN = "clinic-00112233445566778899aabbccddeeff"
KEYS = [SigningKey.from_seed(bytes([number]) * 32) for number in range(1, 5)]


def history(*sizes: int) -> KeyHistory:
    found = KeyHistory.of(verifier_key(ORIGIN, KEYS[0].public_key))
    for number, size in enumerate(sizes):
        found = found.followed_by(Rotation.sign(ORIGIN, size, KEYS[number], KEYS[number + 1]))
    return found


def checkpoint(size: int, key: SigningKey) -> bytes:
    return sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)), key)


def test_a_history_is_read_as_it_was_rendered() -> None:
    for sizes in [(2,), (2, 2), (2, 9, 40)]:
        found = history(*sizes)
        assert KeyHistory.parse(found.render()) == found
        assert found.without_last().keys == found.keys[:-1]
    assert history().render() == b""


def test_every_changed_byte_is_refused() -> None:
    data = history(2, 9).render()
    for at in range(len(data)):
        for bit in (0, 5, 7):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises(EhrfastError):
                KeyHistory.parse(changed)
    for at in set(range(len(data))) - {len(history(2).render())}:
        with pytest.raises(EhrfastError):
            KeyHistory.parse(data[:at])


@pytest.mark.parametrize("missing", [0, 1])
def test_both_keys_must_have_signed(missing: int) -> None:
    note = Note.parse(history(2).render())
    kept = note.signatures[1 - missing]
    with pytest.raises(InvalidInputError):
        Rotation.open(Note(note.text, (kept,)).render())
    with pytest.raises(VerificationError, match=r"checkpoint\.not_signed"):
        Rotation.open(Note(note.text, (kept, kept)).render())
    forged = Note.parse(Rotation.sign(ORIGIN, 2, KEYS[2], KEYS[1]).note)  # by somebody else in the former key's place
    with pytest.raises(EhrfastError):
        Rotation.open(Note(note.text, (forged.signatures[0], note.signatures[1])).render())


def test_statements_must_follow_one_another() -> None:
    one, other = Rotation.sign(ORIGIN, 9, KEYS[0], KEYS[1]), Rotation.sign(ORIGIN, 12, KEYS[2], KEYS[3])
    back = Rotation.sign(ORIGIN, 8, KEYS[1], KEYS[2])
    for second in (other, back, one):
        with pytest.raises(InvalidInputError, match=r"key_history\.malformed"):
            KeyHistory.parse(one.note + second.note)


def test_each_key_counts_for_its_own_sizes() -> None:
    found = history(5, 9)
    for number, (start, end) in enumerate([(1, 5), (5, 9), (9, 100)]):
        for size in range(1, 101):
            note = checkpoint(size, KEYS[number])
            if start <= size <= end:
                assert found.open_checkpoint(note).tree_size == size
            else:
                with pytest.raises(VerificationError, match=r"checkpoint\.key_not_in_force"):
                    found.open_checkpoint(note)
    with pytest.raises(VerificationError, match=r"checkpoint\.not_signed"):
        found.open_checkpoint(checkpoint(5, KEYS[3]))


def test_any_key_of_a_history_is_trusted_and_no_other() -> None:
    found = history(5, 9)
    for key in KEYS[:3]:
        assert found.trusted_by(verifier_key(ORIGIN, key.public_key)) is found
    for vkey in (verifier_key(ORIGIN, KEYS[3].public_key), verifier_key("other", KEYS[0].public_key)):
        with pytest.raises(VerificationError, match=r"key_history\.other_log"):
            found.trusted_by(vkey)


def test_a_statement_is_no_checkpoint() -> None:
    with pytest.raises(EhrfastError):
        open_checkpoint(history(5).render(), verifier_key(ORIGIN, KEYS[0].public_key))
