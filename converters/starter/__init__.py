"""A recipe for somebody who has none yet: from options, the model, and what its metadata says."""
