"""One module for each target engine; each turns a float model into candidate files."""
