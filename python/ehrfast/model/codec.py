"""The four pure functions of the core that contracts' machinery needs, and nothing that holds state or keys.

Owns no format: the strict profile is the core's. Exists so that `contracts` never imports `_core` itself.
"""

from __future__ import annotations

from ehrfast._core import cbor_decode, cbor_encode, check_public_key, keyed_digest

__all__ = ["cbor_decode", "cbor_encode", "check_public_key", "keyed_digest"]
