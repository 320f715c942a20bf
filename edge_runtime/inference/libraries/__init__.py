"""What the adapters of one vendor share; everything here is given its library."""
