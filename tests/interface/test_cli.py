"""The command line as outside scripts meet it: members, exit codes, and an empty standard output on failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

pytest.importorskip("typer")

PYTHON = str(Path(__file__).resolve().parents[2] / "python")
STANDING = {
    "chain_id",
    "height",
    "tree_size",
    "log_root",
    "state_root",
    "records",
    "bytes_on_disk",
    "verifier_key",
    "organisation",
    "administrator",
    "gateway",
}


def run(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    path = os.pathsep.join(filter(None, (PYTHON, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "ehrfast.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": path}, check=False)


def told(*arguments: object) -> dict[str, object]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 1
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def rows(*arguments: object) -> list[dict[str, object]]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(exit_code: int, *arguments: object) -> str:
    """The code of a failure, its form checked in both manners of speaking."""
    plain = run(*arguments)
    assert (plain.returncode, plain.stdout) == (exit_code, b"")
    assert plain.stderr
    done = run(*arguments, "--json")
    assert (done.returncode, done.stdout) == (exit_code, b"")
    error = json.loads(done.stderr.splitlines()[-1])
    assert set(error) == {"error"}
    assert set(error["error"]) == {"code", "message", "details"}
    assert error["error"]["message"]
    return str(error["error"]["code"])


@dataclass(frozen=True, slots=True)
class Clinic:
    node: Path
    source: Path
    made: dict[str, object]
    imported: dict[str, object]
    physician: str

    @property
    def asking(self) -> tuple[str, ...]:
        return ("--as", self.physician, "--purpose", "TREAT")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    folder = tmp_path_factory.mktemp("clinic")
    node, source = folder / "clinic.ehr", folder / "patients"
    written = told("synth", source, "--patients", 2, "--seed", 5, "--years", 1)
    assert written["patients"] == 2
    made = told("init", node, "--organisation", "Clinic North")
    imported = told("import", node, source)
    physician = told("keys", "enrol", node, "--name", "physician-1", "--role", "physician")["identity"]
    assert isinstance(physician, str)
    return Clinic(node, source, made, imported, physician)


def first(clinic: Clinic, kind: str = "Observation") -> str:
    return str(rows("list", clinic.node, kind, *clinic.asking)[0]["reference"])


def test_init_and_status_tell_how_the_node_stands(clinic: Clinic) -> None:
    standing = told("status", clinic.node)
    assert set(clinic.made) >= STANDING
    assert set(standing) >= STANDING
    for name in ("chain_id", "verifier_key", "organisation", "administrator", "gateway"):
        assert standing[name] == clinic.made[name]
    assert standing["records"] == int(str(clinic.imported["resources"])) - int(str(clinic.imported["unchanged"]))
    assert standing["cosignatures"] == []
    assert len(bytes.fromhex(str(standing["gateway"]))) == 16
    assert len(bytes.fromhex(str(standing["log_root"]))) == 32
    assert str(standing["verifier_key"]).startswith(f"{standing['chain_id']}+")


def test_import_tells_what_it_did_and_finds_the_same_files_unchanged(clinic: Clinic) -> None:
    members = {"resources", "transactions", "rejected", "seconds", "resources_per_second", "tree_size"}
    assert set(clinic.imported) >= members
    assert clinic.imported["rejected"] == []
    again = told("import", clinic.node, clinic.source)
    assert again["transactions"] == 0
    assert again["unchanged"] == again["resources"]


def test_import_lists_what_it_rejects_and_takes_the_rest(clinic: Clinic, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_bytes(b"{")
    (tmp_path / "good.json").write_bytes(b'{"resourceType":"Basic","id":"kept"}')
    report = told("import", clinic.node, tmp_path)
    assert report["resources"] == 1
    (rejected,) = report["rejected"]  # type: ignore[misc]
    assert set(rejected) == {"file", "entry", "code", "message"}
    assert rejected["file"] == str(tmp_path / "broken.json")


def test_every_resource_comes_out_byte_for_byte(clinic: Clinic) -> None:
    received = b"".join(file.read_bytes() for file in sorted(clinic.source.iterdir()))
    for kind in ("Patient", "Observation"):
        reference = first(clinic, kind)
        done = run("get", clinic.node, reference, *clinic.asking)
        assert done.returncode == 0
        assert done.stdout in received
        assert json.loads(done.stdout)["id"] == reference.partition("/")[2]
        assert run("get", clinic.node, reference, *clinic.asking, "--json").stdout == done.stdout
        assert run("get", clinic.node, reference, *clinic.asking, "--version", 1).stdout == done.stdout


def test_list_and_history_have_the_same_rows(clinic: Clinic) -> None:
    listed = rows("list", clinic.node, "Observation", *clinic.asking)
    assert listed
    assert all(list(row) == ["reference", "version", "patient", "class", "index", "time"] for row in listed)
    assert all(str(row["reference"]).startswith("Observation/") for row in listed)
    time = datetime.fromisoformat(str(listed[0]["time"]))
    assert time.utcoffset() is not None
    assert str(listed[0]["time"]).endswith("Z")
    assert rows("history", clinic.node, listed[0]["reference"], *clinic.asking) == [listed[0]]
    assert len(rows("list", clinic.node, *clinic.asking)) > len(listed)
    assert rows("list", clinic.node, "Observation", *clinic.asking, "--limit", 1) == listed[:1]


def test_evidence_is_verified_without_the_node(clinic: Clinic, tmp_path: Path) -> None:
    reference, evidence, resource = first(clinic), tmp_path / "bp.proof", tmp_path / "bp.json"
    resource.write_bytes(run("get", clinic.node, reference, *clinic.asking).stdout)
    written = told("prove", clinic.node, reference, *clinic.asking, "--disclose", "-o", evidence)
    assert written["disclosed"] is True
    assert evidence.stat().st_mode & 0o077 == 0
    key = clinic.made["verifier_key"]
    checked = told("verify", evidence, "--key", key, "--resource", resource)
    assert checked["ok"] is True
    assert checked["content_matches"] is True
    assert checked["chain_id"] == clinic.made["chain_id"]
    assert told("verify", evidence, "--key", key)["content_matches"] is False
    altered = bytearray(resource.read_bytes())
    altered[len(altered) // 2] ^= 1
    resource.write_bytes(altered)
    refused(1, "verify", evidence, "--key", key, "--resource", resource)


def test_undisclosed_evidence_refuses_to_match_a_resource(clinic: Clinic, tmp_path: Path) -> None:
    reference, evidence, resource = first(clinic), tmp_path / "bp.proof", tmp_path / "bp.json"
    resource.write_bytes(run("get", clinic.node, reference, *clinic.asking).stdout)
    told("prove", clinic.node, reference, *clinic.asking, "-o", evidence)
    key = clinic.made["verifier_key"]
    told("verify", evidence, "--key", key)
    assert refused(1, "verify", evidence, "--key", key, "--resource", resource) == "evidence.not_disclosed"


def test_verify_loads_no_node(tmp_path: Path) -> None:
    probe = (
        "import sys; from ehrfast.cli import main\n"
        "main(['verify', 'nowhere', '--key', 'none'])\n"
        "sys.exit(any(name in sys.modules for name in ('ehrfast.node', 'ehrfast.chain.chain')))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, env={**os.environ, "PYTHONPATH": PYTHON})
    assert done.returncode == 0


def test_importing_ehrfast_loads_no_typer() -> None:
    probe = "import sys, ehrfast, ehrfast.cli; sys.exit('typer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], env={**os.environ, "PYTHONPATH": PYTHON}).returncode == 0


def test_fsck_finds_a_sound_node_sound_and_names_a_turned_bit(clinic: Clinic, tmp_path: Path) -> None:
    sound = told("fsck", clinic.node)
    assert sound["ok"] is True
    assert sound["faults"] == []
    broken = tmp_path / "broken.ehr"
    told("init", broken, "--organisation", "Clinic South")
    told("import", broken, clinic.source)
    segment = max((broken / "chains" / "main" / "log").iterdir(), key=lambda file: file.stat().st_size)
    data = bytearray(segment.read_bytes())
    written = len(data.rstrip(b"\0"))  # the room set aside beyond it holds nothing yet
    data[written // 2] ^= 1
    segment.write_bytes(data)
    done = run("fsck", broken, "--json")
    assert done.returncode == 7
    report = json.loads(done.stdout)
    assert report["ok"] is False
    assert report["faults"]
    assert all(set(fault) == {"file", "offset", "kind", "height"} for fault in report["faults"])
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "fsck.faults"


def test_export_writes_rows_by_type_and_evidence_that_holds(clinic: Clinic, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = told("export", clinic.node, out, *clinic.asking, "--type", "Condition")
    lines = (out / "Condition.ndjson").read_bytes().splitlines()
    listed = rows("list", clinic.node, "Condition", *clinic.asking)
    assert written["resources"] == len(lines) == len(listed)
    for line, row in zip(lines, listed, strict=True):
        resource = tmp_path / "resource.json"
        resource.write_bytes(line)
        name = str(row["reference"]).partition("/")[2]
        evidence = out / "evidence" / "Condition" / f"{name}.proof"
        told("verify", evidence, "--key", clinic.made["verifier_key"], "--resource", resource)
    assert refused(5, "export", clinic.node, out, *clinic.asking) == "export.not_empty"


def test_an_exported_record_of_several_lines_is_one_row_beside_its_bytes(clinic: Clinic, tmp_path: Path) -> None:
    received = b'{\n  "resourceType": "Substance",\n  "id": "several-lines"\n}'
    (tmp_path / "in.json").write_bytes(received)
    told("import", clinic.node, tmp_path / "in.json")
    out = tmp_path / "out"
    told("export", clinic.node, out, *clinic.asking, "--type", "Substance")
    (line,) = (out / "Substance.ndjson").read_bytes().splitlines()
    assert json.loads(line) == json.loads(received)
    assert (out / "received" / "Substance" / "several-lines.json").read_bytes() == received


def test_log_export_is_a_checked_log(clinic: Clinic, tmp_path: Path) -> None:
    from ehrfast.chain.tiles import read_tiles

    written = told("log", "export", clinic.node, tmp_path / "tiles")
    shown = read_tiles(tmp_path / "tiles", str(clinic.made["verifier_key"])).checkpoint
    assert (written["tree_size"], written["log_root"]) == (shown.tree_size, shown.root.hex())


def test_keys_rotate(tmp_path: Path) -> None:
    from ehrfast import Node
    from ehrfast.witness import Witness

    node = tmp_path / "rotated.ehr"
    told("init", node, "--organisation", "Clinic East")
    assert told("keys", "rotate", node, "root") == {"rotated": "root", "source": "file", "file": "root-2.key"}
    assert told("keys", "rotate", node, "atrest").keys() == {"rotated", "generation"}
    assert run("keys", "history", node).stdout == b""
    founding = told("status", node)["verifier_key"]
    rotated = told("keys", "rotate", node, "checkpoint")
    assert rotated.keys() == {"rotated", "verifier_key", "from_tree_size"}
    history = told("keys", "history", node)
    assert history.keys() == {"chain_id", "keys", "statements"}
    assert history["keys"] == [
        {"verifier_key": founding, "from_tree_size": 0},
        {"verifier_key": rotated["verifier_key"], "from_tree_size": rotated["from_tree_size"]},
    ]
    (tmp_path / "keys").write_bytes(run("keys", "history", node).stdout)
    assert (tmp_path / "keys").read_text() == "".join(history["statements"])  # type: ignore[arg-type]
    with Witness.create(tmp_path / "witness") as witness:
        witness.add_log(str(founding))
    trusted = told("witness", "trust", tmp_path / "witness", "--history", tmp_path / "keys")
    assert trusted == {"log": rotated["verifier_key"]}
    assert refused(4, "witness", "trust", tmp_path, "--history", tmp_path / "keys") == "witness.not_found"
    physician = told("keys", "enrol", node, "--name", "n", "--role", "physician")["identity"]
    (tmp_path / "one.json").write_bytes(b'{"resourceType":"Patient","id":"one"}')
    told("import", node, tmp_path / "one.json")
    asking = ("--as", physician, "--purpose", "TREAT")
    told("prove", node, "Patient/one", *asking, "-o", tmp_path / "one.proof")
    assert refused(1, "verify", tmp_path / "one.proof", "--key", founding) == "checkpoint.not_signed"
    checked = told("verify", tmp_path / "one.proof", "--key", founding, "--history", tmp_path / "keys")
    assert checked["ok"] is True
    assert refused(2, "keys", "rotate", node, "moon") == "usage"
    assert refused(8, "keys", "rotate", node, "atrest", "--to", "file") == "keys.no_source_wanted"
    assert refused(4, "keys", "rotate", node, "root", "--to", "environment") == "root_key.missing"
    with Node.open(node):
        assert refused(5, "keys", "rotate", node, "root") == "keys.node_running"
    assert told("fsck", node)["ok"] is True


def test_keys_list_and_config_show(clinic: Clinic) -> None:
    held = rows("keys", "list", clinic.node)
    assert {str(row["role"]) for row in held} == {"organisation_admin", "gateway", "physician"}
    assert all(set(row) == {"identity", "role", "name"} for row in held)
    shown = told("config", "show", clinic.node)
    assert shown["organisation"] == clinic.made["organisation"]
    assert shown["chains"] == ["main"]
    assert shown["blobs"] == {"url": "local:"}
    assert shown["retention_days"] == 30
    assert set(shown["caps"]) == {
        "records_of_a_transaction",
        "packs_inline_bytes",
        "packs_inline_in_a_cluster_bytes",
        "resource_bytes",
        "binary_bytes",
    }
    off_chain = ["Account", "Appointment", "Communication", "Coverage", "Schedule", "Slot", "Task"]
    assert shown["placement"] == {"off_chain_types": off_chain, "off_chain_above_bytes": 65536, "changed": {}}


def test_placement_and_blob_store_are_set_and_binaries_come_back(tmp_path: Path) -> None:
    node, scan = tmp_path / "n.ehr", tmp_path / "scan"
    told("init", node, "--organisation", "Clinic North")
    physician = told("keys", "enrol", node, "--name", "n", "--role", "physician")["identity"]
    changed = told("config", "set", node, "--place", "Coverage=chain", "--blobs", f"local:{tmp_path}/elsewhere")
    assert changed["placement"]["changed"] == {"Coverage": "chain"}
    assert told("config", "set", node, "--retention-days", 7)["retention_days"] == 7
    assert refused(8, "config", "set", node, "--retention-days", 31) == "config.bad_retention"
    assert refused(8, "config", "set", node, "--place", "Coverage=moon") == "placement.unknown_place"
    assert refused(8, "config", "set", node, "--place", "Covrage=chain") == "fhir.unknown_type"
    assert refused(8, "config", "set", node, "--blobs", "s3://k:s@bucket") == "blobs.bad_url"
    scan.write_bytes(bytes(range(256)) * 8192)
    asking = ("--as", physician, "--purpose", "TREAT")
    put = told("binary", "put", node, scan, "--type", "application/dicom", *asking)
    assert set(put) == {"reference", "bytes", "index"}
    got = told("binary", "get", node, put["reference"], *asking, "-o", tmp_path / "back")
    assert set(got) == {"reference", "content_type", "bytes", "file"}
    assert (tmp_path / "back").read_bytes() == scan.read_bytes()
    assert refused(8, "binary", "get", node, put["reference"], *asking, "-o", scan) == "binary.file_exists"
    assert refused(8, "binary", "put", node, tmp_path / "none", "--type", "a/b", *asking) == "binary.unreadable"
    assert set(told("blobs", "gc", node, "--dry-run")) == {"named", "orphans", "bytes", "unfinished", "removed"}
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_each_kind_of_refusal_has_its_exit_code(clinic: Clinic, tmp_path: Path) -> None:
    reference, gateway = first(clinic), clinic.made["gateway"]
    assert refused(2, "get", clinic.node) == "usage"
    assert refused(2, "fly", clinic.node) == "usage"
    assert refused(2, "get", clinic.node, reference, "--as", gateway) == "usage"
    refused(3, "get", clinic.node, reference, "--as", gateway, "--purpose", "TREAT")
    refused(3, "list", clinic.node, "--as", gateway, "--purpose", "TREAT")
    assert refused(4, "get", clinic.node, "Observation/none", *clinic.asking) == "record.unknown"
    assert refused(4, "status", tmp_path / "nowhere") == "node.not_there"
    assert refused(4, "verify", tmp_path / "nowhere", "--key", "none") == "file.not_found"
    assert refused(4, "import", clinic.node, tmp_path / "nowhere") == "import.no_such_file"
    assert refused(5, "init", clinic.node, "--organisation", "Clinic North") == "node.exists"
    assert refused(8, "get", clinic.node, reference, "--as", clinic.physician, "--purpose", "FUN") == "purpose.unknown"
    assert refused(8, "get", clinic.node, reference, "--as", "somebody", "--purpose", "TREAT") == "identity.malformed"
    assert refused(8, "keys", "enrol", clinic.node, "--name", "n", "--role", "wizard") == "role.unknown"
    assert refused(8, "synth", tmp_path / "none", "--patients", -1) == "synthetic.out_of_range"
    assert not (tmp_path / "none").exists()


def test_an_output_that_cannot_be_written_is_unavailable(clinic: Clinic, tmp_path: Path) -> None:
    taken = tmp_path / "folder"
    taken.mkdir()
    assert refused(6, "prove", clinic.node, first(clinic), *clinic.asking, "-o", taken) == "os.eisdir"


def test_a_node_in_use_is_a_conflict_for_writers_and_open_to_status(clinic: Clinic) -> None:
    from ehrfast import Node

    with Node.open(clinic.node):
        assert refused(5, "import", clinic.node, clinic.source) == "node.locked"
        assert told("status", clinic.node)["chain_id"] == clinic.made["chain_id"]


def test_the_demo_ends_well_and_spares_what_is_not_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for _ in range(2):
        done = run("demo", "--dir", folder, "--patients", 2)
        assert done.returncode == 0, done.stderr
        for stage in ("seal", "admit", "order", "execute", "assemble", "commit", "publish", "prove", "verify"):
            assert f"\n{stage}:".encode() in done.stdout
    other = tmp_path / "other"
    other.mkdir()
    (other / "keep").write_bytes(b"mine")
    assert refused(5, "demo", "--dir", other) == "demo.not_a_demo"
    assert (other / "keep").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "command",
    [
        *["init", "import", "get", "history", "list", "prove", "verify", "fsck", "status", "export", "demo", "synth"],
        *["keys enrol", "keys list", "keys rotate", "keys history"],
        *["log export", "config show", "witness run", "witness trust"],
        *["config set", "blobs gc", "binary put", "binary get", "clock show", "clock trust"],
    ],
)
def test_every_help_has_an_example(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    assert b"Example: ehrfast " + command.encode() in done.stdout
    assert b"--json" in done.stdout


def test_witnesses_are_added_listed_and_demanded_in_a_check(clinic: Clinic, tmp_path: Path) -> None:
    node = tmp_path / "witnessed.ehr"
    key = told("init", node, "--organisation", "Clinic North")["verifier_key"]
    path = os.pathsep.join(filter(None, (PYTHON, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "ehrfast.cli", "witness", "run", str(tmp_path / "w"), "--log", str(key), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as running:
        try:
            assert running.stdout is not None
            at = json.loads(running.stdout.readline())
            witness = at["verifier_key"]
            added = told("witness", "add", node, "--url", at["url"], "--vkey", witness)
            assert set(added) == {"url", "vkey", "name", "tree_size", "time", "failure"}
            assert (added["url"], added["vkey"], added["failure"]) == (at["url"], witness, None)
            told("import", node, clinic.source)
            standing = told("status", node)
            (cosignature,) = standing["cosignatures"]  # type: ignore[misc]
            assert set(cosignature) == {"witness", "tree_size", "time"}
            assert cosignature["witness"] == added["name"]
            assert cosignature["tree_size"] == standing["tree_size"]
            assert datetime.fromisoformat(cosignature["time"].replace("Z", "+00:00"))
            (listed,) = rows("witness", "list", node)
            assert {**listed, "tree_size": None, "time": None} == {**added, "tree_size": None, "time": None}
            physician = told("keys", "enrol", node, "--name", "physician-1", "--role", "physician")["identity"]
            asking = ("--as", physician, "--purpose", "TREAT")
            reference = rows("list", node, "Observation", *asking)[0]["reference"]
            told("prove", node, reference, *asking, "--quorum", 1, "-o", tmp_path / "one.proof")
            checking = ("verify", tmp_path / "one.proof", "--key", key)
            told(*checking, "--witness", witness)
            told(*checking, "--witness", witness, "--quorum", 1)
            assert refused(1, *checking, "--quorum", 1) == "checkpoint.quorum_missed"
            assert refused(1, *checking, "--witness", witness, "--quorum", 2) == "checkpoint.quorum_missed"
            assert refused(8, "witness", "add", node, "--url", "ftp://x", "--vkey", witness) == "witness.bad_url"
        finally:
            running.terminate()
    proven = ("prove", node, reference, *asking, "--quorum", 1, "-o", tmp_path / "two.proof")
    assert refused(6, *proven) == "checkpoint.quorum_missed"
    assert not (tmp_path / "two.proof").exists()
    assert told("witness", "drop", node, "--vkey", witness) == {"dropped": witness}
    assert refused(4, "witness", "drop", node, "--vkey", witness) == "witness.unknown"
    assert rows("witness", "list", node) == []
