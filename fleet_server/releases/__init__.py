"""Which releases may be given to devices, with their signed metadata and blobs."""
