"""Many callers, one model: who may ask when, by which way, and what is counted."""
