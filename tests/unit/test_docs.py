"""The pages: links lead somewhere, files they name are there, words that promise too much are absent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from ehrfast import Node

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES: Final = [str(page.relative_to(ROOT)) for page in PAGES]
DECISIONS: Final = [page for page in PAGES if page.parent.name == "decisions"]

CODE: Final = (ROOT, ROOT / "python/ehrfast", ROOT / "rust/core/src")
"""Where the files that pages name are looked for."""
FORBIDDEN: Final = (
    r"unhackable",
    r"immutable(?! log)",
    r"(hipaa|gdpr)[- ]compliant",
    r"military[- ]grade",
    r"zero[- ]trust",
    r"patients own their keys",
)
FASTER: Final = r"\b(\d[\d.,]*|two|three|four|five|ten|many) ?(times|x|×) (as fast|faster)"
"""Only beside rival, threads and machine, which the page of measurements gives."""
MACHINE: Final = r"/(tmp|home|root|work|Users)/"

_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_FILE: Final = re.compile(r"[\w.-]+(/[\w.-]+)+\.(py|pyi|rs|md|toml|json)")
_FENCE: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The names its headings can be linked by."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> Iterator[str]:
    for target in _LINK.findall(_CODE.sub("", prose(text))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        if not found.exists() or (anchor and anchor not in anchors(found.read_text(encoding="utf-8"))):
            yield target


def absent_files(text: str) -> Iterator[str]:
    for code in _CODE.findall(prose(text)):
        if _FILE.fullmatch(code) and not any((base / code).exists() for base in CODE):
            yield code


def bad_words(text: str, *, measured: bool = False) -> list[str]:
    flat = " ".join(text.split())
    patterns = (*FORBIDDEN, MACHINE) if measured else (*FORBIDDEN, FASTER, MACHINE)
    return [found[0] for pattern in patterns for found in re.finditer(pattern, flat, re.IGNORECASE)]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_and_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert list(broken_links(page, text)) == []
    assert list(absent_files(text)) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_page_promises_too_much(page: Path) -> None:
    assert bad_words(page.read_text(encoding="utf-8"), measured=page.name == "benchmarks.md") == []


@pytest.mark.parametrize("page", DECISIONS, ids=[page.name for page in DECISIONS])
def test_a_decision_is_short_and_whole(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    parts = re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE)
    assert parts == ["Context", "Decision", "Consequences", "Alternatives"]
    assert re.match(r"\d{4}-\d\d-\d\d-", page.name)


def test_the_readme_leads_to_every_page() -> None:
    linked = set(_LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page.name}" for page in PAGES if page.parent.name == "docs"} <= linked


def test_the_readme_says_what_one_node_cannot_do() -> None:
    flat = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "One node alone proves order and integrity to whoever kept a checkpoint" in flat
    assert "two histories" in flat


@pytest.mark.parametrize(
    "promise",
    ["an immutable store", "HIPAA-compliant", "GDPR compliant", "Zero-Trust", "12 times faster", "ten times as fast",
     "patients own\ntheir keys", "see /home/somebody/x"],
)
def test_the_search_finds_what_it_looks_for(promise: str) -> None:
    assert bad_words(f"It is {promise}.")
    assert not bad_words("The immutable log of a chain.")


def test_a_broken_link_is_found() -> None:
    page = ROOT / "README.md"
    text = "[a](docs/never.md) [b](docs/glossary.md#the-chain) [c](docs/glossary.md#nothing) `[d](e)`"
    assert list(broken_links(page, text)) == ["docs/never.md", "docs/glossary.md#nothing"]
    assert list(absent_files("`chain/chain.py`, `chain/never.py`")) == ["chain/never.py"]


def test_operations_lists_the_files_a_node_makes(tmp_path: Path) -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    listed = {line.split("  ")[0] for line in text.splitlines() if line.startswith("NODE/")}
    folder = tmp_path / "clinic.ehr"
    with Node.create(folder, organisation="Clinic North"):
        pass
    made = {str(Path("NODE") / path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    named = set()
    for path in made:
        name = path.replace("chains/main", "chains/CHAIN")
        if "/state/" in name:
            name = name.partition("/state/")[0] + "/state/"
        if name.endswith(".segment"):
            name = str(Path(name).parent / "*.segment")
        named.add(name.replace("NODE/keys/keys.slots", "NODE/keys/keys.slots, keys.entries"))
    later = {"NODE/chains/CHAIN/cosignatures", "NODE/chains/CHAIN/key-history", "NODE/blobs/"}
    assert later < listed
    assert named - {"NODE/keys/keys.entries"} == listed - later
