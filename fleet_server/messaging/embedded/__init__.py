"""The small MQTT broker used when no other is on the machine."""
