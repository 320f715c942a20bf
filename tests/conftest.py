"""Decides which tests may run here, and what a failed one shows.

A missing system tool skips with its reason, or fails where skips are forbidden.
"""

import os
import shutil
import signal
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest
from hypothesis import HealthCheck, settings

# No deadline: a machine that is busy with other work must not turn a property red. `make lab` looks longer.
_CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("default", deadline=None, max_examples=50, suppress_health_check=_CHECKS)
settings.register_profile("lab", deadline=None, max_examples=1000, suppress_health_check=_CHECKS)
settings.load_profile(os.environ.get("EDGEFLEET_HYPOTHESIS_PROFILE", "default"))

# A shell lets what it starts in the background ignore Ctrl-C, and nohup a hang-up; every process that a test signals
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What a person has tuned must not change what a test measures; nothing is kept there.
os.environ["XDG_STATE_HOME"] = "/nonexistent/edgefleet-state"

# What a person has installed must not change what a test builds; the lab asks for it by name.
os.environ["EDGEFLEET_TOOLCHAINS"] = "/nonexistent/edgefleet-toolchains"

TOOLS_BY_MARKER = {
    "needs_mosquitto": ("mosquitto",),
    "needs_chromium": ("chromium",),
    "needs_registry": ("docker-registry", "skopeo"),
    "needs_qemu": ("qemu-x86_64",),
    "needs_cpp": ("g++",),
    "needs_curl": ("curl",),
}
PACKAGES = {"qemu-x86_64": "qemu-user"}
"""Debian packages that are not called like their program."""
_SHOWN = 6000
SHARED = Path(__file__).resolve().parents[2] / "shared"


@runtime_checkable
class Talkative(Protocol):
    """A fixture of processes that said something."""

    def logs(self) -> Mapping[str, str]:
        """What each said so far, by its name."""


def find_tool(name: str) -> str | None:
    """Return the program's path, looking where Debian keeps daemons as well."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def missing_tools(markers: set[str]) -> list[str]:
    """Return the programs that tests with these markers need and this machine lacks."""
    return [tool for marker in sorted(markers) for tool in TOOLS_BY_MARKER.get(marker, ()) if find_tool(tool) is None]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here; where .ci/run forbids skips, fail instead, so that nothing goes untested unseen."""
    markers = {mark.name for mark in item.iter_markers()}
    if missing := missing_tools(markers):
        packages = " ".join(PACKAGES.get(tool, tool) for tool in missing)
        reason = f"needs {', '.join(missing)}, which this machine lacks; on Debian: apt install {packages}"
        if os.environ.get("EDGEFLEET_FORBID_SKIPS") == "1":
            pytest.fail(f"{reason} (skips are forbidden here)", pytrace=False)
        pytest.skip(reason)
    if "needs_shared" in markers and not SHARED.is_dir():
        pytest.skip("needs the models in ../shared, which are not part of the repository")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a failed test's processes said last: they and their files are gone when somebody reads the report."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Talkative):
                report.sections.extend((f"last words of {name}", text[-_SHOWN:]) for name, text in value.logs().items())
    return report


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Builds in tests find nothing of other builds, and leave nothing where people keep theirs."""
    os.environ["EDGEFLEET_CONVERT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of models beside the repository; for tests marked needs_shared."""
    return SHARED
