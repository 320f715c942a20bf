"""The broker port and its adapters; messages between the fleet and its devices."""
