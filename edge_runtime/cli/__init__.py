"""The edge-runtime command: one module per group of commands; only options are read here."""
