"""Backup and restore: a node's chains and keys in a target elsewhere, sealed, signed, and checked on the way back.

Refuses to make a second writer out of a copy: what is restored opens read-only until a witness or the operator speaks.
"""
