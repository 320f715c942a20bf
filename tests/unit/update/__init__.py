"""Tests of edge_runtime.update."""
