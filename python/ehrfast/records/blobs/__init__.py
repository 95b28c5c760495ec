"""Blobs: sealed items that lie beside the block log, named by their digest. Which store keeps them is a setting."""

from __future__ import annotations

from ehrfast.records.blobs import local as _local
from ehrfast.records.blobs import s3 as _s3
from ehrfast.records.blobs.store import (
    LOCAL_BLOBS,
    BlobInfo,
    BlobSettings,
    BlobStore,
    BlobWriter,
    blob_stores,
    open_blob_store,
)

__all__ = [
    "LOCAL_BLOBS",
    "BlobInfo",
    "BlobSettings",
    "BlobStore",
    "BlobWriter",
    "blob_stores",
    "open_blob_store",
]
_REGISTERED = (_local, _s3)
