"""What other people's metadata says about a model's inputs and answers; one file per kind of metadata."""
