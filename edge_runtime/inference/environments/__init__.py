"""Python environments for what cannot live in ours: how one is made, and which one an engine lives in."""
