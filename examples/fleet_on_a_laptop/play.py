"""`make demo`: a real fleet on this machine, from a trained model to devices that are confirmed to run it well."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from edge_runtime.contract.errors import EdgeError
from examples.fleet_on_a_laptop.demo import Demo
from examples.fleet_on_a_laptop.fleet import DEVICES
from examples.fleet_on_a_laptop.narration import Narrator
from examples.fleet_on_a_laptop.stage import DemoFailure, Stage


def main() -> NoReturn:
    """Play the demo; exit code 0 only when every promise was kept."""
    sys.exit(_play(_parse()))


def _play(arguments: argparse.Namespace) -> int:
    tell = Narrator()
    try:
        with Stage() as stage:
            demo = Demo(
                stage,
                tell,
                devices=DEVICES[: arguments.devices],
                broker=arguments.broker,
                unsafe=arguments.unsafe,
                unsafe_devices=arguments.unsafe_devices,
                built=arguments.built,
            )
            try:
                demo.play([int(act) for act in arguments.acts.split(",")])
            except (DemoFailure, EdgeError) as error:
                tell.failed(str(error))
                return 1
            tell.act(7, "Everything above really happened")
            if arguments.keep:
                _keep(tell, demo)
    except KeyboardInterrupt:
        tell.say("interrupted; every process has ended and the folder is gone")
        return 130
    return 0


def _keep(tell: Narrator, demo: Demo) -> None:
    tell.say(f"the fleet keeps running in {demo.stage.folder}")
    tell.say(f"the console:  {demo.fleet.url}/console")
    tell.say(f"log in with:  {demo.fleet.api_key}  (kept in {demo.stage.folder / 'admin.key'})")
    tell.say("look around in another shell:")
    tell.say(f"export EDGEFLEET_SERVER={demo.fleet.url} EDGEFLEET_API_KEY={demo.fleet.api_key}")
    command = os.path.relpath(Path(sys.executable).with_name("edge-fleet"))
    tell.say(f"{command} devices list    {command} releases list    {command} rollouts list")
    tell.say("Ctrl-C ends everything")
    signal.pause()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.fleet_on_a_laptop", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end, until Ctrl-C")
    parser.add_argument("--broker", choices=("auto", "embedded", "mosquitto"), default="auto")
    parser.add_argument("--devices", type=int, default=len(DEVICES), choices=range(1, len(DEVICES) + 1))
    parser.add_argument("--acts", default="1,2,3,4,5,6", help="acts to play; the first three always are")
    parser.add_argument("--built", type=Path, help="folder of releases that an earlier run built")
    parser.add_argument("--unsafe", action="append", default=[], choices=("gate", "acl", "signatures"))
    parser.add_argument("--unsafe-devices", action="append", default=[], choices=("golden", "signatures"))
    return parser.parse_args()

