"""Subscribers: each at its own pace, in order, from where it asked; a failed one is named to whoever waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from ehrfast.chain.subscribe import Subscription
from ehrfast.errors import NotFoundError, UnavailableError
from ehrfast.model.block import PublishedBlock


def no_pack(_: bytes) -> None:
    raise NotFoundError("pack.unknown")


class Log:
    """Blocks that are published one by one."""

    def __init__(self) -> None:
        self.height = -1
        self.reads = 0
        self.changed = threading.Condition()
        self.subscriptions: list[Subscription] = []

    def read(self, height: int) -> PublishedBlock:
        assert height <= self.height
        self.reads += 1
        return PublishedBlock(height, 1000 + height, (), no_pack)  # type: ignore[arg-type]

    def publish(self, blocks: int = 1) -> None:
        with self.changed:
            self.height += blocks
            self.changed.notify_all()

    def subscribe(self, handler: Callable[[PublishedBlock], None], next_height: int = 0) -> Subscription:
        made = Subscription(
            handler,
            read=self.read,
            published=lambda: self.height,
            changed=self.changed,
            next_height=next_height,
        )
        self.subscriptions.append(made)
        return made


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    for subscription in made.subscriptions:
        subscription.stop()


def test_every_block_is_told_once_in_order_from_the_asked_height_on(log: Log) -> None:
    log.publish(5)
    all_of_them: list[int] = []
    some: list[int] = []
    first = log.subscribe(lambda block: all_of_them.append(block.height))
    second = log.subscribe(lambda block: some.append(block.height), next_height=3)
    log.publish()
    log.publish(4)
    for subscription in (first, second):
        subscription.wait(9)
        assert subscription.height == 9
    assert all_of_them == list(range(10))
    assert some == list(range(3, 10))


def test_waiting_returns_only_when_the_handler_has_finished_the_block(log: Log) -> None:
    """Reads see what was just written: the projection is fed before the wait returns."""
    may_go_on = threading.Event()
    projection: list[int] = []

    def slow(block: PublishedBlock) -> None:
        may_go_on.wait(30)
        projection.append(block.height)

    subscription = log.subscribe(slow)
    log.publish(3)
    with pytest.raises(UnavailableError) as timed_out:
        subscription.wait(2, timeout=0.02)
    assert (timed_out.value.code, timed_out.value.details["height"]) == ("subscriber.timeout", 2)
    assert projection == []
    may_go_on.set()
    subscription.wait(2)
    assert projection == [0, 1, 2]


def test_a_slow_subscriber_holds_up_neither_publication_nor_the_others(log: Log) -> None:
    may_go_on = threading.Event()

    def waits(_: PublishedBlock) -> None:
        may_go_on.wait(30)

    slow = log.subscribe(waits)
    quick = log.subscribe(lambda _: None)
    for _ in range(100):
        log.publish()
    quick.wait(99)
    assert slow.height == -1
    assert log.reads <= 101, "nothing is read ahead for a slow one"
    may_go_on.set()
    slow.wait(99)


class Projection:
    def apply(self, block: PublishedBlock) -> None:
        if block.height == 2:
            raise ValueError("Zyxwvutmark")


def test_a_failed_subscriber_is_named_and_the_others_go_on(log: Log) -> None:
    failing = log.subscribe(Projection().apply)
    healthy = log.subscribe(lambda _: None)
    log.publish(5)
    healthy.wait(4)
    failing.wait(1)
    with pytest.raises(UnavailableError) as failed:
        failing.wait(2)
    assert failed.value.code == "subscriber.failed"
    assert dict(failed.value.details) == {"subscriber": "Projection.apply", "height": 2, "cause": "ValueError"}
    assert "Zyxwvutmark" not in str(failed.value)
    log.publish()
    healthy.wait(5)
    assert failing.height == 1


def test_whoever_waits_is_told_at_once_when_it_fails(log: Log) -> None:
    go = threading.Event()

    def fails(_: PublishedBlock) -> None:
        go.wait(30)
        raise ValueError

    subscription = log.subscribe(fails)
    log.publish()
    codes: list[str] = []

    def wait() -> None:
        with pytest.raises(UnavailableError) as failed:
            subscription.wait(0, timeout=600)
        codes.append(failed.value.code)

    waiter = threading.Thread(target=wait)
    waiter.start()
    go.set()
    waiter.join(30)
    assert codes == ["subscriber.failed"]


def test_a_block_that_cannot_be_read_fails_the_subscriber_too(log: Log) -> None:
    def torn(_: int) -> PublishedBlock:
        raise NotFoundError("block.unknown")

    subscription = Subscription(
        lambda _: None, read=torn, published=lambda: 0, changed=threading.Condition(), next_height=0
    )
    with pytest.raises(UnavailableError) as failed:
        subscription.wait(0)
    assert isinstance(failed.value.__cause__, NotFoundError)
    subscription.stop()


def test_stopping_ends_it_after_the_block_in_hand(log: Log) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    told: list[int] = []

    def slow(block: PublishedBlock) -> None:
        begun.set()
        may_go_on.wait(30)
        told.append(block.height)

    subscription = log.subscribe(slow)
    log.publish(3)
    assert begun.wait(30)
    stopper = threading.Thread(target=subscription.stop)
    stopper.start()
    while not subscription._stopping:
        pass
    may_go_on.set()
    stopper.join(30)
    assert told == [0]
    with pytest.raises(UnavailableError) as never:
        subscription.wait(1)
    assert never.value.code == "subscriber.timeout"
