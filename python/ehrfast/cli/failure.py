"""What a failed command tells: its exit code, and one line on standard error for people or for programs.

The line holds codes, counts and file names that the caller gave; never anything a record contains.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ehrfast.errors import (
    ConflictError,
    CorruptionError,
    DeniedError,
    EhrfastError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)

USAGE: Final = 2
UNAVAILABLE: Final = 6
NOT_FOUND: Final = 4
EXIT_CODES: Final[Mapping[type[EhrfastError], int]] = MappingProxyType(
    {
        VerificationError: 1,
        DeniedError: 3,
        NotFoundError: NOT_FOUND,
        ConflictError: 5,
        UnavailableError: UNAVAILABLE,
        CorruptionError: 7,
        InvalidInputError: 8,
    }
)
"""Exit codes by kind of error; 0 is success and 2 is wrong usage. Fixed for outside scripts."""

_ADVICE: Final = {
    "node.not_there": "there is no node in this folder; ehrfast init makes one",
    "node.exists": "the folder is not empty; a node needs a new one",
    "node.locked": "another process has this node open",
    "keys.wrong_root_key": "this root key does not open this node's key store",
    "keys.history_damaged": "the chain's file key-history is not what ehrfast wrote",
    "keys.history_missing": "the chain's file key-history is gone, and its first key is not the present one",
    "key_history.other_log": "the key that is trusted is not in this history",
    "checkpoint.key_not_in_force": "signed with a key of this log that was not in force at that size",
    "witness.signature_refused": "the witness does not know this key; ehrfast witness trust tells it",
    "keys.node_running": "the node runs; call node.rotate_keys(...) in its process, or stop it first",
    "keys.no_source_wanted": "--to is for the root key only",
    "node.settings_damaged": "node.json is not what ehrfast wrote; put a copy back, it is not edited by hand",
    "root_key.missing": "the node's root key is not where it was when the node was made",
    "root_key.exposed": "others may read the root key file; chmod 600 it first",
    "clock.unsteady": "the clock has jumped; when it is right, ehrfast clock trust says so",
    "record.unknown": "there is no such record, or none that this identity may know of",
    "access.not_a_reader": "this identity may read no record at all",
    "identity.unknown": "no identity of that id is enrolled here; ehrfast keys list names them",
    "identity.malformed": "an identity is 32 hex digits, as ehrfast keys enrol prints it",
    "role.unknown": "no such role; the details list the known ones",
    "request.malformed": "this is no request; the details name the member",
    "request.not_json": "the file is not JSON",
    "consent.not_a_list": "the consents are neither an array nor a Bundle nor a Consent",
    "purpose.unknown": "no such purpose of use; the details list the known ones",
    "evidence.not_disclosed": "this evidence does not disclose the record; prove with --disclose to match a resource",
    "checkpoint.quorum_missed": "fewer witnesses have cosigned the checkpoint than were asked for",
    "log.shorter_than_witnessed": "a witness has seen more of this log: the folder is an older copy or lost blocks",
    "log.not_the_witnessed": "a witness has seen another history under this chain's name",
    "import.no_such_file": "there is no such file or folder",
    "file.not_found": "there is no such file or folder",
    "export.not_empty": "the folder is not empty; an export needs a new one",
    "node.restored": "a restored node is for reading only until a checkpoint matches it; see ehrfast backup confirm",
    "backup.not_there": "there is no backup target here",
    "backup.not_a_target": "the folder holds something else; a target needs a new or empty one",
    "backup.none": "the target holds no backup whose key is left",
    "backup.missing_part": "a part of the backup is missing",
    "backup.part_damaged": "a part of the backup is not what was written",
    "backup.record_erased_since": "a record was erased after this backup was made; restore a newer one",
    "backup.other_node": "the target holds the backups of another node",
    "backup.ahead": "the target holds a later height of this chain: the folder is an older copy",
    "backup_key.one_source": "name one source of the backup key: --share, --key or --node",
    "backup_key.missing_passphrase": "the passphrase is expected in EHRFAST_BACKUP_PASSPHRASE",
    "backup_key.wrong_passphrase": "this passphrase does not open the file",
    "shares.refused": "these shares do not give a key: too few, of different keys, or misspelt",
    "shares.out_of_range": "at least 2 of at most 16 shares: --threshold K --shares N",
    "shares.not_installed": "pip install 'ehrfast[backup]' adds the sharing of keys",
    "checkpoint.not_the_head": "the newest checkpoint you know is of another size than this copy of the log",
    "demo.not_a_demo": "the folder holds something that no demo has made; choose another one",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command did not do what it was asked.

    Args:
        exit_code: of the process.
        code: stable, for programs.
        message: for people.
        details: ids, counts, offsets.
    """

    exit_code: int
    code: str
    message: str
    details: Mapping[str, object]


def failure_of(error: Exception) -> Failure:
    """How an exception is told."""
    if isinstance(error, EhrfastError):
        found = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), UNAVAILABLE)
        return Failure(found, error.code, _ADVICE.get(error.code, str(error)), error.details)
    if isinstance(error, OSError):
        details = {} if error.filename is None else {"file": str(error.filename)}
        if isinstance(error, FileNotFoundError):
            return Failure(NOT_FOUND, "file.not_found", _ADVICE["file.not_found"], details)
        name = errno.errorcode.get(error.errno or 0, "unknown").lower()
        return Failure(UNAVAILABLE, f"os.{name}", error.strerror or name, details)
    # Its text could quote what was being read, so only its kind is told; EHRFAST_TRACEBACK=1 shows the place.
    kind = type(error).__name__
    return Failure(UNAVAILABLE, "internal", f"a fault in ehrfast itself: {kind}", {"kind": kind})


def report(failure: Failure, as_json: bool) -> int:
    """Writes the last line of standard error and gives the exit code."""
    if as_json:
        told = {"code": failure.code, "message": failure.message, "details": _plain(failure.details)}
        line = json.dumps({"error": told}, ensure_ascii=False)
    elif failure.code in ("usage", "interrupted"):
        line = f"ehrfast: {failure.message}"
    else:
        details = "".join(f", {name} {_plain(value)}" for name, value in failure.details.items())
        line = f"ehrfast: {failure.message} [{failure.code}{details}]"
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
    return failure.exit_code


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
