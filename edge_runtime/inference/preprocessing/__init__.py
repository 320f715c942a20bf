"""From what an application gives to the tensor that a model takes."""
