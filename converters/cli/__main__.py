"""`python -m converters.cli`."""

from __future__ import annotations

from converters.cli.main import main

if __name__ == "__main__":
    main()
