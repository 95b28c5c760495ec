"""References between resources: what a reference as written stands for. They are looked up, never rewritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def resolve(
    reference: str | None, within: Mapping[str, str], elsewhere: Callable[[str], str | None]
) -> str | None:
    """The ``Type/id`` a reference stands for, or the reference itself when nothing is known of it.

    Args:
        reference: as written: ``Type/id``, ``Type/id/_history/1``, ``urn:uuid:…`` or an absolute URL; None stays None.
        within: fullUrl to ``Type/id`` of the same Bundle.
        elsewhere: the same for Bundles seen before.
    """
    if reference is None:
        return None
    bare = reference.split("#", 1)[0].split("/_history/", 1)[0]
    return within.get(bare) or elsewhere(bare) or bare
