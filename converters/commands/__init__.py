"""What the commands of `edge-convert` do, apart from reading options: load, run with progress, print."""
