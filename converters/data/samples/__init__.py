"""Where samples come from: one file per way in which people keep their data."""
