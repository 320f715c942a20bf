"""What a build found, for people and machines."""
