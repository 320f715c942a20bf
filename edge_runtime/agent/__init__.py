"""The device's process: desired state in, reported state and telemetry out."""
