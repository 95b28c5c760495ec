"""What outside judges are asked: claims our code makes about a log, and each of them altered so that it is false.

A claim is a plain mapping, sent as a line of JSON with bytes in base64; `judge_ourselves` answers it with ours.
"""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ehrfast._core import Log, SigningKey, log_leaf_hash, verify_consistency, verify_inclusion
from ehrfast.chain.tiles import export_tiles, read_tiles
from ehrfast.errors import EhrfastError
from ehrfast.model.checkpoint import (
    Checkpoint,
    Note,
    NoteSignature,
    cosign,
    open_checkpoint,
    sign_checkpoint,
    verifier_key,
    witness_key,
)
from ehrfast.model.tlog_proof import TlogProof

LOG_KEY = SigningKey.from_seed(b"log".ljust(32, b"\0"))
WITNESS_KEY = SigningKey.from_seed(b"witness".ljust(32, b"\0"))
OTHER_KEY = SigningKey.from_seed(b"other".ljust(32, b"\0"))
ORIGIN = "clinic-north-0123456789abcdef0123456789abcdef"
WITNESS_NAME = "witness.example/w1"
VKEY = verifier_key(ORIGIN, LOG_KEY.public_key)
WITNESS = witness_key(WITNESS_NAME, WITNESS_KEY.public_key)
LEAVES = [b"\x01" + index.to_bytes(4, "big") * (index % 30) for index in range(600)]
SIZES = (1, 2, 3, 7, 8, 9, 255, 256, 257, 511, 512, 513, 600)

Value = str | int | bytes | list[bytes]


@dataclass(frozen=True, slots=True)
class Claim:
    """One question and its right answer."""

    name: str
    kind: str
    values: dict[str, Value]
    holds: bool = True

    def line(self) -> str:
        """As judges read it."""
        return json.dumps({"kind": self.kind} | {name: _jsonable(value) for name, value in self.values.items()})

    def altered(self, name: str, **values: Value) -> Claim:
        """The same claim, made false."""
        return replace(self, name=f"{self.name}, {name}", values=self.values | values, holds=False)


def _jsonable(value: Value) -> str | int | list[str]:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return [b64encode(each).decode() for each in value] if isinstance(value, list) else value


def judge_ourselves(claim: Claim) -> bool:
    """What our own verifiers say."""
    values = claim.values
    try:
        match claim.kind:
            case "inclusion":
                leaf_hash = log_leaf_hash(values["leaf"])  # type: ignore[arg-type]
                verify_inclusion(leaf_hash, values["index"], values["tree_size"], values["proof"], values["root"])  # type: ignore[arg-type]
            case "consistency":
                sizes = values["old_size"], values["tree_size"]
                verify_consistency(*sizes, values["old_root"], values["root"], values["proof"])  # type: ignore[arg-type]
            case "checkpoint":
                open_checkpoint(values["note"], values["vkey"])  # type: ignore[arg-type]
            case "cosignature":
                open_checkpoint(values["note"], values["vkey"], witnesses=[values["witness"]], quorum=1)  # type: ignore[arg-type, list-item]
            case "tiles":
                read_tiles(values["folder"], values["vkey"])  # type: ignore[arg-type]
            case "proof":
                parsed = TlogProof.parse(values["text"])  # type: ignore[arg-type]
                parsed.verify(values["leaf"], values["vkey"], witnesses=[values["witness"]], quorum=1)  # type: ignore[arg-type, list-item]
    except EhrfastError:
        return False
    return True


def all_claims(folder: Path) -> Iterator[Claim]:
    """Every claim, genuine and altered; folders of tiles are made below ``folder``."""
    log = Log()
    log.append(LEAVES)
    yield from inclusions(log)
    yield from consistencies(log)
    yield from checkpoints(log)
    yield from cosignatures(log)
    yield from proofs(log)
    yield from tiles(log, folder)


