"""What an intruder can try: a release of his own making, and another device's certificate at the broker."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_runtime.contract import topics
from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_state import Reported, Status
from edge_runtime.contract.ids import DeviceId, SlotId, Version
from edge_runtime.contract.layout import (
    RELEASE_CONFIG,
    VARIANT_CONFIG,
    LayoutFolder,
    LayoutWriter,
    open_variant,
    variant_annotations,
)

FORGED_REVISION = 2**40


def forge_release(genuine: Path, forged: Path, version: str) -> None:
    """Repackage a genuine release under another version, with its labels turned round."""
    source, writer = LayoutFolder(genuine), LayoutWriter(forged)
    release = source.open()
    files: dict[str, bytes] = {
        title: source.read_blob(layer, max_bytes=layer.size) for title, layer in release.layers.by_title.items()
    }
    files["labels.txt"] = b"\n".join(reversed(files["labels.txt"].split())) + b"\n"
    manifest = msgspec.structs.replace(release.manifest, version=Version(version))
    head = writer.add_manifest(encode(manifest), RELEASE_CONFIG, files, {})
    variants = []
    for entry in release.index.variants:
        variant = open_variant(source, entry)
        contents: dict[str, bytes] = {
            title: source.read_blob(layer, max_bytes=layer.size) for title, layer in variant.layers.by_title.items()
        }
        config = source.read_blob(variant.layers.config, max_bytes=variant.layers.config.size)
        variants.append(writer.add_manifest(config, VARIANT_CONFIG, contents, variant_annotations(variant.manifest)))
    writer.finish(head, variants, Version(version))


@dataclass
class StolenIdentity:
    """A device's key and certificate in the wrong hands.

    Args:
        folder: holds `device.crt` and `device.key`.
        ca_file: the fleet's authority.
        port: the broker's.
    """

    folder: Path
    ca_file: Path
    port: int
    heard: list[str] = field(default_factory=list)
    """Topics of everything that was delivered to the intruder."""
    _subscribed: threading.Event = field(default_factory=threading.Event)

    def attack(self, client_id: str, victim: DeviceId) -> paho.Client:
        """Connect, then listen, publish and leave a will in the victim's name."""
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True, protocol=MQTTProtocolVersion.MQTTv311
        )
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(self.folder / "device.crt", self.folder / "device.key")
        client.tls_set_context(context)
        lost = Status(device=victim, state="lost", session="forged")
        client.will_set(topics.up(victim, topics.STATUS), encode(lost), qos=1, retain=True)
        client.on_connect = lambda connected, *_: self._begin(connected, victim)
        client.on_message = lambda _client, _data, message: self.heard.append(message.topic)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.connect_async("127.0.0.1", self.port, 30)
        client.loop_start()
        return client

    def vanish(self, client: paho.Client) -> None:
        """Break the connection without a goodbye, so that the broker publishes the will."""
        client.reconnect_delay_set(3600, 3600)
        socket = client.socket()
        if socket is not None:
            socket.close()
        client.loop_stop()

    def wait_subscribed(self, timeout_s: float) -> bool:
        """Whether the broker has answered a subscription; it may also never let the intruder in."""
        return self._subscribed.wait(timeout_s)

    def _begin(self, client: paho.Client, victim: DeviceId) -> None:
        for wish in (topics.all_down(victim), f"{topics.ROOT}/+/down/#", "#"):
            client.subscribe(wish, qos=1)
        forged = Reported(
            device=victim, slot=SlotId("main"), revision=FORGED_REVISION, seq=2**40, state="failed", at=0.0
        )
        client.publish(topics.reported(victim, SlotId("main")), encode(forged), qos=1)
