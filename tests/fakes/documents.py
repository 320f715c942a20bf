# ruff: noqa: E501 (a table of examples)
"""One complete, valid example of every document of the contract; the golden files are their canonical bytes."""

from pathlib import Path

from edge_runtime.contract.answer_steps import TopK
from edge_runtime.contract.codec import Document, encode
from edge_runtime.contract.device_profile import DeviceFacts, DeviceProfile, EngineFact
from edge_runtime.contract.device_state import (
    Assignment,
    Birth,
    Candidate,
    Command,
    CommandResult,
    DirectorAnswer,
    Doorbell,
    Enrolment,
    EnrolmentRequest,
    Event,
    IdentityGrant,
    MqttEndpoint,
    Policy,
    Reason,
    RenewalRequest,
    Reported,
    Running,
    SignedTime,
    SlotSummary,
    Status,
    TrialReport,
)
from edge_runtime.contract.digest import Digest, digest_of
from edge_runtime.contract.evidence import Accuracy, By, CheckResult, Evidence, EvidenceFile, Latency, Where
from edge_runtime.contract.golden import write_golden
from edge_runtime.contract.ids import DeviceId, LayerName, ModelName, SlotId, VariantId, Version, target_path
from edge_runtime.contract.image_steps import Decode, Layout, Normalize, Resize
from edge_runtime.contract.layout import RELEASE_CONFIG, VARIANT_CONFIG, LayoutWriter, variant_annotations
from edge_runtime.contract.release import (
    BatchSpec,
    Calibration,
    EngineRequirement,
    FileEntry,
    GoldenCheck,
    GoldenSpec,
    Licence,
    Limits,
    ModelFormat,
    Quantisation,
    ReferenceScore,
    ReleaseManifest,
    Resources,
    Source,
    TensorBinding,
    TensorMap,
    VariantManifest,
    Waiver,
)
from edge_runtime.contract.sketch import Sketch
from edge_runtime.contract.steps import raw_steps
from edge_runtime.contract.target import Target
from edge_runtime.contract.telemetry import Sample, TelemetryAck, TelemetryBatch
from edge_runtime.contract.tensor import AxisRange, InputSpec, OutputSpec, Signature, TensorSpec

DEVICE = DeviceId("gate-07")
SLOT = SlotId("main")
MODEL = ModelName("digits")
VERSION = Version("1.0.0")
RELEASE = digest_of(b"release index")
VARIANT = digest_of(b"variant manifest")
MODEL_FILE = b"the model's bytes"


def release_manifest(**changes: object) -> ReleaseManifest:
    """A classifier of grey 32×32 images with two variants."""
    fields: dict[str, object] = {
        "kind": "model",
        "name": MODEL,
        "version": VERSION,
        "task": "image_classification",
        "requires": [],
        "licence": Licence(spdx="Apache-2.0", model_card="layer:card.md"),
        "source": Source(digest=digest_of(b"source"), format="onnx", opset=13),
        "recipe": digest_of(b"recipe"),
        "calibration": Calibration(digest=digest_of(b"calibration"), count=100, name="calibration"),
        "signature": Signature(
            inputs=[
                InputSpec(
                    name="image", kind="image", dtype="uint8", shape=["N", 32, 32, 1], layout="NHWC", color="gray",
                    accept=["png", "tensor"],
                )
            ],
            outputs=[OutputSpec(name="digit", kind="classes", labels="layer:labels.txt", raw="logits")],
            axes={"N": AxisRange(min=1, max=8)},
        ),
        "tensors": {
            "input": TensorSpec(dtype="float32", shape=["N", 1, 32, 32], layout="NCHW"),
            "logits": TensorSpec(dtype="float32", shape=["N", 10]),
        },
        "preprocess": {
            "input": raw_steps(
                (
                    Decode(id="decode", from_="image", color="gray", exif="ignore", reduced="never"),
                    Resize(id="resize", mode="stretch", size=(32, 32), filter="bilinear", antialias=True, tolerance_lsb=1),
                    Normalize(id="norm", scale=1.0, mean=[0.0], std=[255.0]),
                    Layout(id="layout", to="NCHW"),
                )
            )
        },
        "postprocess": {"digit": raw_steps((TopK(from_="logits", activation="softmax", k=3),))},
        "golden": GoldenSpec(
            layer="golden.tar", count=1, contains_personal_data=False,
            checks=[
                GoldenCheck(against="own", metric="snr_db", on="logits", min=30.0),
                GoldenCheck(against="float", metric="snr_db", on="logits", min=15.0),
                GoldenCheck(against="truth", metric="top1", min=0.9),
            ],
        ),
        "reference": ReferenceScore(metric="top1", value=0.9875, count=400, evaluation=digest_of(b"evaluation")),
        "limits": Limits(latency_p95_ms={"*": 50.0}, max_drop={"*": 0.01}),
        "waivers": [Waiver(check="accuracy_gate", detail="--no-accuracy-gate was given")],
        "variants": [VariantId("ort-fp32"), VariantId("ort-int8")],
    }  # fmt: skip
    return ReleaseManifest(**{**fields, **changes})  # type: ignore[arg-type]


