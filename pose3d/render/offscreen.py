"""Can this machine draw in 3D? Asked in another process, since the graphics library crashes where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

from calibration.errors import InputError

__all__ = ["has_screen", "prepare"]

_WINDOW = "VTK_DEFAULT_OPENGL_WINDOW"
_EGL = "vtkEGLRenderWindow"

_PROBE = """
import vtkmodules.vtkRenderingOpenGL2
from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow
window = vtkRenderWindow()
window.SetOffScreenRendering(1)
window.SetSize(8, 8)
window.AddRenderer(vtkRenderer())
window.Render()
assert window.SupportsOpenGL()
"""

REMEDY = (
    "scene: cannot draw in 3D, OpenGL is missing here; install it (Debian, Ubuntu: apt-get install libgl1 libegl1; "
    "Fedora: dnf install mesa-libGL mesa-libEGL), or leave the scene out"
)


def has_screen() -> bool:
    """Whether a window could be opened."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@cache
def prepare() -> None:
    """Make drawing in 3D work in this process, with or without a screen; call it before the graphics are imported.

    Raises InputError with the remedy where there is no OpenGL. The question is asked once per process.
    """
    as_it_is = dict(os.environ)
    without_screen = as_it_is | {_WINDOW: _EGL}
    for environment in [as_it_is, without_screen] if has_screen() or _WINDOW in os.environ else [without_screen]:
        probe = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, check=False)
        if probe.returncode == 0:
            os.environ.update(environment)
            return
    raise InputError(REMEDY)
