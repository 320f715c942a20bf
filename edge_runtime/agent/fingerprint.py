"""What this device is: engines that really work, within what its owner grants the agent.

Probing constructs engines, which costs tens of megabytes: a child process does it, so that the agent stays small
until it loads a model. `python -m edge_runtime.agent.fingerprint` prints the facts of an agent's machine.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import msgspec

from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.errors import InferenceError
from edge_runtime.settings import DeviceSettings

_PROBE_TIMEOUT_S: Final = 120.0


def gather(settings: DeviceSettings) -> DeviceFacts:
    """Facts for births and for the choice of variants. Raises: InferenceError when no child process can be run."""
    command = [sys.executable, "-m", "edge_runtime.agent.fingerprint", *settings.backends]
    try:
        child = subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        why = shown_end(getattr(error, "stderr", b"") or b"") or str(error)
        raise InferenceError("find out what this device can run", why, "raise memory_bytes, or reinstall") from error
    found = decode(child.stdout, DeviceFacts)
    granted = found.memory_bytes if settings.memory_bytes is None else min(settings.memory_bytes, found.memory_bytes)
    return msgspec.structs.replace(found, memory_bytes=granted, profile=settings.profile)


def shown_end(output: bytes) -> str:
    """The last line of a child's error output, short enough for a message."""
    return output.decode(errors="replace").strip().rpartition("\n")[2][:200]


def main(backends: list[str]) -> int:
    """Print the facts of this machine as one JSON document."""
    from edge_runtime.inference.facts import engines, machine_facts

    sys.stdout.buffer.write(encode(machine_facts(engines(backends or None))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
