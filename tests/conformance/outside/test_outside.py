"""Our log before judges who have never heard of ehrfast: what is genuine they accept, what is altered they refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.conformance.outside import judges
from tests.conformance.outside.claims import Claim, all_claims, judge_ourselves

KINDS = {"inclusion", "consistency", "checkpoint", "cosignature", "proof", "tiles"}


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> list[Claim]:
    return list(all_claims(tmp_path_factory.mktemp("tiles")))


def test_we_judge_ourselves_rightly(claims: list[Claim]) -> None:
    assert {claim.kind for claim in claims} == KINDS
    counted = Counter((claim.kind, claim.holds) for claim in claims)
    assert all(counted[kind, holds] for kind in KINDS for holds in (True, False))
    assert [claim.name for claim in claims if judge_ourselves(claim) != claim.holds] == []


@pytest.mark.parametrize(
    ("judge", "requirement", "kinds"),
    [
        (judges.sumdb, "go", {"inclusion", "consistency", "checkpoint", "tiles"}),
        (judges.transparency_dev, "go", {"inclusion", "consistency", "checkpoint", "cosignature", "proof"}),
        (judges.tlog_scales, "outside", {"inclusion", "consistency", "checkpoint", "cosignature", "tiles"}),
        (judges.proofbundle, "outside", {"inclusion", "consistency", "checkpoint", "cosignature", "proof"}),
        (judges.sigstore, "node", {"inclusion", "checkpoint"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_outside_judge_agrees(
    judge: Callable[[], list[str]], requirement: str, kinds: set[str], claims: list[Claim]
) -> None:
    command = judges.command_of(judge, requirement)
    verdicts = judges.ask(command, [claim.line() for claim in claims])
    judged = [(claim, verdict) for claim, verdict in zip(claims, verdicts, strict=True) if verdict != "unsupported"]
    assert {claim.kind for claim, _ in judged} == kinds
    wrong = [f"{claim.kind}: {claim.name}: {verdict}" for claim, verdict in judged if (verdict == "ok") != claim.holds]
    assert wrong == []
