"""Certificate authority, claims and keys: who a device or a person is."""
