"""What did the user ask for? `pose3d.toml`, checked key by key, as a Session with every stage's options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from calibration.errors import InputError, nearest_name
from calibration.files.toml_tables import read_toml
from pose3d.session import LabelTable, Patterns, Session, SkeletonTable

__all__ = ["FILE_NAME", "OPTION_TABLES", "load_session", "options_from"]

FILE_NAME = "pose3d.toml"
"""What the file of a session is called when only its folder is given."""

OPTION_TABLES: dict[str, tuple[str, str]] = {
    "sync": ("pose3d.timeline", "SyncOptions"),
    "sync_calibration": ("pose3d.timeline", "SyncOptions"),
    "detect": ("calibration.detection", "DetectionOptions"),
    "calibrate": ("calibration.calibrate", "CalibrationOptions"),
    "world": ("calibration.world", "WorldOptions"),
    "train": ("pose3d.nn.options", "TrainOptions"),
    "predict": ("pose3d.nn.options", "PredictOptions"),
    "assemble": ("pose3d.assembly", "AssemblyOptions"),
    "identify": ("pose3d.identity", "IdentityOptions"),
    "triangulate": ("pose3d.triangulation", "TriangulationOptions"),
    "refine": ("pose3d.refinement", "RefineOptions"),
    "scene": ("pose3d.render.scene", "SceneOptions"),
    "overlay": ("pose3d.render.overlay", "OverlayOptions"),
}
"""Table of the TOML -> the options dataclass of the stage that it tunes; its fields are the table's keys."""

_NOW = {"train.per_camera": 'networks = "per_camera"'}
"""Keys of earlier versions, and what says the same."""
_STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())


class _Session(BaseModel):
    model_config = _STRICT
    unit: str | None = None
    fps: float | None = Field(default=None, gt=0)
    recordings: tuple[str, ...] = ()
    window: int = Field(default=Session.window, ge=10)


class _Cameras(BaseModel):
    model_config = _STRICT
    names: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    calibration: str = Patterns.calibration
    intrinsics: str = Patterns.intrinsics
    poses2d: str = Patterns.poses2d
    video: str = Patterns.video


class _Back(BaseModel):
    model_config = _STRICT
    first_marker: int
    thickness: float
    flipped: Literal["left_right", "top_bottom"]
    dictionary: str | None = None


