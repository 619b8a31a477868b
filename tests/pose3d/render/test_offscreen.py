from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from calibration.errors import InputError
from pose3d.render import offscreen


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", offscreen._WINDOW):
        monkeypatch.delenv(name, raising=False)
    offscreen.prepare.cache_clear()
    yield monkeypatch
    offscreen.prepare.cache_clear()


def answers(monkeypatch: pytest.MonkeyPatch, *codes: int) -> list[str | None]:
    """Let the probes end with these codes (-11: killed by the graphics); returns the windows they are asked for."""
    asked: list[str | None] = []

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> SimpleNamespace:
        asked.append(env.get(offscreen._WINDOW))
        return SimpleNamespace(returncode=codes[len(asked) - 1])

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_without_a_screen_egl_is_used_and_asked_once(linux: pytest.MonkeyPatch) -> None:
    asked = answers(linux, 0)
    offscreen.prepare()
    offscreen.prepare()
    assert asked == ["vtkEGLRenderWindow"]
    assert offscreen.os.environ[offscreen._WINDOW] == "vtkEGLRenderWindow"


def test_a_screen_is_tried_first(linux: pytest.MonkeyPatch) -> None:
    linux.setenv("DISPLAY", ":0")
    asked = answers(linux, 0)
    offscreen.prepare()
    assert asked == [None]
    assert offscreen._WINDOW not in offscreen.os.environ


def test_a_screen_that_does_not_answer_is_done_without(linux: pytest.MonkeyPatch) -> None:
    linux.setenv("DISPLAY", ":99")
    asked = answers(linux, -11, 0)
    offscreen.prepare()
    assert asked == [None, "vtkEGLRenderWindow"]


def test_the_users_own_choice_is_respected(linux: pytest.MonkeyPatch) -> None:
    linux.setenv(offscreen._WINDOW, "vtkOSOpenGLRenderWindow")
    asked = answers(linux, 0)
    offscreen.prepare()
    assert asked == ["vtkOSOpenGLRenderWindow"]


def test_a_crash_of_the_probe_is_an_error_with_the_remedy(linux: pytest.MonkeyPatch) -> None:
    answers(linux, -11)
    with pytest.raises(InputError, match="apt-get install libgl1 libegl1"):
        offscreen.prepare()


def test_has_screen(linux: pytest.MonkeyPatch) -> None:
    assert not offscreen.has_screen()
    linux.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert offscreen.has_screen()
    linux.delenv("WAYLAND_DISPLAY")
    linux.setattr(sys, "platform", "darwin")
    assert offscreen.has_screen()


def test_the_probe_fails_where_the_graphics_library_does(linux: pytest.MonkeyPatch) -> None:
    """The real probe, in its own process, with a window class that does not exist."""
    linux.setattr(offscreen, "_PROBE", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(InputError, match="OpenGL is missing"):
        offscreen.prepare()
