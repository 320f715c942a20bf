"""Turns a trained model into a release for every target, with evidence."""
