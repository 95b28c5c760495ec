"""Pure rules: a request goes in, a decision comes out; no store, no clock, no network."""