def inclusions(log: Log) -> Iterator[Claim]:
    for tree_size in SIZES:
        for index in sorted({0, tree_size // 2, tree_size - 1}):
            proof = log.prove_inclusion(index, tree_size)
            values: dict[str, Value] = {
                "leaf": LEAVES[index],
                "index": index,
                "tree_size": tree_size,
                "proof": list(proof),
                "root": log.root(tree_size),
            }
            claim = Claim(f"leaf {index} of {tree_size}", "inclusion", values)
            yield claim
            yield claim.altered("another leaf", leaf=LEAVES[index] + b"\0")
            yield claim.altered("another root", root=flip(log.root(tree_size)))
            yield claim.altered("index of nobody", index=tree_size)
            yield claim.altered("a hash too many", proof=[*proof, log.root(tree_size)])
            if proof:
                yield claim.altered("index of the sibling", index=index ^ 1)
                yield claim.altered("a hash too few", proof=proof[:-1])
                yield claim.altered("a short hash", proof=[proof[0][:-1], *proof[1:]])
            for at in range(len(proof)):
                yield claim.altered(f"hash {at} changed", proof=[*proof[:at], flip(proof[at]), *proof[at + 1 :]])
            if len(proof) > 1:
                yield claim.altered("in reverse", proof=proof[::-1])


def consistencies(log: Log) -> Iterator[Claim]:
    pairs = [(1, 2), (2, 3), (3, 7), (4, 7), (6, 8), (8, 9), (255, 256), (256, 257), (256, 512), (257, 600), (512, 600)]
    for old_size, tree_size in pairs:
        proof = log.prove_consistency(old_size, tree_size)
        values: dict[str, Value] = {
            "old_size": old_size,
            "tree_size": tree_size,
            "old_root": log.root(old_size),
            "root": log.root(tree_size),
            "proof": list(proof),
        }
        claim = Claim(f"{old_size} in {tree_size}", "consistency", values)
        yield claim
        yield claim.altered("another old root", old_root=flip(log.root(old_size)))
        yield claim.altered("another root", root=flip(log.root(tree_size)))
        yield claim.altered("backwards", old_size=tree_size, tree_size=old_size)
        yield claim.altered("no proof", proof=[])
        yield claim.altered("a hash too many", proof=[*proof, log.root(tree_size)])
        yield claim.altered("a hash too few", proof=proof[:-1])
        for at in range(len(proof)):
            yield claim.altered(f"hash {at} changed", proof=[*proof[:at], flip(proof[at]), *proof[at + 1 :]])


def checkpoints(log: Log) -> Iterator[Claim]:
    for tree_size in (0, 1, 600):
        note = signed(log, tree_size)
        parsed = Note.parse(note)
        (signature,) = parsed.signatures
        claim = Claim(f"checkpoint at {tree_size}", "checkpoint", {"note": note, "vkey": VKEY})
        yield claim
        yield claim.altered("another size", note=note.replace(b"\n%d\n" % tree_size, b"\n%d\n" % (tree_size + 1)))
        other = Checkpoint(ORIGIN, tree_size, flip(log.root(tree_size)))
        yield claim.altered("another root", note=Note(other.body(), parsed.signatures).render())
        wrong = replace(signature, signature=flip(signature.signature))
        yield claim.altered("another signature", note=Note(parsed.text, (wrong,)).render())
        forged = replace(signature, signature=OTHER_KEY.sign(parsed.text))
        yield claim.altered("signed by another key", note=Note(parsed.text, (forged,)).render())
        yield claim.altered("another key asked for", vkey=verifier_key(ORIGIN, OTHER_KEY.public_key))
        yield claim.altered("another log asked for", vkey=verifier_key("another-log", LOG_KEY.public_key))
        yield claim.altered("signature missing", note=parsed.text + b"\n")


def cosignatures(log: Log) -> Iterator[Claim]:
    note = cosigned(log, 600)
    text = Note.parse(note).text
    ours, theirs = Note.parse(note).signatures
    claim = Claim("cosigned checkpoint", "cosignature", {"note": note, "vkey": VKEY, "witness": WITNESS})
    yield claim
    yield claim.altered("another witness", witness=witness_key(WITNESS_NAME, OTHER_KEY.public_key))
    yield claim.altered("cosignature missing", note=signed(log, 600))
    for name, changed in {
        "another time": flip(theirs.signature, 7),
        "another signature": flip(theirs.signature, 40),
        "cosignature of another text": NoteSignature.parse(
            cosign(signed(log, 599), WITNESS_KEY, "w", timestamp=9)
        ).signature,
        "signature without time": bytes(8) + WITNESS_KEY.sign(text),
    }.items():
        yield claim.altered(name, note=Note(text, (ours, replace(theirs, signature=changed))).render())


def proofs(log: Log) -> Iterator[Claim]:
    note = cosigned(log, 600)
    for index, extra in [(0, None), (256, b"extra data"), (599, b"\0")]:
        path = tuple(log.prove_inclusion(index, 600))
        proof = TlogProof(extra, index, path, note)
        values: dict[str, Value] = {"text": proof.render(), "leaf": LEAVES[index], "vkey": VKEY, "witness": WITNESS}
        claim = Claim(f"proof text for {index}", "proof", values)
        yield claim
        yield claim.altered("another leaf", leaf=LEAVES[index] + b"\0")
        yield claim.altered("another index", text=replace(proof, index=index ^ 1).render())
        yield claim.altered("another hash", text=replace(proof, hashes=(flip(path[0]), *path[1:])).render())
        yield claim.altered("a hash too few", text=replace(proof, hashes=path[:-1]).render())
        yield claim.altered("not cosigned", text=replace(proof, checkpoint=signed(log, 600)).render())
        yield claim.altered("another checkpoint", text=replace(proof, checkpoint=cosigned(log, 599)).render())
        yield claim.altered("another format", text=proof.render().replace(b"@v1", b"@v2"))
        yield claim.altered("another key asked for", vkey=verifier_key(ORIGIN, OTHER_KEY.public_key))


def tiles(log: Log, folder: Path) -> Iterator[Claim]:
    for tree_size in (1, 255, 256, 257, 600):
        place = folder / f"genuine-{tree_size}"
        export_tiles(log, LEAVES.__getitem__, cosigned(log, tree_size), place)
        claim = Claim(f"tiles of {tree_size}", "tiles", {"folder": str(place), "vkey": VKEY})
        yield claim
    names = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
    for number, name in enumerate(names):
        data = (place / name).read_bytes()
        # The last third of a checkpoint holds the cosignature, which nobody is asked about here.
        at = len(data) // 3
        for change, content in {"changed": flip(data, at), "cut": data[:-1], "missing": None}.items():
            if name == "checkpoint" and change == "cut":
                continue
            copy = folder / f"altered-{number}-{change}"
            shutil.copytree(place, copy)
            (copy / name).unlink()
            if content is not None:
                (copy / name).write_bytes(content)
            yield claim.altered(f"{name} {change}", folder=str(copy))
    yield claim.altered("a leaf changed in bundle and tile alike", folder=str(replanted(place, folder / "replanted")))
    yield claim.altered("of another history", folder=str(forged(place, folder / "forged")))


def replanted(genuine: Path, folder: Path) -> Path:
    """A folder where a full tile and its entries agree, but not with the tile above."""
    shutil.copytree(genuine, folder)
    bundle, tile = folder / "tile/entries/000", folder / "tile/0/000"
    last = LEAVES[255]
    bundle.write_bytes(bundle.read_bytes()[: -len(last)] + flip(last))
    tile.write_bytes(tile.read_bytes()[:-32] + log_leaf_hash(flip(last)))
    return folder


def forged(genuine: Path, folder: Path) -> Path:
    """A folder that agrees with itself, under a checkpoint it does not lead to."""
    leaves = [b"forged", *LEAVES[1:]]
    log = Log()
    log.append(leaves)
    export_tiles(log, leaves.__getitem__, signed(log, 600), folder)
    shutil.copy(genuine / "checkpoint", folder / "checkpoint")
    return folder


def signed(log: Log, tree_size: int) -> bytes:
    return sign_checkpoint(Checkpoint(ORIGIN, tree_size, log.root(tree_size)), LOG_KEY)


def cosigned(log: Log, tree_size: int) -> bytes:
    note = signed(log, tree_size)
    return note + cosign(note, WITNESS_KEY, WITNESS_NAME, timestamp=1_795_000_000).encode()


def flip(data: bytes, at: int = 0) -> bytes:
    """One bit changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
