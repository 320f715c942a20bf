"""`python -m edge_runtime.cli`."""

from __future__ import annotations

from edge_runtime.cli.main import main

if __name__ == "__main__":
    main()
