"""From a model's tensors to typed answers."""
