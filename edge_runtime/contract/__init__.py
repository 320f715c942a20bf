"""The shapes that devices, converters and the fleet server agree on; pure, without I/O."""
