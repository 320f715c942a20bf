"""Several real components joined in one process or with real helpers."""
