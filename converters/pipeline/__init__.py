"""Runs a build from recipe to release."""
