"""Decides which documents and bytes may be believed: signatures, freshness, sequence."""
