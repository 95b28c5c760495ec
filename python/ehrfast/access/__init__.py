"""The gate: every read and write of records is a session's, judged here, audited before it answers."""
