"""Health records that can be checked: sealed, ordered, kept durably, and proven to anyone offline."""

from typing import TYPE_CHECKING

from ehrfast import errors
from ehrfast.model.identity import Identity
from ehrfast.model.proof import Checked, Evidence, verify

if TYPE_CHECKING:
    from ehrfast.node import Node

__all__ = ["Checked", "Evidence", "Identity", "Node", "errors", "verify"]


def __getattr__(name: str) -> object:
    if name == "Node":  # a verifier alone needs no node, and starts faster without it
        from ehrfast.node import Node

        return Node
    raise AttributeError(name)
