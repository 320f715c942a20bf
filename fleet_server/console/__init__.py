"""The web page on which an operator sees the fleet."""
