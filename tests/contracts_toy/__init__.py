"""A package of contracts as another project would ship it: one module a contract, one a version."""
