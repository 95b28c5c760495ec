"""The fast decision against the slow one, its obligations against its releases, and both directions of every format."""

from __future__ import annotations

import os
from copy import deepcopy
from random import Random
from typing import Any

import cel
import pytest
from ehrfast.errors import EhrfastError, InvalidInputError
from ehrfast.model.decision import Decision, Narrowing, Obligation
from ehrfast.policy import conditions
from ehrfast.policy.answer import answer_of
from ehrfast.policy.conditions import Node, evaluate, flatten, parse_condition, unflatten, write_condition
from ehrfast.policy.consent import Consent, Unreadable, decode, encode
from ehrfast.policy.decide import Policies, decide
from ehrfast.policy.fhir import read_consent, read_consents, write_consent
from ehrfast.policy.request import read_now, read_request
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import consent as oracle
from tests.reference.consent_cases import case

Json = dict[str, Any]
CASES = int(os.environ.get("EHRFAST_CASES", "10000"))
PARTS = 10


def answer(policies: list[Json], request: Json, now: str) -> Decision:
    asked, site = read_request(request, read_now(now))
    return decide(Policies(read_consents(policies)), asked, site)


@pytest.mark.parametrize("part", range(PARTS))
def test_the_slow_reading_agrees(part: int) -> None:
    seen = set()
    for seed in range(part * CASES // PARTS, (part + 1) * CASES // PARTS):
        policies, request, now = case(seed)
        wanted = oracle.judge(policies, request, now)
        given_ = answer_of(answer(policies, request, now))
        released = [each["release"] for each in given_["resources"]]  # type: ignore[index,union-attr]
        redacted = [each["redact"] for each in given_["resources"]]  # type: ignore[index,union-attr]
        assert (given_["decision"], given_["access"], released) == (
            wanted["decision"],
            wanted["access"],
            wanted["released"],
        ), f"case({seed})"
        assert redacted == oracle.redactions(request, wanted["released"]), f"case({seed})"
        assert given_["total"] == sum(released)
        seen.add((given_["decision"], given_["reason"]))
    assert {reason for _, reason in seen} >= {
        "consent.permit", "consent.deny", "consent.unreadable", "consent.not_covered", "break_glass.override",
        "site.deny", "site.permit_authorised", "site.clinicians_only", "site.break_glass_only",
    }  # fmt: skip


# ── obligations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def narrows(narrowing: Narrowing, effect: str, question: oracle.Case) -> bool:
    """Whether a record is one of those an obligation narrows to, by the slow reading of elements."""
    permit = (narrowing.like or effect) == "permit"

    def codings(words: tuple[str, ...]) -> list[Json]:
        return [{"system": system, "code": code} for system, code in map(oracle.parse_code, words)]

    values = narrowing.values
    if narrowing.by == "type":
        found = question.by_class(codings(values), permit)
    elif narrowing.by == "code":
        found = question.by_code([{"coding": codings(values)}], permit)
    elif narrowing.by == "label":
        found = question.by_label(codings(values), permit)
    elif narrowing.by == "period":
        bounds = zip(("start", "end"), (values[0], values[1]), strict=True)
        period = {name: each for name, each in bounds if each}
        if "end" in period:  # told as the first moment after it
            period["end"] = just_before(period["end"])
        found = question.by_data_period(period, permit)
    elif narrowing.by == "condition":
        found = question.by_condition([{"valueExpression": {"expression": values[0]}}], permit)
    else:
        usual = "authoredby" if narrowing.by == "author" else "instance"
        meanings = narrowing.meanings or (usual,) * len(values)
        found = any(question.one_datum(meaning, value) for meaning, value in zip(meanings, values, strict=True))
    return found is True or (found is None and not permit)


def just_before(instant: str) -> str:
    moment = oracle.interval(instant)[0] - oracle.timedelta(milliseconds=1)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def applies(obligation: Obligation, question: oracle.Case) -> bool:
    return all(narrows(each, obligation.effect, question) for each in obligation.narrowings) and not any(
        applies(each, question) for each in obligation.unless
    )


def test_obligations_alone_release_the_same_records() -> None:
    checked = 0
    for seed in range(CASES // 2):
        policies, request, now = case(seed)
        decision = answer(policies, request, now)
        if decision.reason != "consent.permit" or any(each.reason.startswith("site") for each in decision.records):
            continue
        for record, verdict in zip(request["resources"], decision.records, strict=True):
            moment = oracle.interval(now)[0]
            question = oracle.Case({**request, "now": moment.isoformat()}, request["purpose"][0], record, moment)
            permits = [each for each in decision.obligations if each.effect == "permit"]
            forbids = [each for each in decision.obligations if each.effect == "forbid"]
            leaves = not permits or any(applies(each, question) for each in permits)
            assert (leaves and not any(applies(each, question) for each in forbids)) is verdict.release, f"case({seed})"
            checked += bool(decision.obligations)
    assert checked > CASES // 100


# ── formats ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def consents(count: int) -> list[Consent]:
    return [each for seed in range(count) for each in read_consents(case(seed)[0]) if isinstance(each, Consent)]


def test_bytes_and_fhir_give_the_same_consent_again() -> None:
    for consent in consents(500):
        content = encode(consent)
        assert decode(content) == consent
        assert read_consent(write_consent(consent)) == consent
        assert encode(read_consent(write_consent(consent))) == content


def test_only_the_encoders_own_bytes_are_read() -> None:
    for consent in consents(6):
        content = encode(consent)
        for cut in range(len(content)):
            with pytest.raises(EhrfastError):
                decode(content[:cut])
        for place in range(len(content)):
            for flip in (1, 0x20, 0x80):
                changed = content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]
                try:
                    read = decode(changed)
                except EhrfastError:
                    continue
                assert encode(read) == changed


MEMBERS = st.sampled_from(["type", "provision", "purpose", "coding", "code", "actor", "period", "start", "x"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(MEMBERS, each, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_whatever_stands_in_a_provision_is_read_or_refused(value: Any) -> None:
    made = {"resourceType": "Consent", "id": "c", "status": "active", "patient": {"reference": "Patient/p"}}
    made["provision"] = value
    (read,) = read_consents([made])
    if isinstance(read, Unreadable):
        assert read.path.startswith("Consent")
    else:
        assert decode(encode(read)) == read
    request = {"patient": "Patient/p", "requester": {"reference": "Practitioner/a"}, "purpose": ["TREAT"]}
    assert answer([made], request, "2026-01-01").outcome in ("permit", "deny", "no_consent")


JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, "", "x", "a|b|c", "/_history/", "http://", [], {}, [{}], [[]], ["x"], {"code": ["x"]},
    {"coding": [{"code": ["x"]}]}, {"coding": "x"}, {"reference": 5}, {"reference": ""}, {"start": []},
)  # fmt: skip


def spoilt(draw: Random, value: Any) -> Any:
    """The value with something senseless in one place."""
    places: list[tuple[Any, Any]] = []

    def walk(held: Any) -> None:
        for name in held if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ():
            places.append((held, name))
            walk(held[name])

    walk(value)
    if places:
        held, name = draw.choice(places)
        held[name] = deepcopy(draw.choice(JUNK))
    return value


def test_senseless_input_is_decided_or_refused_by_name() -> None:
    decided = 0
    for seed in range(4_000):
        draw = Random(seed)
        policies, request, now = case(seed)
        spoilt(draw, policies if draw.random() < 0.6 else request)
        try:
            decided += answer(policies, request, now).outcome in ("permit", "deny", "no_consent")
        except InvalidInputError as error:
            refused = error.code
        else:
            refused = "request.malformed"
        assert refused == "request.malformed"
    assert decided > 1_000


# ── conditions ──────────────────────────────────────────────────────────────────────────────────────────────────────

INTS = st.sampled_from([0, 1, -1, 7, 2**31, 2**62, 2**63 - 1, -(2**63)])
WORDS = st.sampled_from(["a", "b", "TREAT", 'quo"te', "back\\slash", "é"])
LISTS = ("record.codes", "record.labels", "request.purposes")


def numbers(depth: int) -> st.SearchStrategy[Node]:
    leaf = st.builds(lambda value: Node("int", (value,)), INTS) | st.sampled_from(
        [Node("get", ("request.time",)), Node("get", ("record.date",))]
    )
    if depth == 0:
        return leaf
    inner = numbers(depth - 1)
    return leaf | st.builds(lambda op, one, two: Node(op, (one, two)), st.sampled_from("+-*"), inner, inner)


def texts(bound: tuple[str, ...]) -> st.SearchStrategy[Node]:
    found = st.builds(lambda value: Node("text", (value,)), WORDS) | st.sampled_from(
        [Node("get", ("requester.organization",)), Node("get", ("record.type",))]
    )
    return found | st.sampled_from([Node("variable", (name,)) for name in bound]) if bound else found


def truths(depth: int, bound: tuple[str, ...] = ()) -> st.SearchStrategy[Node]:
    signs = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    relations = st.builds(lambda op, one, two: Node(op, (one, two)), signs, numbers(1), numbers(1))
    listed = st.builds(lambda items: Node("list", (tuple(items),)), st.lists(texts(bound), min_size=1, max_size=3))
    sources = listed | st.sampled_from([Node("get", (path,)) for path in LISTS])
    leaf = (
        relations
        | st.builds(lambda one, two: Node("==", (one, two)), texts(bound), texts(bound))
        | st.builds(lambda one, two: Node("in", (one, two)), texts(bound), sources)
        | st.sampled_from(
            [
                Node("bool", (True,)),
                Node("bool", (False,)),
                Node("has", ("record.date",)),
                Node("has", ("requester.organization",)),
                Node("get", ("requester.clinician",)),
            ]
        )
    )
    if depth == 0:
        return leaf
    inner = truths(depth - 1, bound)
    made = leaf | st.builds(lambda op, one, two: Node(op, (one, two)), st.sampled_from(["and", "or"]), inner, inner)
    made |= st.builds(lambda one: Node("not", (one,)), inner)
    if len(bound) < 2:
        name = f"v{len(bound)}"
        body = truths(depth - 1, (*bound, name))
        quantified = st.sampled_from(["all", "exists"])
        made |= st.builds(lambda op, over, each: Node(op, (over, name, each)), quantified, sources, body)
    return made


TOLD = st.fixed_dictionaries(
    {
        "request": st.fixed_dictionaries({"time": INTS, "purposes": st.lists(WORDS, max_size=3)}),
        "requester": st.fixed_dictionaries({"clinician": st.booleans()}, optional={"organization": WORDS}),
        "record": st.fixed_dictionaries(
            {"type": WORDS, "codes": st.lists(WORDS, max_size=3), "labels": st.lists(WORDS, max_size=3)},
            optional={"date": INTS},
        ),
    }
)


@settings(max_examples=400, deadline=None)
@given(truths(3), TOLD)
def test_conditions_mean_what_a_maintained_library_says(node: Node, told: Json) -> None:
    text = write_condition(node)
    flat = {f"{root}.{name}": value for root, held in told.items() for name, value in held.items()}
    try:
        library: bool | None = cel.evaluate(text, told)
    except Exception:  # an attribute that is absent, an integer beyond 64 bits
        library = None
    assert evaluate(node, flat) is library, text


@settings(max_examples=300, deadline=None)
@given(truths(3))
def test_a_condition_is_the_same_in_text_and_in_store(node: Node) -> None:
    assert unflatten(flatten(node)) == node
    assert conditions._parse(write_condition(node)) == node


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab.()[]'\"\\&|!<>=+-* 19_,\n", max_size=40))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        node = parse_condition(text)
    except InvalidInputError as error:
        refused = error.code
    else:
        refused = "condition."
        assert parse_condition(write_condition(node)) == node
    assert refused.startswith("condition.")


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [
                    "and",
                    "or",
                    "not",
                    "==",
                    "list",
                    "get",
                    "has",
                    "all",
                    "int",
                    "bool",
                    "record.date",
                    "record.codes",
                    "x",
                    0,
                    1,
                    2,
                    3,
                    True,
                    False,
                ]
            ),
            max_size=4,
        ).map(tuple),
        max_size=6,
    ).map(tuple)
)
def test_any_stored_form_is_a_condition_or_refused(flat: Any) -> None:
    try:
        node = unflatten(flat)
    except InvalidInputError as error:
        refused = error.code
    else:
        refused = "condition.malformed"
        assert flatten(node) == flat
    assert refused == "condition.malformed"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1 < 'a'", "type"),
        ("record.nothing == 'a'", "unknown_name"),
        ("record.codes == record.labels", "type"),
        ("record.date", "type"),
        ("size(record.codes) > 0", "syntax"),
        ("1 / 2 == 0", "syntax"),
        ("'a' + 'b' == 'ab'", "type"),
        ("record.type.matches('a')", "unknown_name"),
        ("true ? true : false", "syntax"),
        ("[] == []", "syntax"),
        ("9223372036854775808 > 0", "syntax"),
        ("b'a' == b'a'", "syntax"),
        ("1.5 > 1", "syntax"),
        ("true " * 500, "too_long"),
        ("(" * 20 + "true" + ")" * 20, "too_large"),
        ("true && " * 100 + "true", "too_large"),
        ("record.codes.all(a, record.codes.all(b, record.codes.all(c, true)))", "unknown_name"),
    ],
)
def test_what_is_outside_the_closed_language_is_refused(text: str, code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_condition(text)
    assert refused.value.code == f"condition.{code}"


def test_a_stored_form_that_unfolds_without_end_is_refused() -> None:
    flat: list[tuple[object, ...]] = [("bool", True)]
    flat += [("and", place, place) for place in range(100)]
    with pytest.raises(InvalidInputError, match=r"condition\.malformed"):
        unflatten(tuple(flat))
