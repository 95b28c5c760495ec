"""The backup root key, which opens the key stores of backup targets, and the forms in which it leaves the node.

Shares are SLIP-0039 mnemonics, k of n, made and combined by the reviewed library `shamir-mnemonic`; the file is sealed
under a passphrase (Argon2id). Refuses too few, foreign and damaged shares, and a wrong passphrase.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

from ehrfast._core import KeyStore, derive_root_key, open_part, random_bytes, seal_part
from ehrfast.errors import (
    ConflictError,
    CorruptionError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)

BACKUP_KIND: Final = "backup"
ROOT: Final = b"root"
PASSPHRASE_VARIABLE: Final = "EHRFAST_BACKUP_PASSPHRASE"
MAX_SHARES: Final = 16
_AAD: Final = b"ehrfast/backup-root/v1"
_SALT_BYTES: Final = 16
_FORMAT: Final = 1
_KEY_BYTES: Final = 32


def backup_root_key(store: KeyStore) -> bytes:
    """The key a node was made with.

    Raises:
        NotFoundError: ``keys.missing``.
    """
    key = store.get(BACKUP_KIND, ROOT)
    if key is None or len(key) != _KEY_BYTES:
        raise NotFoundError("keys.missing", {"kind": BACKUP_KIND})
    return key


def write_shares(folder: Path, key: bytes, *, threshold: int, shares: int) -> list[Path]:
    """Writes shares as ``share-01.txt`` and so on into a new or empty folder: one for each keeper.

    Args:
        threshold: how many of them give the key back; fewer tell nothing about it.

    Raises:
        InvalidInputError: ``shares.out_of_range``: 2 <= threshold <= shares <= 16.
        ConflictError: ``export.not_empty``.
    """
    if not 2 <= threshold <= shares <= MAX_SHARES:
        raise InvalidInputError("shares.out_of_range", {"threshold": threshold, "shares": shares})
    library = _library()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError("export.not_empty", {"folder": str(folder)})
    (mnemonics,) = library.generate_mnemonics(1, [(threshold, shares)], key)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = [folder / f"share-{number + 1:02}.txt" for number in range(shares)]
    for path, mnemonic in zip(paths, mnemonics, strict=True):
        _write_private(path, mnemonic + "\n")
    return paths


def combine_shares(files: Sequence[Path]) -> bytes:
    """The key of as many shares as its threshold asks for, or more.

    Raises:
        InvalidInputError: ``shares.refused``: too few, of different keys, or misspelt.
        NotFoundError: ``file.not_found``.
    """
    library = _library()
    try:
        mnemonics = list(dict.fromkeys(path.read_text(encoding="ascii").strip() for path in files))
    except UnicodeDecodeError:
        raise InvalidInputError("shares.refused", {"shares": len(files)}) from None
    except FileNotFoundError:
        raise NotFoundError("file.not_found") from None
    try:
        # More than the threshold are as good: any of them that fit together give the key.
        needed = library.Share.from_mnemonic(mnemonics[0]).member_threshold if mnemonics else 0
        key = bytes(library.combine_mnemonics(mnemonics[:needed] if len(mnemonics) > needed else mnemonics))
    except library.MnemonicError:
        raise InvalidInputError("shares.refused", {"shares": len(files)}) from None
    if len(key) != _KEY_BYTES:
        raise InvalidInputError("shares.refused", {"shares": len(files)})
    return key


def write_sealed(path: Path, key: bytes, passphrase: str) -> None:
    """Writes the key into one file, sealed under a passphrase.

    Raises:
        ConflictError: ``export.exists``.
        InvalidInputError: ``keys.invalid_entry`` for an empty passphrase.
    """
    salt = random_bytes(_SALT_BYTES)
    sealed = seal_part(derive_root_key(passphrase, salt), _AAD + salt, key)
    value = {"ehrfast_backup_key": _FORMAT, "kdf": "argon2id-64MiB-3-1", "salt": salt.hex(), "sealed": sealed.hex()}
    try:
        _write_private(path, json.dumps(value) + "\n")
    except FileExistsError:
        raise ConflictError("export.exists", {"file": str(path)}) from None


def read_sealed(path: Path, passphrase: str) -> bytes:
    """The key out of such a file.

    Raises:
        DeniedError: ``backup_key.wrong_passphrase``.
        InvalidInputError: ``backup_key.malformed``.
        NotFoundError: ``file.not_found``.
    """
    try:
        value = json.loads(path.read_text(encoding="ascii"))
        if value["ehrfast_backup_key"] != _FORMAT:
            raise ValueError
        salt, sealed = bytes.fromhex(value["salt"]), bytes.fromhex(value["sealed"])
    except FileNotFoundError:
        raise NotFoundError("file.not_found") from None
    except (ValueError, KeyError, TypeError):
        raise InvalidInputError("backup_key.malformed") from None
    try:
        key = open_part(derive_root_key(passphrase, salt), _AAD + salt, sealed)
    except CorruptionError:
        raise DeniedError("backup_key.wrong_passphrase") from None
    if len(key) != _KEY_BYTES:
        raise InvalidInputError("backup_key.malformed")
    return key


def _library() -> ModuleType:
    try:
        return import_module("shamir_mnemonic")
    except ModuleNotFoundError:
        raise UnavailableError("shares.not_installed") from None


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
