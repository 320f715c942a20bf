"""Generated documents match the code that they are generated from."""
