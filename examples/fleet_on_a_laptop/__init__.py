"""The demo: a laptop plays a whole fleet, with real processes."""
