"""One module for each source format; each yields ONNX for the passes."""
