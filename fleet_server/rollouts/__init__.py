"""Decides, wave by wave, who gets a release, and when to stop or go back."""
