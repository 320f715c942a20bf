"""Finds in seconds what would make a build fail, all findings at once."""
