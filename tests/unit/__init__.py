"""Pure decisions, one module at a time."""
