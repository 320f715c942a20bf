"""Tests of edgefleet; names are sentences about behaviour."""
