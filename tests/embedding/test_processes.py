"""What a program does around a node must not reach into it: forks, loops that end early, callbacks that fail."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ehrfast import Node, errors
from ehrfast.access.session import Record, Session
from ehrfast.chain.pending import PendingReceipt

CHILD_SECONDS = 30


@pytest.fixture
def node(tmp_path: Path, patients: Path) -> Iterator[Node]:
    with Node.create(tmp_path / "clinic.ehr", organisation="Clinic North") as made:
        made.import_fhir(patients)
        yield made


@pytest.fixture
def session(node: Node) -> Session:
    return node.session(node.identities.enrol("physician-1", role="physician"), purpose="TREAT")


def in_child(attempt: Callable[[], object]) -> str:
    """What a forked child says of an attempt: a code, ``done``, or the signal that ended its waiting."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(CHILD_SECONDS)
        try:
            attempt()
            said = "done"
        except errors.EhrfastError as error:
            said = error.code
        except BaseException as error:
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read() or f"signal {os.WTERMSIG(status)}"


def test_a_forked_child_is_refused_and_never_waits(node: Node, session: Session) -> None:
    reference = session.list("Observation")[0].reference
    record = session.read(reference)
    attempts: dict[str, Callable[[], object]] = {
        "read": lambda: session.read(reference),
        "list": lambda: session.list("Patient"),
        "pages": lambda: next(session.pages()),
        "history": lambda: session.history(reference),
        "prove": lambda: session.prove(reference),
        "update": lambda: session.update({**record.json(), "status": "amended"}),
        "create": lambda: session.create({"resourceType": "Basic", "code": {}}),
        "status": node.status,
        "fsck": node.fsck,
        "chain": lambda: node.chain,
        "enrol": lambda: node.identities.enrol("nurse-1", role="nurse"),
    }
    found = {name: in_child(attempt) for name, attempt in attempts.items()}
    assert found == dict.fromkeys(attempts, "node.forked")
    assert in_child(node.close) == "done"
    assert session.read(reference).content == record.content
    assert node.fsck().ok


def test_a_fork_keeps_no_lock(tmp_path: Path) -> None:
    """A child that lives on must not own what its parent has given back."""
    node = Node.create(tmp_path / "clinic.ehr", organisation="Clinic North")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        node.close()
        Node.open(tmp_path / "clinic.ehr").close()
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def test_a_fork_leaves_the_parents_lock(node: Node) -> None:
    assert in_child(lambda: Node.open(node.folder)) == "node.locked"
    second = "import sys; from ehrfast import Node; Node.open(sys.argv[1])"
    refused = subprocess.run([sys.executable, "-c", second, str(node.folder)], capture_output=True, text=True)
    assert f"node.locked (pid={os.getpid()})" in refused.stderr


def test_a_child_may_open_a_node_of_its_own(node: Node, tmp_path: Path, patients: Path) -> None:
    def whole_way() -> None:
        with Node.create(tmp_path / "other.ehr", organisation="Clinic South") as other:
            assert other.import_fhir(patients).rejected == ()

    assert in_child(whole_way) == "done"


def amended(record: Record, status: str = "amended") -> dict[str, object]:
    return {**record.json(), "status": status}


def test_a_loop_that_ends_early_does_not_stop_the_chain(node: Node, session: Session) -> None:
    records = [session.read(row.reference) for row in session.list("Observation", limit=20)]

    async def leave() -> None:
        async def one(record: Record) -> None:
            await session.update(amended(record))

        waiting = [asyncio.ensure_future(one(record)) for record in records]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)

    with node.chain._settled:  # nothing is settled before the loop is gone
        asyncio.run(leave())
    session.update(amended(records[0], "corrected")).result(timeout=60)
    assert node.chain.failure is None
    assert {session.read(record.reference).version for record in records[1:]} == {2}


def test_a_callback_that_fails_does_not_stop_the_chain(
    node: Node, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    record = session.read(session.list("Observation", limit=1)[0].reference)
    called: list[bool] = []

    def fail(_: PendingReceipt) -> None:
        called.append(True)
        raise ValueError("Zyxwvutmark")

    with caplog.at_level(logging.ERROR, logger="ehrfast.chain"):
        with node.chain._settled:  # not settled before the callback is there
            pending = session.update(amended(record))
            pending.add_done_callback(fail)
        pending.result(timeout=60)
        session.update(amended(record, "corrected")).result(timeout=60)
    assert called == [True]
    assert node.chain.failure is None
    assert "ValueError" in caplog.text
    assert "Zyxwvutmark" not in caplog.text
