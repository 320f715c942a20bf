"""The edge-fleet command."""
