"""Health records that can be checked."""
