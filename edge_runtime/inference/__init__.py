"""Opens a release as a model and answers with it, on whichever engine is there."""
