"""Is this model, on this machine, still the model that was promised?"""
