"""How good a candidate is: metrics, golden set, distance from the source model, latency and memory."""
