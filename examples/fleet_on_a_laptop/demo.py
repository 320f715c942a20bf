"""A fleet on a laptop, in six acts; every claim is checked through the public API, and any that fails ends the demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edge_runtime.contract.ids import DeviceId
from examples.fleet_on_a_laptop import releases
from examples.fleet_on_a_laptop.fleet import DEVICES, SELECTOR, Device, Fleet, Json
from examples.fleet_on_a_laptop.intruder import FORGED_REVISION, StolenIdentity, forge_release
from examples.fleet_on_a_laptop.narration import Narrator
from examples.fleet_on_a_laptop.releases import BuiltRelease
from examples.fleet_on_a_laptop.stage import DemoFailure, Stage

_STOLEN = DeviceId("stolen-1")
_REFUSED = "refused-3"
_ENDED = {"completed", "paused", "reverted", "cancelled"}


@dataclass
class Demo:
    """The whole play.

    Args:
        stage: processes and folder.
        tell: where it is told.
        devices: who plays.
        broker: auto, embedded or mosquitto.
        unsafe: defences that the server leaves out, for controls.
        unsafe_devices: defences that the devices leave out, for controls.
        built: folder with releases of an earlier run; None: build them now.
    """

    stage: Stage
    tell: Narrator
    devices: Sequence[Device] = DEVICES
    broker: str = "auto"
    unsafe: Sequence[str] = ()
    unsafe_devices: Sequence[str] = ()
    built: Path | None = None
    fleet: Fleet = field(init=False)
    _launched: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.stage, self.broker, self.unsafe, self.unsafe_devices)

    def play(self, acts: Sequence[int] = (1, 2, 3, 4, 5, 6)) -> None:
        """Play these acts in order (1 and 2 always come first). Raises: DemoFailure at the first broken promise."""
        first = self.convert()
        self.start()
        # The converter works while the fleet does: what an act needs is built during the act before.
        if 4 in acts:
            self._launch_careless(" (in the background, for act 4)")
        self.first_release(first)
        if 5 in acts:
            self._launch_bad(first, " (in the background, for act 5)")
        if 4 in acts:
            self.careless_release()
        if 5 in acts:
            self.bad_model(first)
        if 6 in acts:
            self.intruder(first)

    def convert(self) -> BuiltRelease:
        """Act 1: a trained model becomes a signed release with evidence."""
        self.tell.act(1, "A trained model becomes a signed release")
        self.fleet.begin_server()  # it takes its time; act 2 needs it
        if self.stage.run("converters.cli", "keygen", self._key).status != 0:
            raise DemoFailure("edge-convert keygen failed")
        self._launch("release-1", 1)
        release = self._collect("release-1")
        self.tell.block(release.table)
        self._sign(release)
        self.tell.proved(
            f"release {release.version} is built, judged by real kernels and signed: {release.digest[:19]}…"
        )
        return release

    def start(self) -> None:
        """Act 2: a server, a broker and devices that differ; they enrol."""
        self.tell.act(2, f"A server, a broker and {len(self.devices)} devices")
        self.fleet.await_server()
        self.fleet.must("keys", "authorise", "digits", self._key.with_suffix(".pub"), "--data", self.fleet.data)
        for device in self.devices:
            self.fleet.begin_device(device)
            self.tell.say(f"{device.name}: {device.story}")
        for device in self.devices:
            self.stage.wait(partial(self._is_ready, device.name), f"{device.name} to enrol and connect")
        self.tell.proved("all devices enrolled with keys of their own making, and speak mutual TLS")

    def first_release(self, release: BuiltRelease) -> None:
        """Act 3: in waves to confirmed everywhere; real digits, measured accuracy."""
        self.tell.act(3, "Release 1 rolls out in waves")
        self._push(release)
        rollout = self._roll_out(release, "1,100%")
        self._must_end(rollout, "completed")
        for device in self.devices:
            running = self._running(device.name)
            if running.get("release") != release.digest:
                raise DemoFailure(f"{device.name} does not run release 1: {running}")
            self.tell.proved(f"{device.name} confirmed {running['variant']}")
        counted = self.stage.wait(lambda: self._all_measured(release), "telemetry with accuracy from every device")
        for name, (correct, total) in sorted(counted.items()):
            self.tell.say(f"{name}: {correct} of {total} real digits right ({correct / total:.1%})")
        right, seen = (sum(pair[place] for pair in counted.values()) for place in (0, 1))
        if right < 0.9 * seen:
            raise DemoFailure(f"only {right} of {seen} digits were right")
        self.tell.proved(f"measured in the field: {right / seen:.1%} of {seen} answers")

    def careless_release(self) -> None:
        """Act 4: a careless build; the devices find out by themselves."""
        self.tell.act(4, "Release 2 was built carelessly: accuracy gate off, calibrated on the wrong pictures")
        self._launch_careless()
        release = self._collect("release-2")
        self.tell.block(release.table)
        self._sign(release)
        recorded = releases.waivers(release)
        if "accuracy_gate" not in recorded:
            raise DemoFailure(f"the manifest does not record the missing gate: {recorded}")
        self.tell.proved(
            f"its manifest records both: waived {', '.join(recorded)}, "
            f"calibrated on {releases.calibration_name(release)!r}"
        )
        self._push(release)
        self._must_end(self._roll_out(release, "1,100%"), "completed")
        refusals = [self._check_careless(device.name, release) for device in self.devices]
        if not any(refusals):
            raise DemoFailure("no device met the ruined int8 variant on its golden set")

    def _check_careless(self, name: str, release: BuiltRelease) -> bool:
        """Whether this device itself refused the int8 variant; the others were spared what their class had seen."""
        report = self.fleet.slot(name)
        running = report["running"] or {}
        tried = [
            trial for trial in report["trials"] if "int8" in trial["variant"] and trial["verdict"] != "skipped"
        ]
        refused = [trial for trial in tried if trial["verdict"] == "refused:golden_failed"]
        if "int8" in running.get("variant", "int8") or running["release"] != release.digest or tried != refused:
            verdicts = {trial["variant"]: trial["verdict"] for trial in report["trials"]}
            raise DemoFailure(f"{name} let the ruined int8 variant through: runs {running.get('variant')}, {verdicts}")
        if refused:
            self.tell.proved(
                f"{name} refused {refused[0]['variant']} ({refused[0]['detail']}), runs {running['variant']}"
            )
        else:
            self.tell.proved(f"{name} runs {running['variant']}, the winner that its device class has found already")
        return bool(refused)

    def bad_model(self, first: BuiltRelease) -> None:
        """Act 5: a model trained on shuffled labels; the canary refuses it and the fleet goes back, provably."""
        self.tell.act(5, "Release 3 is a model that learned nothing")
        self._launch_bad(first)
        if not self.built:
            refusal = self.stage.collect(_REFUSED)
            if refusal.status == 0:
                raise DemoFailure("the converter built a model that contradicts its labels without a word")
            self.tell.proved(f"the converter refuses it: {refusal.errors.strip().splitlines()[-1]}")
        release = self._collect("release-3")
        if "golden" not in releases.waivers(release):
            raise DemoFailure("the manifest does not record that the golden set was overruled")
        self._sign(release)
        self._push(release)
        before = {device.name: self._running(device.name) for device in self.devices}
        seqs = {device.name: self.fleet.slot(device.name)["seq"] for device in self.devices}
        rollout = self._roll_out(release, "1,50%,100%")
        shown = self._must_end(rollout, "reverted")
        for member in shown["members"]:
            self._check_member(member, before, seqs)
        for device in self.devices:
            if self._running(device.name).get("release") != before[device.name].get("release"):
                raise DemoFailure(f"{device.name} does not run release 2 any more")
        self.tell.proved(
            f"{len(shown['members'])} of {len(self.devices)} devices were reached; all still run release 2"
        )
        entries = self.fleet.get("/api/v1/audit", subject=rollout)["items"]
        sentences = [entry["detail"].get("sentence", "") for entry in entries]
        why = next((sentence for sentence in sentences if "truth_failed" in sentence), None)
        if why is None:
            raise DemoFailure(f"the audit log does not say why: {sentences}")
        self.tell.proved(f"the audit log says why: {why}")

    def intruder(self, first: BuiltRelease) -> None:
        """Act 6: a foreign release and a stolen certificate; nothing is installed, nothing delivered."""
        self.tell.act(6, "An intruder tries")
        self._foreign_release(first)
        self._stolen_certificate()

    @property
    def _key(self) -> Path:
        return self.stage.folder / "team.key"

    @property
    def _folder(self) -> Path:
        return self.stage.folder / "releases"

    def _launch_careless(self, why_now: str = "") -> None:
        self._launch("release-2", 2, "--no-accuracy-gate", why_now=why_now)

    def _launch_bad(self, first: BuiltRelease, why_now: str = "") -> None:
        self._launch(_REFUSED, 3, "--golden-from", first.folder, why_now=why_now)
        self._launch("release-3", 3, "--golden-from", first.folder, "--allow-failed-golden", why_now=why_now)

    def _launch(self, name: str, number: int, *options: str | Path, why_now: str = "") -> None:
        """Let the converter begin, unless it has or an earlier run's releases are used."""
        if self.built is None and name not in self._launched:
            self._launched.add(name)
            words = " ".join(str(option) for option in options if isinstance(option, str) and option != "--golden-from")
            self.tell.say(f"edge-convert build --recipe release-{number}.toml {words}".rstrip() + f" …{why_now}")
            releases.launch_build(self.stage, number, self._folder / name, *options)

    def _collect(self, name: str) -> BuiltRelease:
        if self.built is not None:
            return releases.read_built(self.built / name)
        return releases.collect_build(self.stage, self._folder / name)

    def _sign(self, release: BuiltRelease, key: Path | None = None, metadata: Path | None = None) -> Path:
        signed = metadata or self.stage.folder / "models-digits.json"
        finished = self.stage.run(
            "converters.cli", "sign", release.folder, "--key", key or self._key, "--metadata", signed
        )
        if finished.status != 0:
            raise DemoFailure(f"edge-convert sign: {finished.errors.strip()[-300:]}")
        return signed

    def _push(self, release: BuiltRelease) -> None:
        metadata = self.stage.folder / "models-digits.json"
        self.tell.say(self.fleet.must("releases", "push", release.folder, "--metadata", metadata))

    def _roll_out(self, release: BuiltRelease, waves: str) -> str:
        created = self.fleet.post(
            "/api/v1/rollouts",
            {
                "model": "digits",
                "version": release.version,
                "selector": SELECTOR,
                "waves": waves.split(","),
                "max_failed_ratio": 0.0,
                "soak_s": 1.0,
                "deadline_s": 150.0,
                "on_failure": "revert_all",
                "max_trials": 4,
            },
        )
        rollout: str = created["rollout"]["id"]
        return rollout

    def _must_end(self, rollout: str, state: str) -> Json:
        """Tell what happens until the rollout ends. Raises: DemoFailure when it ends otherwise."""
        told = 0

        def ended() -> Json | None:
            nonlocal told
            shown: Json = self.fleet.get(f"/api/v1/rollouts/{rollout}")
            for entry in sorted(shown["history"], key=lambda one: one["id"]):
                if entry["id"] > told:
                    told = entry["id"]
                    self.tell.say(f"{rollout}: {entry['sentence']}")
            return shown if shown["rollout"]["state"] in _ENDED else None

        shown = self.stage.wait(ended, f"rollout {rollout} to end")
        if shown["rollout"]["state"] != state:
            raise DemoFailure(
                f"rollout {rollout} is {shown['rollout']['state']}, not {state}: {shown['rollout']['sentence']}"
            )
        return shown

    def _is_ready(self, name: str) -> bool | None:
        found = [one for one in self.fleet.get("/api/v1/devices", limit=100)["items"] if one["id"] == name]
        return True if found and found[0]["connection"] == "ready" else None

    def _running(self, name: str) -> Json:
        return self.fleet.slot(name).get("running") or {}

    def _all_measured(self, release: BuiltRelease) -> dict[str, tuple[int, int]] | None:
        counted = self.fleet.accuracy(release.digest)
        enough = all(counted.get(device.name, (0, 0))[1] >= 10 for device in self.devices)
        return counted if enough else None

    def _check_member(self, member: Json, before: dict[str, Json], seqs: dict[str, int]) -> None:
        name = member["device"]
        if member["reason"] != "truth_failed":
            raise DemoFailure(f"{name} did not refuse the model for its truth: {member}")
        if not (member["seq"] > seqs[name] and (member["revert_seq"] or 0) > member["seq"]):
            raise DemoFailure(f"{name} was not given a higher number to go back: {member}")
        running = self._running(name)
        if running.get("release") != before[name].get("release"):
            raise DemoFailure(f"{name} does not run what it ran before: {running}")
        self.tell.proved(
            f"{name} refused it ({member['reason']}) and was told, with seq {member['revert_seq']}, to run release 2"
        )

    def _foreign_release(self, first: BuiltRelease) -> None:
        folder, key = self.stage.folder / "forged", self.stage.folder / "foreign.key"
        forge_release(first.folder, folder, "9.9.9")
        self.stage.run("converters.cli", "keygen", key)
        metadata = self._sign(releases.read_built(folder), key, self.stage.folder / "foreign" / "models-digits.json")
        victim = self.devices[0].name
        before = self._running(victim)
        pushed = self.fleet.command("releases", "push", folder, "--metadata", metadata)
        said = pushed.errors.strip().splitlines()[-1] if pushed.status else "taken"
        self.tell.say(f"release 9.9.9, signed with a foreign key: {said}")
        answer = self.fleet.try_post(
            "/api/v1/rollouts",
            {
                "model": "digits",
                "version": "9.9.9",
                "selector": f"id={victim}",
                "waves": ["100%"],
                "soak_s": 0.5,
                "deadline_s": 60.0,
            },
        )
        if answer.status_code < 300:
            rollout = answer.json()["rollout"]["id"]
            self.stage.wait(lambda: self._ended(rollout), "the foreign rollout to end")
        if self._running(victim) != before:
            raise DemoFailure(f"{victim} installed a release signed by a foreign key")
        self.tell.proved(f"nothing is installed: {victim} still runs {before['target']}")

    def _ended(self, rollout: str) -> bool | None:
        return True if self.fleet.get(f"/api/v1/rollouts/{rollout}")["rollout"]["state"] in _ENDED else None

    def _stolen_certificate(self) -> None:
        victim = DeviceId(self.devices[0].name)
        thief = StolenIdentity(self._steal(), self.fleet.data / "ca" / "ca.crt", self.fleet.mqtt_port)
        before = self.fleet.slot(victim)
        clients = [thief.attack(client_id, victim) for client_id in (_STOLEN, victim)]
        thief.wait_subscribed(10)
        # The server keeps talking to the victim meanwhile (acknowledgements): a listener would hear it.
        self._await_victims_traffic(victim)
        for client in clients:
            thief.vanish(client)
        self._await_victims_traffic(victim)
        after, heard = self.fleet.slot(victim), [topic for topic in thief.heard if str(_STOLEN) not in topic]
        if heard:
            raise DemoFailure(f"the intruder heard what was meant for others: {sorted(set(heard))}")
        if after["revision"] >= FORGED_REVISION or after["running"] != before["running"]:
            raise DemoFailure(f"a forged report was believed: {after}")
        if self.fleet.device(victim)["connection"] != "ready":
            raise DemoFailure(f"{victim} was declared lost by a forged will")
        self.tell.proved(
            "a stolen certificate publishes, listens and leaves a will in another's name: nothing is delivered"
        )

    def _steal(self) -> Path:
        """Let one more device in, the ordinary way; its key is the one that is stolen."""
        from edge_runtime.agent.enrolment import join, read_enrolment
        from edge_runtime.agent.identity import IdentityFolder
        from edge_runtime.agent.server import HttpsDesk

        folder = self.stage.folder / _STOLEN
        folder.mkdir()
        self.fleet.must("devices", "claim", "--device", _STOLEN, "-o", folder / "enrolment.json")
        identity = join(
            IdentityFolder(folder / "identity"),
            HttpsDesk(lambda: 0.0),
            read_enrolment(folder / "enrolment.json"),
            device=_STOLEN,
            labels={},
            facts=None,
        )
        return identity.folder

    def _await_victims_traffic(self, victim: str) -> None:
        """Wait until the server has acknowledged new telemetry of the victim."""

        def counted() -> int:
            rows = self.fleet.get("/api/v1/telemetry/summary", device=victim)["items"]
            return sum(row["requests"] for row in rows)

        start = counted()
        self.stage.wait(lambda: True if counted() > start else None, f"telemetry of {victim}")
