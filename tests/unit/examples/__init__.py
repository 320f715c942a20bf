"""Tests of what the examples ship."""
