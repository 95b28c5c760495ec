"""Outside judges written in Python: tlog-scales and proofbundle; runs in an environment that has never seen ehrfast.

Usage: judge.py tlog-scales|proofbundle. One claim a line of JSON on standard input (byte fields in base64), one verdict
a line on standard output: "ok", "refused: why" or "unsupported". All code that judges is theirs.
"""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in its own environment only.

from __future__ import annotations

import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

BYTE_FIELDS = ("note", "text", "leaf", "root", "old_root")


def tlog_scales(claim: dict[str, Any]) -> bool | None:
    from tlog_scales.backend import LocalBackend
    from tlog_scales.reader import TilesReader
    from tlog_scales.signing import Vkey
    from tlog_scales.tiles import leaf_hash
    from tlog_scales.tlog import Checkpoint, ConsistencyProof, InclusionProof

    match claim["kind"]:
        case "inclusion":
            proof = InclusionProof(claim["index"], claim["tree_size"], claim["proof"])
            proof.check(leaf_hash(claim["leaf"]), claim["root"])
        case "consistency":
            consistency = ConsistencyProof(claim["old_size"], claim["tree_size"], claim["proof"])
            consistency.check(claim["old_root"], claim["root"])
        case "checkpoint":
            Checkpoint.from_text(claim["note"].decode()).verify(Vkey.from_string(claim["vkey"]))
        case "cosignature":
            checkpoint = Checkpoint.from_text(claim["note"].decode())
            checkpoint.verify(Vkey.from_string(claim["vkey"]))
            checkpoint.verify(Vkey.from_string(claim["witness"]))
        case "tiles":
            reader = TilesReader(LocalBackend(Path(claim["folder"])))
            checkpoint = reader.get_checkpoint()
            checkpoint.verify(Vkey.from_string(claim["vkey"]))
            if reader.calculate_root_hash() != checkpoint.root_hash:
                raise ValueError("tiles do not lead to the root")
            for index in range(checkpoint.size):
                inclusion = reader.get_inclusion_proof(index, checkpoint.size)
                inclusion.check(leaf_hash(reader.get_entry(index)), checkpoint.root_hash)
        case _:
            return None
    return True


def proofbundle(claim: dict[str, Any]) -> bool | None:
    from proofbundle.checkpoint import verify_checkpoint, verify_witnessed_checkpoint
    from proofbundle.merkle import verify_consistency, verify_inclusion
    from proofbundle.tlogproof import verify_tlog_proof

    match claim["kind"]:
        case "inclusion":
            place = claim["index"], claim["tree_size"]
            return bool(verify_inclusion(claim["leaf"], *place, claim["proof"], claim["root"]))
        case "consistency":
            roots = claim["old_root"], claim["root"]
            return bool(verify_consistency(claim["old_size"], claim["tree_size"], claim["proof"], *roots))
        case "checkpoint":
            found = verify_checkpoint(claim["note"].decode(), claim["vkey"])
            return bool(found["ok"]) and claim["vkey"].startswith(f"{found['origin']}+")
        case "cosignature":
            text = claim["note"].decode()
            return bool(verify_witnessed_checkpoint(text, claim["vkey"], [claim["witness"]], threshold=1)["ok"])
        case "proof":
            text, origin = claim["text"].decode(), claim["vkey"].partition("+")[0]
            found = verify_tlog_proof(
                text, claim["leaf"], claim["vkey"], [claim["witness"]], threshold=1, expected_origin=origin
            )
            return bool(found["ok"])
    return None


def verdict(claim: dict[str, Any]) -> str:
    for field in BYTE_FIELDS:
        if field in claim:
            claim[field] = b64decode(claim[field])
    claim["proof"] = [b64decode(each) for each in claim.get("proof", ())]
    judge = {"tlog-scales": tlog_scales, "proofbundle": proofbundle}[sys.argv[1]]
    try:
        held = judge(claim)
    except Exception as error:
        return f"refused: {type(error).__name__} {error}".replace("\n", " ")
    return "unsupported" if held is None else "ok" if held else "refused: not ok"


for line in sys.stdin:
    print(verdict(json.loads(line)))
