"""What a release takes and gives, as clients see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edge_runtime.contract.answer_steps import TopK
from edge_runtime.contract.ids import shown
from edge_runtime.contract.steps import parse_postprocess
from edge_runtime.serving.calls import BYTES, VARIES, BadCall, TensorMeta, Values

if TYPE_CHECKING:
    from edge_runtime.contract.layout import BlobSource, OpenRelease
    from edge_runtime.contract.release import ReleaseManifest, VariantManifest
    from edge_runtime.contract.tensor import Shape
    from edge_runtime.inference.backend import Array

_SPLITS_MAX: Final = 64
"""Different wishes that are remembered."""


def describe_inputs(release: ReleaseManifest) -> tuple[TensorMeta, ...]:
    """The public inputs of a release, as arrays; those that accept an encoding take BYTES [N] as well."""
    return tuple(TensorMeta(spec.name, spec.dtype, _sizes(spec.shape)) for spec in release.signature.inputs)


def describe_outputs(release: ReleaseManifest, variant: VariantManifest) -> tuple[TensorMeta, ...]:
    """Canonical output tensors without states, then the public outputs whose names are still free, as BYTES."""
    wanted = WantedOutputs(release, variant)
    tensors = tuple(
        TensorMeta(name, release.tensors[name].dtype, _sizes(release.tensors[name].shape)) for name in wanted.tensors
    )
    return (*tensors, *(TensorMeta(name, BYTES, (VARIES,)) for name in wanted.public))


def tensor_labels(release: OpenRelease, source: BlobSource) -> dict[str, tuple[str, ...]]:
    """What the classes of a canonical tensor are called, by index, where the release says so.

    Raises:
        ContractError: a label list is missing or broken.
        DigestMismatch: it is not the promised one.
    """
    from edge_runtime.inference.opening import read_labels

    found: dict[str, tuple[str, ...]] = {}
    for output, labels in read_labels(release, source).items():
        for step in parse_postprocess(release.manifest.postprocess.get(output, [])):
            if isinstance(step, TopK):
                shift = step.labels_offset
                found[step.from_] = labels[shift:] if shift >= 0 else ("",) * -shift + labels
    return found


class WantedOutputs:
    """Tells tensors and public outputs apart by name; a name that is both means the tensor."""

    def __init__(self, release: ReleaseManifest, variant: VariantManifest) -> None:
        states = {state.out for state in release.states}
        self.tensors = tuple(name for name in variant.io.outputs if name not in states)
        """All canonical output tensors, without states."""
        self.public = tuple(spec.name for spec in release.signature.outputs if spec.name not in self.tensors)
        self._known: dict[tuple[str, ...] | None, tuple[tuple[str, ...], tuple[str, ...]]] = {None: (self.tensors, ())}

    def split(self, outputs: tuple[str, ...] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of wanted tensors and of wanted public outputs; None: all tensors. Raises: BadCall."""
        # Clients want the same each time.
        if (known := self._known.get(outputs)) is not None:
            return known
        split = self._split(outputs or ())
        if len(self._known) < _SPLITS_MAX:
            self._known[outputs] = split
        return split

    def _split(self, outputs: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        for name in outputs:
            if name not in self.tensors and name not in self.public:
                known = ", ".join((*self.tensors, *self.public))
                raise BadCall(f"give output {shown(name)}", "the model has none of that name", f"choose one of {known}")
        return (
            tuple(name for name in outputs if name in self.tensors),
            tuple(name for name in outputs if name in self.public),
        )


def only_arrays(inputs: Mapping[str, Values]) -> dict[str, Array]:
    """The inputs, none of which may be encoded. Raises: BadCall."""
    arrays: dict[str, Array] = {}
    for name, values in inputs.items():
        if isinstance(values, list):
            raise BadCall(f"take input {shown(name)}", "a tensor is wanted, not encoded bytes", "send its numbers")
        arrays[name] = values
    return arrays


def _sizes(shape: Shape) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else VARIES for size in shape)