def variant_manifest(variant: str = "ort-fp32", precision: str = "float32", **changes: object) -> VariantManifest:
    """A build of `release_manifest` for ONNX Runtime on any CPU."""
    fields: dict[str, object] = {
        "id": VariantId(variant),
        "requires": [],
        "target": Target(engine="onnxruntime", provider=["cpu"], arch=["x86_64", "aarch64"], precision=precision),
        "engine": EngineRequirement(version=">=1.17", format=ModelFormat(opset=13, ir=8)),
        "files": [
            FileEntry(role="model", layer=LayerName("model.onnx"), digest=digest_of(MODEL_FILE), size=len(MODEL_FILE))
        ],
        "io": TensorMap(
            inputs={
                "input": TensorBinding(tensor="image", dtype="uint8", layout="NHWC", absorbs=["norm", "layout"], exact=True)
            },
            outputs={"logits": TensorBinding(tensor="logits", dtype="float32")},
        ),
        "batch": BatchSpec(max=8, dynamic=True),
        "resources": Resources(peak_bytes=23_000_000, method="VmHWM minus import"),
    }  # fmt: skip
    if precision == "int8":
        fields["quantisation"] = Quantisation(
            tool="onnxruntime.quantization 1.32.0", granularity="per_channel", overflow_safe=True, reduce_range=True
        )
        fields["golden_own"] = "layer:own.npz"
        fields["fallback"] = VariantId("ort-fp32")
    return VariantManifest(**{**fields, **changes})  # type: ignore[arg-type]


def facts(**changes: object) -> DeviceFacts:
    """A small x86 machine with ONNX Runtime only."""
    fields: dict[str, object] = {
        "arch": "x86_64",
        "isa": ["avx2", "fma"],
        "cpu": "Example CPU",
        "cores": 2,
        "memory_bytes": 512 * 1024**2,
        "engines": [EngineFact(name="onnxruntime", version="1.32.0", providers=["cpu"])],
        "os": "Linux",
        "python": "3.11.7",
        "profile": "x86-64-cpu",
    }
    return DeviceFacts(**{**fields, **changes})  # type: ignore[arg-type]


def evidence() -> Evidence:
    """A measurement on the build machine."""
    return Evidence(
        variant=VARIANT, release=RELEASE, at="2026-11-22T20:55:00Z", by=By(kind="build"),
        where=Where(arch="x86_64", isa=["avx2"], cpu="Example CPU", execution="native", engine="onnxruntime 1.32.0"),
        accuracy=Accuracy(metric="top1", value=0.985, count=400, float_value=0.9875, own_snr_db=45.0),
        latency_ms=Latency(p50=1.5, p95=1.9, ratio_to_float=0.63),
        checks=[CheckResult(against="own", metric="snr_db", on="logits", value=45.0, passed=True, min=30.0)],
        peak_bytes=23_000_000, verdict="shipped",
    )  # fmt: skip


def assignment(**changes: object) -> Assignment:
    """What the main slot of the example device must run."""
    fields: dict[str, object] = {
        "device": DEVICE,
        "slot": SLOT,
        "kind": "model",
        "seq": 7,
        "issued": 1_795_000_000.0,
        "expires": 1_797_592_000.0,
        "target": target_path(MODEL, VERSION),
        "release": RELEASE,
        "length": 1234,
        "candidates": [Candidate(id=VariantId("ort-int8"), digest=VARIANT)],
        "max_trials": 2,
        "parameters": {"min_score": 0.5, "region": [0.0, 0.0, 1.0, 1.0]},
        "policy": Policy(soak_s=30.0, deadline_s=900.0, max_latency_ratio=1.5),
        "rollout": "r-000001",
    }
    return Assignment(**{**fields, **changes})  # type: ignore[arg-type]


def running() -> Running:
    """What the example device answers with."""
    return Running(
        seq=7,
        release=RELEASE,
        variant=VariantId("ort-int8"),
        variant_digest=VARIANT,
        target=target_path(MODEL, VERSION),
    )


def sketch() -> Sketch:
    """Four latencies."""
    values = Sketch()
    for value in (0.0, 1.5, 1.6, 20.0):
        values.add(value)
    return values


