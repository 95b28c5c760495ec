"""One organisation's node over one folder, and the embedded API that hangs off it."""

from __future__ import annotations

from ehrfast.node.node import MAIN, Node
from ehrfast.node.restore import RestoreReport
from ehrfast.node.settings import FORMAT, Settings
from ehrfast.node.status import Cosignature, Status

__all__ = ["FORMAT", "MAIN", "Cosignature", "Node", "RestoreReport", "Settings", "Status"]
