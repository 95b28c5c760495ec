"""Frozen values that every part of ehrfast speaks in; they know no store, no clock and no network."""