def batch(first_seq: int = 41, count: int = 1) -> TelemetryBatch:
    """Windows of one minute."""
    samples = [
        Sample(
            start=1_795_000_000.0 + 60 * n, end=1_795_000_060.0 + 60 * n, slot=SLOT, release=RELEASE,
            variant=VariantId("ort-int8"), requests=4, correct=3, total=4, errors={"inference": 1},
            latency_ms=sketch().to_data(), gauges={"temperature_c": 51.5},
        )
        for n in range(count)
    ]  # fmt: skip
    return TelemetryBatch(
        epoch="e3b0c442", stream="windows", first_seq=first_seq, count=count, samples=samples, dropped=2
    )


def documents() -> dict[str, Document]:
    """Every kind of document by the name of its golden file."""
    at = 1_795_000_100.0
    reason = Reason(code="golden_failed", detail="float snr_db 7.2 is below 15.0", retryable=False)
    trial = TrialReport(variant=VariantId("ort-int8"), digest=VARIANT, verdict="chosen", evidence=evidence())
    return {
        "release-manifest": release_manifest(),
        "variant-manifest": variant_manifest("ort-int8", "int8"),
        "evidence": evidence(),
        "evidence-file": EvidenceFile(variants={"ort-int8": evidence()}),
        "device-profile": DeviceProfile(
            id="x86-64-cpu", title="x86-64 PC", family="cpu", arch="x86_64", isa=["avx2"],
            engines={"onnxruntime": "1.23.2"}, memory_bytes=2 * 1024**3, support_tier="builds",
        ),
        "device-facts": facts(),
        "enrolment": Enrolment(
            server_url="https://127.0.0.1:8443", ca_pem="-----BEGIN CERTIFICATE-----\n…", ca_sha256="ab" * 32,
            tuf_root="{}", claim="one-time", device=DEVICE, labels={"site": "north"},
        ),
        "enrolment-request": EnrolmentRequest(claim="one-time", device=DEVICE, csr_pem="-----BEGIN…", facts=facts()),
        "renewal-request": RenewalRequest(csr_pem="-----BEGIN…"),
        "identity-grant": IdentityGrant(
            device=DEVICE, certificate_pem="-----BEGIN…", mqtt=MqttEndpoint(host="127.0.0.1", port=8883), time=at
        ),
        "assignment": assignment(),
        "assignment-none": assignment(kind="none", target=None, release=None, length=None, candidates=[], seq=8),
        "signed-time": SignedTime(device=DEVICE, nonce="n0nce", time=at),
        "director-answer": DirectorAnswer(time="{}", assignments=["{}"]),
        "doorbell": Doorbell(slot=SLOT, seq=7),
        "reported": Reported(
            device=DEVICE, slot=SLOT, revision=12, seq=7, state="failed", at=at, target=target_path(MODEL, VERSION),
            release=RELEASE, variant=VariantId("ort-int8"), running=running(), reason=reason, trials=[trial],
            rollout="r-000001",
        ),
        "status": Status(device=DEVICE, state="ready", session="s-1", at=at),
        "birth": Birth(
            device=DEVICE, session="s-1", agent="0.1.0", facts=facts(), labels={"site": "north"},
            slots={SLOT: SlotSummary(seq=7, state="confirmed", revision=12, running=running())},
        ),
        "telemetry-batch": batch(),
        "telemetry-ack": TelemetryAck(epoch="e3b0c442", stream="windows", seq=41),
        "command": Command(id="c-1", name="restart", expires=at),
        "command-result": CommandResult(id="c-1", ok=True, at=at),
        "event": Event(name="model.activated", at=at, slot=SLOT, detail={"seq": 7}),
    }  # fmt: skip


def write_release(folder: Path, version: str = "1.0.0", **changes: object) -> Digest:
    """A release of two variants as a layout on disk; its files are no real models."""
    manifest = release_manifest(version=Version(version), **changes)
    writer = LayoutWriter(folder)
    golden = write_golden(
        {"truth.json": b'{"labels":{"digit":[3]}}', "inputs/0/image.npy": b"npy", "float/0/logits.npy": b"npy"}
    )
    files = {"golden.tar": golden, "labels.txt": b"0\n1\n", "card.md": b"# digits\n"}
    head = writer.add_manifest(encode(manifest), RELEASE_CONFIG, files, {})
    variants = []
    for variant in (variant_manifest(), variant_manifest("ort-int8", "int8")):
        own = {} if variant.golden_own is None else {"own.npz": b"npz"}
        variants.append(
            writer.add_manifest(
                encode(variant), VARIANT_CONFIG, {"model.onnx": MODEL_FILE, **own}, variant_annotations(variant)
            )
        )
    return writer.finish(head, variants, manifest.version)
