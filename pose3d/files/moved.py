"""Where is a file now that a project names by the path that it once had?"""

from __future__ import annotations

from pathlib import Path

__all__ = ["find_moved"]

_LEVELS = 2
"""Folders above the project's file that are searched too: a DeepLabCut table stands two below its project."""


def find_moved(project: Path, stored: str) -> Path:
    """The file at the stored path, else at the longest tail of it beside the project's file, else in a folder above.

    Above, a tail of at least one folder and the name is needed. Where nothing is found, the path beside the project's
    file where it is expected.
    """
    whole = Path(stored)
    if whole.is_absolute() and whole.exists():
        return whole
    parts = [part for part in stored.replace("\\", "/").split("/") if part not in ("", ".")]
    tails = [Path(*parts[first:]) for first in range(len(parts))]
    folder = project.absolute().parent
    for base in (folder, *folder.parents[:_LEVELS]):
        for tail in tails if base == folder else tails[:-1]:
            if (base / tail).exists():
                return base / tail
    return next((folder / tail for tail in tails if (folder / tail).parent.is_dir()), folder)
