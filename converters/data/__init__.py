"""Calibration and evaluation sets: samples, what people say of them, and what the source model answered."""
