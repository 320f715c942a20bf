"""One client for each door of `edge-runtime serve`, in Python, C++ and curl."""
