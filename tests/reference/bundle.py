"""The slow twin of the Bundle splitter: a recursive-descent JSON scanner that keeps the range of every value.

Written to be read against RFC 8259, one character at a time; it shares nothing with the Rust scanner but the rules.
"""

from __future__ import annotations

from dataclasses import dataclass

WHITE = b" \t\n\r"
DIGITS = b"0123456789"
HEX = b"0123456789abcdefABCDEF"
PLAIN = dict(zip(b'"\\/bfnrt', (b'"', b"\\", b"/", b"\b", b"\f", b"\n", b"\r", b"\t"), strict=True))


class NotJson(Exception):
    """The text leaves the grammar at ``offset``."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        super().__init__(offset)


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the range it was written in; members of an object are kept in order, repeats included."""

    start: int
    end: int
    value: object


@dataclass(frozen=True, slots=True)
class Object:
    """An object as its members, in order."""

    members: tuple[tuple[str, Node], ...]

    def get(self, name: str) -> Node | None:
        """The first member of this name."""
        return next((node for key, node in self.members if key == name), None)


class Scanner:
    """Reads one JSON text."""

    def __init__(self, data: bytes) -> None:
        data.decode("utf-8")
        self.data = data
        self.at = 0

    def peek(self) -> int:
        """The byte at hand, -1 at the end."""
        return self.data[self.at] if self.at < len(self.data) else -1

    def take(self, byte: bytes) -> None:
        """Consumes exactly this byte."""
        if self.peek() != byte[0]:
            raise NotJson(self.at)
        self.at += 1

    def white(self) -> None:
        """Consumes white space."""
        while self.peek() != -1 and self.peek() in WHITE:
            self.at += 1

    def document(self) -> Node:
        """One value and nothing behind it."""
        self.white()
        node = self.value()
        self.white()
        if self.at != len(self.data):
            raise NotJson(self.at)
        return node

    def value(self) -> Node:
        """Any value."""
        start, byte = self.at, self.peek()
        result: object
        if byte == ord("{"):
            result = self.object()
        elif byte == ord("["):
            result = self.array()
        elif byte == ord('"'):
            result = self.string()
        elif byte in (ord("t"), ord("f"), ord("n")):
            result = self.word()
        else:
            result = self.number()
        return Node(start, self.at, result)

    def object(self) -> Object:
        """An object."""
        self.take(b"{")
        self.white()
        members: list[tuple[str, Node]] = []
        while self.peek() != ord("}"):
            if members:
                self.take(b",")
                self.white()
            key = self.string()
            self.white()
            self.take(b":")
            self.white()
            members.append((key, self.value()))
            self.white()
        self.take(b"}")
        return Object(tuple(members))

    def array(self) -> tuple[Node, ...]:
        """An array."""
        self.take(b"[")
        self.white()
        items: list[Node] = []
        while self.peek() != ord("]"):
            if items:
                self.take(b",")
                self.white()
            items.append(self.value())
            self.white()
        self.take(b"]")
        return tuple(items)

    def string(self) -> str:
        """A string, escapes resolved."""
        self.take(b'"')
        out: list[bytes] = []
        while self.peek() != ord('"'):
            byte = self.peek()
            if byte < 0x20:
                raise NotJson(self.at)  # a control character, or the end (-1)
            self.at += 1
            if byte != ord("\\"):
                out.append(bytes([byte]))
                continue
            kind = self.peek()
            self.at += 1
            if kind == ord("u"):
                start = self.at
                for _ in range(4):
                    if self.peek() == -1 or self.peek() not in HEX:
                        raise NotJson(self.at)
                    self.at += 1
                out.append(chr(int(self.data[start : self.at], 16)).encode("utf-8", "surrogatepass"))
            elif kind in PLAIN:
                out.append(PLAIN[kind])
            else:
                raise NotJson(self.at - 1)
        self.take(b'"')
        return b"".join(out).decode("utf-8", "surrogatepass")

    def word(self) -> bool | None:
        """true, false or null."""
        for word, meaning in ((b"true", True), (b"false", False), (b"null", None)):
            if self.data.startswith(word, self.at):
                self.at += len(word)
                return meaning
        raise NotJson(self.at)

    def digits(self) -> None:
        """One digit or more."""
        if self.peek() == -1 or self.peek() not in DIGITS:
            raise NotJson(self.at)
        while self.peek() != -1 and self.peek() in DIGITS:
            self.at += 1

    def number(self) -> bytes:
        """A number, as written."""
        start = self.at
        if self.peek() == ord("-"):
            self.at += 1
        if self.peek() == ord("0"):
            self.at += 1
        else:
            self.digits()
        if self.peek() == ord("."):
            self.at += 1
            self.digits()
        if self.peek() in (ord("e"), ord("E")):
            self.at += 1
            if self.peek() in (ord("+"), ord("-")):
                self.at += 1
            self.digits()
        return self.data[start : self.at]


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource of a Bundle as the twin sees it."""

    number: int
    start: int
    end: int
    type: str
    id: str | None
    full_url: str | None
    subject: str | None
    method: str | None


def text(node: Node | None) -> str | None:
    """The string of a node."""
    return node.value if node is not None and isinstance(node.value, str) else None


def follow(node: Node | None, *names: str) -> Node | None:
    """The node at the end of a chain of members."""
    for name in names:
        if node is None or not isinstance(node.value, Object):
            return None
        node = node.value.get(name)
    return node


def split_bundle(data: bytes) -> list[Entry]:
    """Every entry of a Bundle that has a resource. ``subject`` is the reference of the first of the four elements
    that the resource types of the Synthea files use for their patient.
    """
    root = Scanner(data).document()
    assert text(follow(root, "resourceType")) == "Bundle"
    listed = follow(root, "entry")
    assert listed is not None
    assert isinstance(listed.value, tuple)
    entries = []
    for number, entry in enumerate(listed.value):
        resource = follow(entry, "resource")
        if resource is None:
            continue
        elements = ("subject", "patient", "beneficiary", "individual")
        references = (text(follow(resource, element, "reference")) for element in elements)
        entries.append(
            Entry(
                number=number,
                start=resource.start,
                end=resource.end,
                type=text(follow(resource, "resourceType")) or "",
                id=text(follow(resource, "id")),
                full_url=text(follow(entry, "fullUrl")),
                subject=next((reference for reference in references if reference), None),
                method=text(follow(entry, "request", "method")),
            )
        )
    return entries
