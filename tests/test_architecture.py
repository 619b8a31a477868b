"""The house keeps its floors: who may import whom, where heavy packages live, and how long things may grow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Lowest floor first. A module imports only from lower floors of its own package; pose3d may import calibration.
FLOORS = {
    "calibration": [
        ["errors", "findings", "dictionaries"],
        ["transforms", "solver", "corners", "board"],
        ["camera", "board_corners", "footage", "averaging"],
        ["rig", "consensus", "lenses", "board_check", "omissions"],
        ["geometry", "motion", "normal_equations", "planar"],
        ["detection", "synthetic", "files", "evidence", "drift_report", "exchanged", "timing", "scores", "view_noise"],
        ["extrinsics", "bundle", "tracks", "hypotheses"],
        ["determination", "mishaps", "footage_checks", "explanations", "precision", "world", "drift"],
        ["intrinsics", "clocks", "bending"],
        ["held"],
        ["report", "lens_checks", "inspection"],
        ["rig_checks", "place_checks"],
        ["audit"],
        ["calibrate", "moved"],
    ],
    "pose3d": [
        ["skeleton", "records", "flags"],
        ["poses", "bodies"],
        ["labels", "rig_points", "comparison"],
        [
            "timeline",
            "video",
            "kalman",
            "files",
            "synthetic",
            "shading",
            "session",
            "label_check",
            "detection_scores",
            "identity_scores",
        ],
        [
            "nn",
            "filming",
            "assembly",
            "association",
            "triangulation",
            "tracking",
            "individuals",
            "identity_doubt",
            "trajectory",
            "smoothing",
            "evaluation",
            "covariance_scores",
        ],
        ["motion", "identity_step", "rehearsal", "scenes", "view_check", "keypoint_scores"],
        ["refinement"],
        ["identity", "active"],
        ["render"],
        ["stages"],
        ["config", "scaffold", "pipeline"],
        ["demo", "console"],
        ["rig_commands", "label_commands", "score_commands"],
        ["cli"],
    ],
}
SIBLINGS_ALLOWED = {"nn", "render", "files", "stages"}
HOMES = {"torch": "nn", "pyvista": "render", "vtk": "render", "vtkmodules": "render"}

MODULES = sorted(p for package in FLOORS for p in (ROOT / package).rglob("*.py"))


def place(path: Path) -> tuple[str, str]:
    """(package, module on a floor) of a file: calibration/files/x.py is ("calibration", "files")."""
    package, *rest = path.relative_to(ROOT).with_suffix("").parts
    return package, rest[0]


def imported_modules(path: Path) -> set[str]:
    """Dotted names of everything a file imports, also inside its functions; relative imports are not allowed."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floor(package: str, module: str) -> int:
    for height, modules in enumerate(FLOORS[package]):
        if module in modules:
            return height
    raise AssertionError(f"{package}.{module} stands on no floor; give it one in FLOORS and in docs/architecture.md")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_from_lower_floors(path: Path) -> None:
    package, module = place(path)
    if module == "__init__":
        return
    for name in imported_modules(path):
        top, *rest = name.split(".")
        if (
            top not in FLOORS
            or not rest
            or not ((ROOT / top / rest[0]).is_dir() or (ROOT / top / f"{rest[0]}.py").is_file())
        ):
            continue
        assert (package, top) != ("calibration", "pose3d"), f"{path}: calibration must not know pose3d"
        if top != package:
            continue
        if rest[0] == module:
            assert module in SIBLINGS_ALLOWED, f"{path} imports itself"
        else:
            assert floor(package, rest[0]) < floor(package, module), f"{path}: {name} is not on a lower floor"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_stay_home(path: Path) -> None:
    package, module = place(path)
    for name in imported_modules(path):
        home = HOMES.get(name.split(".")[0])
        assert home is None or (package, module) == ("pose3d", home), f"{path} imports {name}, which lives in {home}/"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_grows_too_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, f"{path}: {text.count(chr(10))} lines; split it by meaning"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            lines = (node.end_lineno or 0) - node.lineno + 1
            lines -= ((first.end_lineno or 0) - first.lineno + 1) if docstring else 0
            assert lines <= 60, f"{path}:{node.lineno} {node.name}: {lines} lines; split it by meaning"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_says_what_it_answers_and_what_it_offers(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} has no docstring"
    assert len(tree.body) == 1 or any(
        isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(node) for node in tree.body
    ), f"{path} has no __all__"


def test_every_public_name_is_there() -> None:
    import calibration
    import pose3d

    for package in (calibration, pose3d):
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert dir(package) == sorted(package.__all__)
        with pytest.raises(AttributeError):
            _ = package.no_such_name
