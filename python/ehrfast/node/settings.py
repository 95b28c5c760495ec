"""What a node writes down in the clear, in `node.json`: ids are random, nothing here is about a patient.

Replaced in one step and checked: a turned bit is found, not a hand that meant it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ehrfast._core import blake3_digest
from ehrfast.errors import CorruptionError, NotFoundError
from ehrfast.keys.root_key import RootKeySource
from ehrfast.model.ask_witness import WitnessAddress
from ehrfast.model.durable import write_synced
from ehrfast.records.blobs import LOCAL_BLOBS, BlobSettings

FORMAT: Final = 2
FILE: Final = "node.json"
MAX_RETENTION_DAYS: Final = 30
"""How long the keys of a backup may live: an erasure is complete in all backups after that."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A node's settings."""

    organisation_name: str
    organisation: bytes
    administrator: bytes
    gateway: bytes
    root_key: RootKeySource
    main_chain: str
    witnesses: tuple[WitnessAddress, ...] = ()
    blobs: BlobSettings = LOCAL_BLOBS
    placement: tuple[tuple[str, str], ...] = ()
    retention_days: int = MAX_RETENTION_DAYS
    next_root_key: RootKeySource | None = None
    """While the root key changes: the key store is under this one or still under the other."""

    def save(self, folder: Path) -> None:
        """Writes the settings, synced, in one step."""
        value: dict[str, object] = {
            "format": FORMAT,
            "organisation_name": self.organisation_name,
            "organisation": self.organisation.hex(),
            "administrator": self.administrator.hex(),
            "gateway": self.gateway.hex(),
            "main_chain": self.main_chain,
            "root_key": self.root_key.as_dict(),
            "witnesses": [{"url": each.url, "vkey": each.vkey} for each in self.witnesses],
            "blobs": self.blobs.as_dict(),
            "placement": dict(self.placement),
            "retention_days": self.retention_days,
        }
        if self.next_root_key is not None:
            value["next_root_key"] = self.next_root_key.as_dict()
        write_synced(folder / FILE, _render({**value, "check": _check_of(value)}).encode(), 0o644)

    @staticmethod
    def load(folder: Path) -> Settings:
        """Reads them.

        Raises:
            NotFoundError: ``node.not_there``.
            CorruptionError: ``node.settings_damaged``: they are not what ehrfast wrote.
        """
        try:
            return Settings.parse((folder / FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("node.not_there", {"folder": str(folder)}) from None

    @staticmethod
    def parse(written: bytes) -> Settings:
        """What `save` wrote.

        Raises:
            CorruptionError: ``node.settings_damaged``.
        """
        try:
            text = written.decode()
            value = json.loads(text)
            if value["format"] != FORMAT or _render(value) != text or value.pop("check") != _check_of(value):
                raise ValueError
            following = value.get("next_root_key")
            return Settings(
                organisation_name=value["organisation_name"],
                organisation=bytes.fromhex(value["organisation"]),
                administrator=bytes.fromhex(value["administrator"]),
                gateway=bytes.fromhex(value["gateway"]),
                root_key=RootKeySource.of(value["root_key"]),
                next_root_key=None if following is None else RootKeySource.of(following),
                main_chain=value["main_chain"],
                witnesses=tuple(WitnessAddress(each["url"], each["vkey"]) for each in value["witnesses"]),
                blobs=BlobSettings.of(value["blobs"]),
                placement=tuple(sorted(value["placement"].items())),
                retention_days=_retention(value["retention_days"]),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise CorruptionError("node.settings_damaged", {"file": FILE}) from None


def _render(settings: Mapping[str, object]) -> str:
    return json.dumps(settings, indent=2) + "\n"


def _check_of(settings: Mapping[str, object]) -> str:
    return blake3_digest(_render(settings).encode())[:16].hex()


def _retention(days: object) -> int:
    if not isinstance(days, int) or not 1 <= days <= MAX_RETENTION_DAYS:
        raise ValueError
    return days
