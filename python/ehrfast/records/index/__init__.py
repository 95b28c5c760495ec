"""Where records are found: projections of the log that can be thrown away and rebuilt."""
