"""The table of commands: every command of ``ehrfast`` and the group it hangs in."""

from __future__ import annotations

from typing import Any, Final

import typer

from ehrfast.cli import backup, binary, clock, consent, demo, evidence, export, forget, keys, operate, records, witness

_SETTINGS: Final[dict[str, Any]] = {
    "no_args_is_help": True,
    "add_completion": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app = typer.Typer(
    **_SETTINGS,
    help="Verifiable electronic health records: FHIR in, sealed and ordered, read for a purpose, proven offline.\n\n"
    "Start with: ehrfast demo --dir demo\n\n"
    "Exit codes: 0 ok, 1 a check failed, 2 usage, 3 denied, 4 not found, 5 conflict, 6 unavailable, 7 corruption, "
    "8 invalid input.",
)

app.command("demo")(demo.demo)
app.command("init")(operate.init)
app.command("synth")(operate.synth)
app.command("import")(operate.import_files)
app.command("get")(records.get)
app.command("history")(records.history)
app.command("list")(records.list_records)
app.command("prove")(evidence.prove)
app.command("verify")(evidence.verify)
app.command("status")(operate.status)
app.command("fsck")(operate.fsck)
app.command("export")(export.export)
app.command("erase")(forget.erase)
app.command("prune")(forget.prune)
app.command("retrieve")(forget.retrieve)

_hold = typer.Typer(**_SETTINGS, help="Legal holds: what one covers is neither erased nor pruned.")
_hold.command("add")(forget.add_hold)
_hold.command("release")(forget.release_hold)
_hold.command("list")(forget.list_holds)
app.add_typer(_hold, name="hold")
app.command("restore")(backup.restore)

_backup = typer.Typer(**_SETTINGS, cls=backup.BackupGroup, help="Back a node up: ehrfast backup NODE TARGET.")
_backup.command("make")(backup.make)
_backup.command("prune")(backup.prune)
_backup.command("confirm")(backup.confirm)
app.add_typer(_backup, name="backup")

_keys = typer.Typer(**_SETTINGS, help="Identities whose signing keys this node holds.")
_keys.command("enrol")(keys.enrol)
_keys.command("list")(keys.list_keys)
_keys.command("rotate")(keys.rotate)
_keys.command("history")(keys.history)
_keys.command("export")(backup.export_key)
app.add_typer(_keys, name="keys")

_consent = typer.Typer(**_SETTINGS, help="What patients' consents say.")
_consent.command("decide")(consent.decide_request)
app.add_typer(_consent, name="consent")

_log = typer.Typer(**_SETTINGS, help="The log that others may check.")
_log.command("export")(export.export_log)
app.add_typer(_log, name="log")

_config = typer.Typer(**_SETTINGS, help="What a node has written down about itself.")
_config.command("show")(operate.show_config)
_config.command("set")(operate.set_config)
app.add_typer(_config, name="config")

_clock = typer.Typer(**_SETTINGS, help="The clock that block time comes from.")
_clock.command("show")(clock.show)
_clock.command("trust")(clock.trust)
app.add_typer(_clock, name="clock")

_blobs = typer.Typer(**_SETTINGS, help="Sealed items that lie beside the log.")
_blobs.command("gc")(operate.collect_blobs)
app.add_typer(_blobs, name="blobs")

_binary = typer.Typer(**_SETTINGS, help="Scans, films and other content of up to 2 GiB.")
_binary.command("put")(binary.put)
_binary.command("get")(binary.get)
app.add_typer(_binary, name="binary")

_witness = typer.Typer(**_SETTINGS, help="A witness remembers what a log has shown and cosigns only what extends it.")
_witness.command("run")(witness.run)
_witness.command("trust")(witness.trust)
_witness.command("add")(witness.add)
_witness.command("drop")(witness.drop)
_witness.command("list")(witness.list_witnesses)
app.add_typer(_witness, name="witness")
