"""What a contract call costs: `python benches/contracts.py` prints us per call and us per row.

Measures execution alone: no signature, no log, no store below the state view.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ehrfast._core import SigningKey, StateView, sign_transaction
from ehrfast.contracts import BlockContext, Registry, Runtime

from tests.reference.ledger import CHAIN_ID, Founding, Organisation, named_bytes

TOY = b'''
from dataclasses import dataclass
from ehrfast.contracts.contract import Code, Context, Contract, Id

contract = Contract("toy", version=1)


@dataclass(frozen=True, slots=True)
class Move:
    source: Id
    target: Id


@contract.method
def move(ctx: Context, args: Move) -> None:
    held = ctx.get((args.source,)) or (0,)
    if ctx.get((args.target,)) is not None:
        ctx.fail("toy.taken")
    ctx.put((args.target,), (held[0] + 1, ctx.sender, ctx.time_ms))
'''

ROWS = 290
CALLS = 2_000


def main() -> None:
    registry = Registry(["ehrfast.contracts.identity", "ehrfast.contracts.records", TOY])
    admin, gateway = SigningKey.generate(), SigningKey.generate()
    organisation = Organisation(named_bytes("north"), ((named_bytes("admin"), admin.public_key),))
    runtime = Runtime(registry)
    view = StateView(None)
    runtime.genesis(view, BlockContext(CHAIN_ID, 0, 1_000), Founding((organisation,)))
    block = BlockContext(CHAIN_ID, 1, 2_000)

    def sign(key: SigningKey, contract: str, method: str, arguments: object, packs: int = 0) -> object:
        args = runtime.encode_arguments(contract, method, arguments)
        attachments = [(bytes(32), bytes(32))] * packs
        return sign_transaction(
            key, CHAIN_ID, contract, method, args, lane=2, expires=1_000_000, attachments=attachments
        )

    def run(transaction: object) -> None:
        outcome = runtime.execute(view, transaction, block, 3)  # type: ignore[arg-type]
        assert outcome.code == 0, outcome

    enrolment = {"identity": named_bytes("gateway"), "key": gateway.public_key, "custody": 0, "role": "gateway"}
    run(sign(admin, "identity", "enrol", enrolment))
    names = [named_bytes(f"toy {number}") for number in range(CALLS + 1)]
    moves = [
        sign(gateway, "toy", "move", {"source": source, "target": target})
        for source, target in itertools.pairwise(names)
    ]
    _report("toy call, 2 reads and 1 write", _each(moves, run), 1, "call")
    epoch = (named_bytes("patient"), "observation", named_bytes("epoch"), bytes(32))
    run(sign(gateway, "records", "post_epochs", {"epochs": [epoch]}))
    puts = []
    for number in range(20):
        rows = [(named_bytes(f"{number} {row}"), 1, *epoch[:3], bytes(32), 0, row, 0) for row in range(ROWS)]
        puts.append(sign(gateway, "records", "put", {"rows": rows}, packs=1))
    _report(f"records.put of {ROWS} rows", _each(puts, run), ROWS, "row")


def _each(transactions: list[object], run: Callable[[object], None]) -> list[float]:
    taken = []
    for transaction in transactions:
        start = time.perf_counter()
        run(transaction)
        taken.append(time.perf_counter() - start)
    return taken


def _report(what: str, taken: list[float], items: int, unit: str) -> None:
    mean, median = statistics.fmean(taken), statistics.median(taken)
    print(f"{what:32} {mean / items * 1e6:7.2f} us per {unit} (median {median / items * 1e6:.2f})")


if __name__ == "__main__":
    main()
