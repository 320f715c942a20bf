"""Knows the fleet and decides what each device runs."""
