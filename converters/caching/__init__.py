"""Finished work is found again: what a stage is, and where its result is kept."""
