"""Runnable examples; python -m examples.fleet_on_a_laptop is the demo."""
