"""What a team would write without this package, on the same input."""
