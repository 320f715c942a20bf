"""Where `make demo` starts, before anything that takes long to import."""

from __future__ import annotations

from edge_runtime.interrupt import run_command

if __name__ == "__main__":
    run_command("demo", "examples.fleet_on_a_laptop.play")
