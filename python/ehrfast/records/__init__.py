"""Records: FHIR resources sealed, placed, opened and found again. Knows no chain: it is handed blocks and gives
packs."""
