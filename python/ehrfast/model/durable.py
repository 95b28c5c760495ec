"""Small files that are replaced whole and kept durably, and what a file system's refusal is called."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ehrfast.errors import UnavailableError


def unavailable(error: OSError) -> UnavailableError:
    """The file system's refusal, in the words the stores use."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UnavailableError("store.full", {"errno": error.errno})
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return UnavailableError("store.read_only", {"errno": error.errno})
    return UnavailableError("store.io", {"errno": error.errno})


def sync_folder(folder: Path) -> None:
    """Returns once names made, changed and removed in the folder are durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes, mode: int) -> None:
    """The old file or the new one after a crash at any moment, and the new one once this returns."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)
