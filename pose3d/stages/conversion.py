"""What is a file in another format? Poses and calibrations of other tools in, of others out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibration.errors import InputError
from calibration.files import READABLE_RIGS, WRITABLE_RIGS, load_rig, save_rig
from pose3d.files import READABLE, WRITABLE, load_poses, save_poses

__all__ = ["convert_file"]

_RIG_SUFFIXES = (".toml", ".yml", ".yaml", ".xml", ".mat")


def convert_file(
    source: Path,
    output: Path,
    source_format: str | None = None,
    output_format: str | None = None,
    *,
    unit: str | None = None,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Write poses or a calibration in another format; which of them is told by the formats, else by the suffix.

    unit, fps and size (width, height px): as `load_poses` and `load_rig` take them, where a file does not say. Returns
    the files written, the unit, and what there is of what. Raises InputError as they do, and for an option that does
    not go with what the source is.
    """
    if not _is_rig(source, source_format, output_format):
        if size is not None:
            raise InputError(f"{source}: is taken for poses, which have no size; leave out --size, or give --from")
        poses = load_poses(source, source_format, unit=unit, fps=fps)
        written = save_poses(output, poses, output_format)
        counts = dict(zip(("frames", "individuals", "keypoints", "dimensions"), poses.shape, strict=True))
        return {"output": written, "unit": poses.unit} | counts
    if fps is not None:
        raise InputError(f"{source}: is taken for a calibration, which has no fps; leave out --fps, or give --from")
    rig = load_rig(source, source_format, unit, size)
    save_rig(output, rig, output_format)
    return {"output": (output,), "unit": load_rig(output, output_format).unit, "cameras": len(rig)}


def _is_rig(source: Path, source_format: str | None, output_format: str | None) -> bool:
    for told, rigs, poses in (
        (source_format, READABLE_RIGS, READABLE), (output_format, WRITABLE_RIGS, WRITABLE),
    ):  # fmt: skip
        if told in rigs or told in poses:
            return told in rigs
    return any(source.glob("*_params.mat")) if source.is_dir() else source.suffix.lower() in _RIG_SUFFIXES
