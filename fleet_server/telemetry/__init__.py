"""Takes in what devices measured, once each, and answers questions about it."""
