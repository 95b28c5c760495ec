"""Where the node's root key comes from: a 0600 file, the environment, or a passphrase.

It wraps the key store's key and is never stored by ehrfast itself, except in the file it makes when nothing else is
given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from ehrfast._core import derive_root_key, random_bytes
from ehrfast.errors import DeniedError, InvalidInputError, NotFoundError

ROOT_KEY_VARIABLE: Final = "EHRFAST_ROOT_KEY"
PASSPHRASE_VARIABLE: Final = "EHRFAST_PASSPHRASE"
NEW_ROOT_KEY_VARIABLE: Final = "EHRFAST_NEW_ROOT_KEY"
NEW_PASSPHRASE_VARIABLE: Final = "EHRFAST_NEW_PASSPHRASE"
SALT_BYTES: Final = 16

KeySource = Literal["file", "environment", "passphrase"]
_SOURCES: Final[Mapping[str, KeySource]] = {each: each for each in get_args(KeySource)}


@dataclass(frozen=True, slots=True)
class RootKeySource:
    """How a node's root key is found again.

    Args:
        kind: file, environment (64 hex digits in EHRFAST_ROOT_KEY) or passphrase (EHRFAST_PASSPHRASE, Argon2id).
        path: of the key file, absolute or relative to the node's folder.
        salt: of the passphrase derivation.
    """

    kind: KeySource
    path: str = "root.key"
    salt: bytes = b""

    def as_dict(self) -> dict[str, str]:
        """For the settings."""
        return {"kind": self.kind, "path": self.path, "salt": self.salt.hex()}

    @staticmethod
    def of(value: Mapping[str, str]) -> RootKeySource:
        """What `as_dict` gave.

        Raises:
            ValueError, LookupError, TypeError: it is something else.
        """
        if not isinstance(value["path"], str):
            raise TypeError
        return RootKeySource(_SOURCES[value["kind"]], value["path"], bytes.fromhex(value["salt"]))


def choose_source(environment: Mapping[str, str] | None = None, *, path: str = "root.key") -> RootKeySource:
    """The source a new node uses: the environment's key, else its passphrase, else a file."""
    variables = os.environ if environment is None else environment
    if ROOT_KEY_VARIABLE in variables:
        return RootKeySource("environment")
    if PASSPHRASE_VARIABLE in variables:
        return RootKeySource("passphrase", salt=random_bytes(SALT_BYTES))
    return RootKeySource("file", path)


def new_source(current: RootKeySource, kind: KeySource | None, *, generation: int) -> RootKeySource:
    """Where the root key after this one comes from: of the same kind unless told otherwise, a file under a new name."""
    match kind or current.kind:
        case "file":
            beside = Path(current.path) if current.kind == "file" else Path("root.key")
            return RootKeySource("file", str(beside.with_name(f"root-{generation}.key")))
        case "passphrase":
            return RootKeySource("passphrase", salt=random_bytes(SALT_BYTES))
        case "environment":
            return RootKeySource("environment")


def incoming(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment as it will be once the new key or passphrase has taken the place of the old one."""
    variables = os.environ if environment is None else environment
    renamed = {NEW_ROOT_KEY_VARIABLE: ROOT_KEY_VARIABLE, NEW_PASSPHRASE_VARIABLE: PASSPHRASE_VARIABLE}
    return {after: variables[before] for before, after in renamed.items() if before in variables}


def destroy_key_file(path: Path) -> None:
    """Overwrites a key file in place, synced, and removes it; one that is gone already is no fault."""
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    path.unlink()


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
