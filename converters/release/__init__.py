"""What a release says and how it is written: manifests, files, signature."""
