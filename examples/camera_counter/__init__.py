"""Counts what a camera sees; a video made of photos stands in for the camera: python -m examples.camera_counter."""
