"""How answers look in JSON and in one line of text."""

from __future__ import annotations

from typing import Final

import numpy as np

from edge_runtime.contract.errors import printable
from edge_runtime.inference.postprocessing.question_results import Anomaly, Boxes, Mask
from edge_runtime.inference.postprocessing.results import Classes, Result, Scored, TensorAnswer, Values, label_of
from edge_runtime.inference.postprocessing.stream_results import Segments, Track

_SHOWN: Final = 4
"""Numbers of a tensor that a line of text shows."""
_SHOWN_FROM: Final = 0.0005
"""What is nearer to nothing rounds to 0.000."""
_HALF: Final = 0.5
"""Of a score between 0 and 1: more likely than not."""

Json = str | int | float | bool | list["Json"] | dict[str, "Json"] | None


def as_json(result: Result) -> Json:
    """A result as JSON can carry it; NaN and infinities become null."""
    match result:
        case Classes():
            rows = zip(result.indices, result.labels, result.scores, strict=True)
            return [{"index": index, "label": label, "score": _finite(score)} for index, label, score in rows]
        case Boxes():
            found = zip(result.indices, result.labels, result.scores, result.boxes.tolist(), strict=True)
            return [
                {"index": index, "label": label, "score": _finite(score), "box": [_finite(round(x, 2)) for x in box]}
                for index, label, score, box in found
            ]
        case Mask():
            return _mask_json(result)
        case Anomaly():
            return {"score": _finite(result.score), "anomalous": result.is_anomalous}
        case Scored():
            return _finite(result.score)
        case Track():
            scores: list[Json] = [_finite(float(score)) for score in result.scores]
            return {"start_s": result.start_s, "step_s": result.step_s, "scores": scores}
        case Segments():
            pieces: list[Json] = [
                {"start_s": round(one.start_s, 3), "end_s": round(one.end_s, 3)} for one in result.segments
            ]
            return {"segments": pieces, "open_since_s": result.open_since_s}
        case Values():
            return {"values": [_finite(value) for value in result.values], "unit": result.unit}
        case TensorAnswer():
            return [_finite(float(value)) for value in result.array.ravel()]


def as_text(result: Result) -> str:
    """A result in one short line for a person; labels and units come from files and are made printable."""
    return printable(_line(result)).replace("\n", "\\n")


def _line(result: Result) -> str:
    match result:
        case Classes():
            pairs = list(zip(result.labels, result.scores, strict=True))
            # A score that would be shown as nothing says nothing, unless it is the best.
            told = [*pairs[:1], *(pair for pair in pairs[1:] if not abs(pair[1]) < _SHOWN_FROM)]
            return ", ".join(f"{_quoted(label)} ({score:.3f})" for label, score in told) or "no class"
        case Boxes():
            found = zip(result.labels, result.scores, result.boxes.tolist(), strict=True)
            told_of = (f"{_quoted(label)} ({score:.3f}) at {_corners(box)}" for label, score, box in found)
            return ", ".join(told_of) or "no object"
        case Mask():
            shares = result.shares().items()
            told_of = (f"{_quoted(label_of(index, result.labels))} {share:.1%}" for index, share in shares)
            return ", ".join(told_of) or "no class"
        case Anomaly():
            verdict = {None: "", True: ": anomalous", False: ": normal"}[result.is_anomalous]
            return f"{result.score:.4g}{verdict}"
        case Scored():
            return f"{result.score:.3f}"
        case Track():
            return _track_line(result)
        case Segments():
            return _segments_line(result)
        case Values():
            return f"{', '.join(f'{value:.4g}' for value in result.values)} {result.unit}".rstrip()
        case TensorAnswer():
            first = ", ".join(f"{value:.4g}" for value in result.array.ravel()[:_SHOWN])
            more = ", …" if result.array.size > _SHOWN else ""
            return f"{result.array.dtype} {list(result.array.shape)}: {first}{more}"


def _quoted(label: str) -> str:
    """A label that can be told from the commas between labels."""
    return f'"{label}"' if "," in label else label


def _track_line(track: Track) -> str:
    count = track.scores.size
    if not count:
        return "no frame yet"
    share = float(np.mean(track.scores > _HALF))
    frames = "1 frame" if count == 1 else f"{count} frames"
    return f"{frames} of {track.step_s * 1000:.3g} ms: {share:.1%} above {_HALF}, highest {track.scores.max():.3f}"


def _segments_line(found: Segments) -> str:
    pieces = [f"{one.start_s:.2f}–{one.end_s:.2f} s" for one in found.segments]
    if found.open_since_s is not None:
        pieces.append(f"since {found.open_since_s:.2f} s")
    more = f", … ({len(pieces)} in all)" if len(pieces) > _SHOWN else ""
    return (", ".join(pieces[:_SHOWN]) or "no segment") + more


def _corners(box: list[float]) -> str:
    return "[" + ", ".join(f"{edge:.0f}" for edge in box) + "]"


def _mask_json(mask: Mask) -> Json:
    """Shares by class, and the pixels row after row as runs of [class, length]."""
    flat = mask.classes.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1]) if flat.size else np.zeros(0, np.int64)
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    runs: list[Json] = [[int(flat[start]), int(length)] for start, length in zip(starts, lengths, strict=True)]
    shares = mask.shares().items()
    classes: list[Json] = [
        {"index": index, "label": label_of(index, mask.labels), "share": share} for index, share in shares
    ]
    return {"height": mask.classes.shape[0], "width": mask.classes.shape[1], "classes": classes, "runs": runs}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
