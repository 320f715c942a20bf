"""Says which routes work here, and installs what the isolated ones need."""

from __future__ import annotations

import json

from converters.routes import diagnose
from converters.toolchains import TOOLCHAINS, find_installed, install, toolchain_named, toolchains_folder, why_missing


def doctor_report(*, as_json: bool) -> str:
    """Every route with what it lacks."""
    found = diagnose()
    if as_json:
        rows = [
            {"route": one.route, "works": one.works,
             "missing": [{"name": need.name, "kind": need.kind, "remedy": need.remedy} for need in one.missing]}
            for one in found
        ]  # fmt: skip
        return json.dumps({"routes": rows}, sort_keys=True)
    lines = []
    for one in found:
        lines.append(f"{'works' if one.works else 'missing':8} {one.route}")
        lines += [f"         {need.name}: {need.remedy}" for need in one.missing]
    return "\n".join(lines)


def toolchain_table(*, as_json: bool) -> str:
    """Every toolchain: what it is for, and where it is installed."""
    rows = [
        {"name": one.name, "purpose": one.purpose, "size_mb": one.size_mb,
         "folder": str(ready.folder) if (ready := find_installed(one)) else None,
         "missing": None if ready else why_missing(one)}
        for one in TOOLCHAINS.values()
    ]  # fmt: skip
    if as_json:
        return json.dumps({"folder": str(toolchains_folder()), "toolchains": rows}, sort_keys=True)
    return "\n".join(
        f"{row['name']:14} {row['size_mb']:5} MB  {row['purpose']}\n"
        f"{'':24}{row['folder'] or str(row['missing']) + ': edge-convert toolchain install ' + str(row['name'])}"
        for row in rows
    )


def install_toolchain(name: str, *, as_json: bool) -> str:
    """Install one toolchain, with a spinner on a terminal; says where it is. Raises: BadToolchain."""
    from rich.console import Console

    toolchain = toolchain_named(name)
    console = Console(stderr=True)
    with console.status(f"installing toolchain {name}") as status:
        installed = install(toolchain, status.update)
    if as_json:
        return json.dumps({"name": name, "folder": str(installed.folder)}, sort_keys=True)
    return f"toolchain {name} is ready in {installed.folder}"
