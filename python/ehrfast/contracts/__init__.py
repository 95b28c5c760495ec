"""Contracts: rules in small, pure, deterministic Python, checked by a guard and run over a state view."""

from __future__ import annotations

from ehrfast.contracts.contract import BlockContext, Event, Outcome
from ehrfast.contracts.registry import PublishedFunction, Registry
from ehrfast.contracts.runtime import Runtime

__all__ = ["BlockContext", "Event", "Outcome", "PublishedFunction", "Registry", "Runtime"]
