"""FHIR R4 as values: JSON with exact decimals, references, audit events. Knows no chain and no store."""
