"""From an ONNX model to a signed release with a report: python -m examples.quantize_and_ship."""
