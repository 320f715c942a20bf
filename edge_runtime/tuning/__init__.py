"""What a release costs on this machine, beside the bare engine, and which settings are best for it here."""
