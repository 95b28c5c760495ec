"""Benchmarks: each row beside its rivals on the same work in the same run."""
