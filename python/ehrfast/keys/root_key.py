"""Where the node's root key comes from: a 0600 file, the environment, or a passphrase.

It wraps the key store's key and is never stored by ehrfast itself, except in the file it makes when nothing else is
given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ehrfast._core import derive_root_key, random_bytes
from ehrfast.errors import DeniedError, InvalidInputError, NotFoundError

ROOT_KEY_VARIABLE: Final = "EHRFAST_ROOT_KEY"
PASSPHRASE_VARIABLE: Final = "EHRFAST_PASSPHRASE"
SALT_BYTES: Final = 16

Source = Literal["file", "environment", "passphrase"]


@dataclass(frozen=True, slots=True)
class RootKeySource:
    """How a node's root key is found again.

    Args:
        kind: file, environment (64 hex digits in EHRFAST_ROOT_KEY) or passphrase (EHRFAST_PASSPHRASE, Argon2id).
        path: of the key file, absolute or relative to the node's folder.
        salt: of the passphrase derivation.
    """

    kind: Source
    path: str = "root.key"
    salt: bytes = b""


def choose_source(environment: Mapping[str, str] | None = None, *, path: str = "root.key") -> RootKeySource:
    """The source a new node uses: the environment's key, else its passphrase, else a file."""
    variables = os.environ if environment is None else environment
    if ROOT_KEY_VARIABLE in variables:
        return RootKeySource("environment")
    if PASSPHRASE_VARIABLE in variables:
        return RootKeySource("passphrase", salt=random_bytes(SALT_BYTES))
    return RootKeySource("file", path)


def make_key_file(path: Path) -> None:
    """Writes 32 fresh random bytes as hex, readable by the owner alone, synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as target:
        target.write(random_bytes(32).hex() + "\n")
        target.flush()
        os.fsync(target.fileno())


def read_root_key(source: RootKeySource, folder: Path, environment: Mapping[str, str] | None = None) -> bytes:
    """The 32 bytes of the root key.

    Raises:
        NotFoundError: ``root_key.missing``: no file, or no variable.
        DeniedError: ``root_key.exposed``: the file may be read by others.
        InvalidInputError: ``root_key.malformed``.
    """
    variables = os.environ if environment is None else environment
    if source.kind == "passphrase":
        return derive_root_key(_variable(variables, PASSPHRASE_VARIABLE), source.salt)
    if source.kind == "environment":
        return _parse(_variable(variables, ROOT_KEY_VARIABLE))
    path = folder / source.path
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError:
        raise InvalidInputError("root_key.malformed") from None
    except OSError:
        raise NotFoundError("root_key.missing", {"source": "file"}) from None
    if mode & 0o077:
        raise DeniedError("root_key.exposed", {"mode": oct(mode & 0o777)})
    return _parse(text.strip())


def _variable(variables: Mapping[str, str], name: str) -> str:
    if name not in variables:
        raise NotFoundError("root_key.missing", {"variable": name})
    return variables[name]


def _parse(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        raise InvalidInputError("root_key.malformed") from None
    if len(key) != 32:
        raise InvalidInputError("root_key.malformed")
    return key