class _Board(BaseModel):
    model_config = _STRICT
    file: str | None = None
    columns: int | None = None
    rows: int | None = None
    square_length: float | None = None
    marker_length: float | None = None
    dictionary: str | None = None
    first_marker: int | None = None
    unit: str | None = None
    back: _Back | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_path_is_a_file(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _file_or_squares(self) -> _Board:
        told = self.model_fields_set - {"file"}
        if self.file is not None and told:
            raise ValueError(f"expected `file` or the board itself, got both (file and {', '.join(sorted(told))})")
        if self.file is None and {"columns", "rows", "square_length"} - told:
            raise ValueError("expected `file`, or at least columns, rows and square_length")
        return self


class _Calibration(BaseModel):
    model_config = _STRICT
    file: str | None = None
    format: str | None = None
    intrinsics: str | None = None

    @model_validator(mode="after")
    def _whole_or_intrinsics(self) -> _Calibration:
        if (self.file is None) == (self.intrinsics is None):
            raise ValueError(
                "expected `file` (a finished calibration) or `intrinsics` (one whose intrinsics are taken)"
            )
        return self


class _Poses2D(BaseModel):
    model_config = _STRICT
    format: str | None = None


class _Labels(BaseModel):
    model_config = _STRICT
    files: str
    camera: str = LabelTable.camera
    frames: tuple[int, int] | None = None
    missing: Literal["error", "skip"] = "error"
    video: str | None = None

    @field_validator("frames")
    @classmethod
    def _rising(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] <= value[1]:
            raise ValueError("expected the first and the last frame, rising, from 0")
        return value


class _Skeleton(BaseModel):
    model_config = _STRICT
    keypoints: tuple[str, ...] | None = None
    edges: tuple[tuple[str, str], ...] | None = None
    bones: tuple[tuple[str, str], ...] | None = None
    symmetry: tuple[tuple[str, str], ...] | None = None


_TABLES: dict[str, type[BaseModel]] = {
    "session": _Session,
    "cameras": _Cameras,
    "calibration": _Calibration,
    "poses2d": _Poses2D,
    "skeleton": _Skeleton,
}


def load_session(path: Path, data: Path | None = None, output: Path | None = None) -> Session:
    """The session of a TOML file, or of a folder that holds a `pose3d.toml`.

    data: what the file's patterns and paths are relative to, default the file's folder. output: the results' folder,
    default `results` in the file's folder. Raises InputError that names the file and lists *every* mistake with its
    dotted path, an unknown key with the nearest valid one.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
        if not path.is_file():
            raise InputError(f"{path}: expected a session's file, got none; write one with `pose3d new {path.parent}`")
    tables = read_toml(path)
    told = _validated(tables, path)
    data = path.parent if data is None else Path(data)
    if not data.is_dir():
        raise InputError(f"{data}: expected the folder of the session's data, got none; correct --data")
    names = [name for name in OPTION_TABLES if name in tables]
    options = {name: told[name] for name in names}
    for name in {"sync", "sync_calibration"} & set(names):
        if options[name].timestamps is not None:
            options[name] = replace(options[name], timestamps=data / options[name].timestamps)
    if "detect" in options:
        masks = {name: data / mask for name, mask in options["detect"].masks.items()}
        options["detect"] = replace(options["detect"], masks=masks)
    for name, key in (("predict", "model"), ("train", "start")):
        if name in options and getattr(options[name], key) is not None:
            options[name] = replace(options[name], **{key: data / getattr(options[name], key)})
    cameras = told["cameras"]
    return Session(
        file=path,
        data=data,
        output=path.parent / "results" if output is None else Path(output),
        unit=told["session"].unit,
        fps=told["session"].fps,
        recordings=told["session"].recordings,
        window=told["session"].window,
        cameras=cameras.names,
        rename=cameras.rename,
        patterns=Patterns(**{f.name: getattr(cameras, f.name) for f in fields(Patterns)}),
        board=_board(told["board"], path),
        calibration=told["calibration"].file,
        calibration_format=told["calibration"].format,
        intrinsics=told["calibration"].intrinsics,
        poses2d_format=told["poses2d"].format,
        skeleton=SkeletonTable(**told["skeleton"].model_dump()),
        labels=tuple(LabelTable(**labels.model_dump()) for labels in told["labels"]),
        options=options,
    )


def options_from(cls: type[Any], table: Mapping[str, Any], where: str) -> Any:
    """An options dataclass from a TOML table; keys are its fields, nested dataclasses are nested tables.

    where: the table's dotted path. Raises InputError listing every mistake.
    """
    mistakes: list[str] = []
    options = _options(cls, table, where, mistakes)
    if mistakes:
        raise InputError(_listed("options", mistakes))
    return options


def _validated(tables: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Every table as its model or options dataclass. Raises one InputError with all mistakes in the file."""
    mistakes: list[str] = []
    valid = [*_TABLES, "board", "labels", *OPTION_TABLES]
    mistakes += [f"{key}: unknown table; {nearest_name(key, valid)}" for key in tables if key not in valid]
    told: dict[str, Any] = {}
    for name, model in _TABLES.items():
        if name in tables:
            told[name] = _model(model, tables[name], name, mistakes)
        else:
            told[name] = model.model_construct()
    for name, model in (("labels", _Labels), ("board", _Board)):
        several = tables.get(name, [])
        several = several if isinstance(several, list) else [several]
        told[name] = [_model(model, table, name, mistakes) for table in several]
    if len(told["board"]) > 1 and any(board is not None and board.file is not None for board in told["board"]):
        mistakes.append("board: expected one `file`, which may describe several boards, got several [[board]]")
    for name, (module, cls) in OPTION_TABLES.items():
        if name in tables:
            told[name] = _options(getattr(import_module(module), cls), tables[name], name, mistakes)
    if mistakes:
        raise InputError(_listed(str(path), mistakes))
    return told


def _listed(where: str, mistakes: list[str]) -> str:
    if len(mistakes) == 1:
        return f"{where}: {mistakes[0]}"
    return f"{where}: {len(mistakes)} mistakes:\n" + "\n".join(f"  {mistake}" for mistake in mistakes)


def _model(model: type[BaseModel], table: Any, where: str, mistakes: list[str]) -> Any:
    """The table as a model; None with the mistakes noted where it does not fit."""
    try:
        return model.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        mistakes += [_mistake(model, dict(detail), where) for detail in error.errors()]
        return None


def _mistake(model: type[BaseModel], detail: Mapping[str, Any], where: str) -> str:
    """One of pydantic's errors in the house's words: the dotted path, what is wrong, what to do."""
    path = ".".join((where, *(str(part) for part in detail["loc"])))
    if path in _NOW:
        return f"{path}: unknown key; write {_NOW[path]}"
    if detail["type"] == "extra_forbidden":
        for part in detail["loc"][:-1]:
            hint = model.model_fields[part].annotation if part in model.model_fields else None
            model = next(
                (t for t in (hint, *get_args(hint)) if isinstance(t, type) and issubclass(t, BaseModel)), model
            )
        return f"{path}: unknown key; {nearest_name(str(detail['loc'][-1]), model.model_fields)}"
    if detail["type"] == "unexpected_keyword_argument":
        return f"{path}: unknown key; correct it or take it out"
    if detail["type"] == "missing":
        return f"{path}: missing; add it"
    reason = str(detail["msg"]).removeprefix("Value error, ")
    if reason.startswith("expected"):
        return f"{path}: {reason}"
    return f"{path}: {reason[0].lower()}{reason[1:]}, got {detail['input']!r}"


def _options(cls: type[Any], table: Any, where: str, mistakes: list[str]) -> Any:
    """The dataclass filled from a table; None with the mistakes noted where it does not fit."""
    hints = get_type_hints(cls)
    if not isinstance(table, Mapping):
        mistakes.append(f"{where}: expected a table [{where}], got {table!r}")
        return None
    nested = {name: hint for name, hint in hints.items() if is_dataclass(hint) and name in table}
    flat = {f.name: (hints[f.name], _default(f)) for f in fields(cls) if f.name not in nested}
    model = create_model(cls.__name__, __config__=_STRICT, **flat)  # type: ignore[call-overload]
    before = len(mistakes)
    told = _model(model, {key: value for key, value in table.items() if key not in nested}, where, mistakes)
    inner = {name: _options(hint, table[name], f"{where}.{name}", mistakes) for name, hint in nested.items()}  # type: ignore[arg-type]
    if len(mistakes) > before:
        return None
    try:
        return cls(**{name: getattr(told, name) for name in told.model_fields_set}, **inner)
    except InputError as error:
        mistakes.append(f"{where}.{error}")
        return None


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return ... if field.default_factory is MISSING else Field(default_factory=field.default_factory)


def _board(boards: list[_Board], path: Path) -> Any:
    """A path, a Board, several, or None. Raises InputError when a board's own numbers do not fit, or boards cannot be
    told apart."""
    if not boards or boards[0].file is not None:
        return boards[0].file if boards else None
    from calibration.board import Back, Board, refuse_alike

    made = []
    try:
        for told in boards:
            back = None if told.back is None else Back(**told.back.model_dump())
            made.append(Board(**told.model_dump(exclude={"file", "back"}, exclude_none=True), back=back))
        refuse_alike(made)
    except InputError as error:
        raise InputError(f"{path}: board: {error}") from None
    return made[0] if len(made) == 1 else tuple(made)
