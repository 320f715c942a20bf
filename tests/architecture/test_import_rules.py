"""The import rules in pyproject.toml hold, and a violation of each kind is seen."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("edge_runtime", "devices", "converters", "fleet_server")
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
# One forbidden import for each rule that it must break.
VIOLATIONS = {
    "Packages point one way": ("devices", "fleet_server"),
    "Server and boards see only the runtime's contract and trust": ("fleet_server/inventory", "edge_runtime.update"),
    "Converters see the runtime's contract, trust and inference": ("converters", "edge_runtime.agent"),
    "Inside the runtime": ("edge_runtime/update", "edge_runtime.inference"),
    "Inside the fleet server": ("fleet_server/inventory", "fleet_server.rollouts"),
    "Pure modules do no I/O": ("edge_runtime/trust", "time"),
    "The contract costs msgspec and nothing else": ("edge_runtime/contract", "numpy"),
    "asyncio stays at the rim": ("devices", "asyncio"),
    "A vendor library has one door: MQTT": ("fleet_server/telemetry", "paho"),
    "A vendor library has one door: HTTP client": ("devices", "httpx"),
    "A vendor library has one door: onnxruntime": ("edge_runtime/inference", "onnxruntime"),
    "A vendor library has one door: OpenVINO": ("edge_runtime/inference", "openvino"),
    "A vendor library has one door: LiteRT": ("edge_runtime/inference", "ai_edge_litert"),
    "A vendor library has one door: Prometheus": ("edge_runtime/serving", "prometheus_client"),
    "A vendor library has one door: SQL": ("fleet_server/rollouts", "sqlmodel"),
    "A vendor library has one door: web framework": ("converters", "fastapi"),
}


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=tree, capture_output=True, text=True, timeout=100, check=False
    )


def broken_rules(output: str) -> set[str]:
    return set(re.findall(r"^(.+?) BROKEN\b", output, re.MULTILINE))


def copy_tree(to: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)


def test_every_import_follows_the_rules() -> None:
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


def test_an_import_against_each_rule_is_seen(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    for importer, imported in VIOLATIONS.values():
        init = tmp_path / importer / "__init__.py"
        init.write_text(f"{init.read_text()}\nimport {imported}\n")
    (tmp_path / "devices" / "odds_and_ends.py").write_text('"""Nobody decided where this stands."""\n')

    result = lint_imports(tmp_path)

    assert result.returncode == 1, result.stdout + result.stderr
    assert set(VIOLATIONS) | {"Inside devices"} <= broken_rules(result.stdout)
