"""Keys an organisation holds: the node's root key, signing keys of its people, and the keys of its patients' records."""
