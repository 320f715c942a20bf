"""Sources → models → sinks: cameras, video and files through one or several releases, as a TOML file describes."""
