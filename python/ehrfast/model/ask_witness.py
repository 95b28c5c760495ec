"""Asking a witness (C2SP tlog-witness) to cosign a checkpoint, and what it answers.

Owns one request and its verdicts. Believes nothing but a signature that holds under the witness's own key; a witness
that has seen a larger or another tree of this log is a conflict, never a reason to try another size.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPErrorProcessor, OpenerDirector, ProxyHandler, Request, build_opener

from ehrfast.errors import (
    ConflictError,
    DeniedError,
    EhrfastError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from ehrfast.model.checkpoint import (
    COSIGNATURE,
    Checkpoint,
    Note,
    VerifierKey,
    decode_decimal,
    verify_cosignature,
)

SIZE_TYPE: Final = "text/x.tlog.size"
_ATTEMPTS: Final = 3
_ANSWER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the witness says to one request.

    Args:
        status: HTTP status.
        body: a cosignature line for 200, the known size for 409, else a short reason.
        content_type: of the body.
    """

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class WitnessAddress:
    """Where a witness is asked, and the key that what it answers is verified with.

    Args:
        url: its submission prefix, http or https.
        vkey: its C2SP verifier key.

    Raises:
        InvalidInputError: ``witness.bad_url``, ``verifier_key.malformed``, ``verifier_key.wrong_algorithm``.
    """

    url: str
    vkey: str

    def __post_init__(self) -> None:
        _host_of(self.url)
        if self.key.algorithm != COSIGNATURE:
            raise InvalidInputError("verifier_key.wrong_algorithm")

    @property
    def key(self) -> VerifierKey:
        """The key, decoded."""
        return VerifierKey.decode(self.vkey)


def request_cosignature(
    url: str,
    witness: str | VerifierKey,
    old_size: int,
    prove_consistency: Callable[[int, int], Sequence[bytes]],
    note: bytes,
    *,
    timeout: float = 5.0,
) -> str:
    """Asks a witness to cosign a checkpoint.

    Args:
        url: the witness's submission prefix, http or https.
        witness: its verifier key.
        old_size: the size it cosigned last as far as is known, 0 for unknown; it names its own when that is wrong, and
            is asked again with it.
        prove_consistency: such as `Log.prove_consistency`.
        note: the signed checkpoint.
        timeout: seconds for each attempt, the whole of it.

    Returns:
        The signature line with its newline, verified, to be appended to the note.

    Raises:
        UnavailableError: ``witness.unreachable``, ``witness.failed``: ask again later.
        ConflictError: ``witness.ahead`` (it has cosigned a larger tree: this log is a roll-back), ``witness.fork`` (or
            another tree of this size).
        NotFoundError: ``witness.unknown_log``. DeniedError: ``witness.signature_refused``.
        VerificationError: ``witness.proof_refused``, ``cosignature.…``: what it answered is not its cosignature.
        InvalidInputError: ``witness.request_refused``, ``witness.bad_url``, ``note.…``, ``checkpoint.malformed``.

    Source: C2SP tlog-witness.
    """
    key = witness if isinstance(witness, VerifierKey) else VerifierKey.decode(witness)
    parsed = Note.parse(note)
    tree_size = Checkpoint.parse(parsed.text, allow_extensions=True).tree_size
    for _ in range(_ATTEMPTS):
        proof = prove_consistency(old_size, tree_size) if 0 < old_size < tree_size else ()
        answer = _post(url, _render_request(old_size, proof, note), timeout)
        if answer.status == 200:
            return _own_line(parsed, key, answer.body)
        if answer.status != 409:
            raise _refusal(answer.status)
        known = _known_size(answer)
        if known > tree_size:
            raise ConflictError("witness.ahead", {"witness_size": known, "tree_size": tree_size})
        if known == old_size == tree_size:
            raise ConflictError("witness.fork", {"tree_size": tree_size})
        old_size = known
    raise UnavailableError("witness.failed", {"status": 409})


def _render_request(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    lines = [f"old {old_size}", *(b64encode(each).decode() for each in proof), "", ""]
    return "\n".join(lines).encode() + note


def _own_line(note: Note, key: VerifierKey, body: bytes) -> str:
    try:
        answered = Note.parse(note.text + b"\n" + body)
    except InvalidInputError:
        raise VerificationError("cosignature.malformed") from None
    verify_cosignature(answered, key)
    return next(each.render() for each in answered.signatures if (each.name, each.key_id) == (key.name, key.key_id))


def _known_size(answer: Answer) -> int:
    if answer.content_type.split(";")[0].strip() != SIZE_TYPE or not answer.body.endswith(b"\n"):
        raise UnavailableError("witness.failed", {"status": 409})
    try:
        return decode_decimal(answer.body[:-1].decode("ascii", "replace"), "witness.failed")
    except InvalidInputError:
        raise UnavailableError("witness.failed", {"status": 409}) from None


def _refusal(status: int) -> EhrfastError:
    match status:
        case 400 | 413:
            return InvalidInputError("witness.request_refused", {"status": status})
        case 403:
            return DeniedError("witness.signature_refused")
        case 404:
            return NotFoundError("witness.unknown_log")
        case 422:
            return VerificationError("witness.proof_refused")
        case _:
            return UnavailableError("witness.failed", {"status": status})


class _EveryStatus(HTTPErrorProcessor):
    """Gives each answer back as it is: no redirect is followed, and a 409 is no exception."""

    def http_response(self, request: Request, response: HTTPResponse) -> HTTPResponse:
        return response

    https_response = http_response


def _post(url: str, body: bytes, timeout: float) -> Answer:
    host = _host_of(url)
    target = Request(f"{url.rstrip('/')}/add-checkpoint", data=body, method="POST")
    target.add_header("Content-Type", "text/plain; charset=utf-8")
    deadline = time.monotonic() + timeout
    try:
        with _opener(host).open(target, timeout=timeout) as response:
            received = bytearray()
            while piece := response.read1(_ANSWER_BYTES):
                received += piece
                if len(received) > _ANSWER_BYTES or time.monotonic() > deadline:
                    raise UnavailableError("witness.failed", {"status": response.status})
            return Answer(response.status, bytes(received), response.headers.get("Content-Type", ""))
    except (URLError, HTTPException, OSError) as error:
        raise UnavailableError("witness.unreachable") from error


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidInputError("witness.bad_url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInputError("witness.bad_url")
    return parts.hostname


def _opener(host: str) -> OpenerDirector:
    """Proxies of the environment serve the network, not a witness on this machine."""
    local = [ProxyHandler({})] if host in ("127.0.0.1", "::1", "localhost") else []
    return build_opener(_EveryStatus(), *local)
