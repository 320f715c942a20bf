"""Import rules and packaging rules."""
