"""One module for each graph rewrite; each takes a model and returns a new one."""
