"""A trained model as a build sees it, whatever its format, before anything is decided about it."""
