"""Keys an organisation holds: the node's root key, its people's signing keys, the keys of its patients' records."""
