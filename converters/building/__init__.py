"""From the float model to the bytes of one candidate, whatever engine it is for."""
