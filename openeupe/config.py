"""Base settings class and YAML loading."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from openeupe.errors import InputError
from openeupe.limits import NAME_CHARACTERS, YAML_BYTES, YAML_DEPTH
from openeupe.plain_yaml import parse_yaml

_FOLDERS = {"study": "studies"}  # other kinds have a folder named KINDs


class Config(BaseModel):
    """A group of settings: unknown keys are errors, and values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Settings = TypeVar("Settings", bound=Config)
Written = str | Path | Mapping[str, Any]  # a file, a packaged name, or the settings themselves
Overrides = Sequence[str] | Mapping[str, Any]  # "key=value" as on a command line, or key -> value


def load_settings(
    model: type[Settings], kind: str, source: Written, overrides: Overrides | None = None
) -> Settings:
    """Read the settings of a recipe, suite or study, and check them.

    Args:
        model: the class of the settings.
        kind: "recipe", "suite" or "study".
        source: a YAML file, the name of one that the package carries, or the settings as a mapping.
            They may start with `base: NAME_OR_FILE`, and then hold only what differs from the base.
        overrides: what to change: `key=value` with dotted keys (`stages.proxy.steps=100`) and
            values in YAML, or a mapping of such keys; `null` (None) removes a named part.

    Raises:
        InputError: one line with the file, the field and the fix.
    """
    name = _name_of(source)
    return check_settings(model, kind, name, read_settings(kind, source, overrides))


def read_settings(kind: str, source: Written, overrides: Overrides | None = None) -> dict[str, Any]:
    """Return the merged mapping of settings, before validation."""
    changes: Any = {}
    for key, value in parsed_overrides(overrides):
        patch: Any = value
        parts = key.split(".")
        if len(parts) > YAML_DEPTH:
            raise InputError(f"override {key}: settings are at most {YAML_DEPTH} deep: shorten it")
        for part in reversed(parts):
            patch = {part: patch}
        changes = _merge(changes, _in_full(kind, patch))
    if isinstance(source, Mapping):
        found = with_base(kind, _name_of(source), dict(source), None)
    else:
        found = _read(kind, source)
    merged: dict[str, Any] = _merge(found, changes)
    return merged


def parsed_overrides(overrides: Overrides | None) -> list[tuple[str, Any]]:
    """Parse overrides into pairs of a dotted key and a value.

    Raises:
        InputError: naming the override that is not `key=value`, or no YAML.
    """
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    found = []
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r}: write it as key=value")
        try:
            found.append((key, parse_yaml(value)))
        except yaml.YAMLError as error:
            line = " ".join(str(error).split())
            raise InputError(f"override {override!r} is not a YAML value: {line}") from None
    return found


def with_base(kind: str, name: str, raw: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """Merge settings that are part of another file over their `base`.

    folder: folder in which a base is searched before the package; None: only the package.
    """
    return _over_base(kind, name, dict(raw), folder, ())


def check_settings(model: type[Settings], kind: str, name: str, raw: dict[str, Any]) -> Settings:
    """Validate a merged mapping of settings."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        where = f"{kind} {name}".strip()
        raise InputError(f"{where}: {_first_line(error, model, raw)}") from None


def packaged_names(kind: str) -> list[str]:
    """Return the names of the packaged files of this kind."""
    folder = resources.files("openeupe") / _FOLDERS.get(kind, f"{kind}s")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def own_file(kind: str, source: str | Path) -> Path | None:
    """Return the user's own file. None if the name is a packaged one or no file.

    A bare packaged name (`mini`) never means a file of the working directory.
    """
    path = Path(source)
    bare = path.name == str(source) and not path.suffix
    if bare and str(source) in packaged_names(kind):
        return None
    return path if path.is_file() else None


def local_or_packaged(kind: str, named: str, folder: Path | None, what: str) -> str:
    """Find a file that another file names: next to it, or in the package.

    Args:
        named: as written in that file.
        folder: folder of that file; None if it is the package's.
        what: beginning of the message if there is neither.

    Raises:
        InputError: if there is neither. The working directory is not searched.
    """
    if folder is not None and (folder / named).is_file():
        return str(folder / named)
    known = packaged_names(kind)
    if named.removesuffix(".yaml") in known:
        return named.removesuffix(".yaml")
    where = f"no file in {folder.resolve()}, and " if folder is not None else ""
    raise InputError(f"{what} {named} is {where}no {kind} of the package ({', '.join(known)})")


def _name_of(source: Written) -> str:
    """Return the name of the settings in messages."""
    return str(source.get("name", "given")) if isinstance(source, Mapping) else str(source)


def _read(kind: str, source: str | Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    name = str(source)
    if name in seen:
        raise InputError(f"{kind} {name}: its base leads back to itself ({' -> '.join(seen)})")
    folder = _FOLDERS.get(kind, f"{kind}s")
    packaged = resources.files("openeupe") / folder / f"{name.removesuffix('.yaml')}.yaml"
    own = own_file(kind, source)
    if own is not None:
        file: Any = own
    elif "/" not in name and packaged.is_file():
        file = packaged
    else:
        known = packaged_names(kind)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        raise InputError(f"{kind} {name}: no such file, nor a {kind} of the package; {hint}")
    try:
        with file.open("rb") as stream:
            raw = parse_yaml(stream.read(YAML_BYTES + 1))  # one more is refused as too large
    except OSError as error:
        raise InputError(f"{kind} {name} cannot be read ({error.strerror}): check it") from None
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise InputError(f"{kind} {name} is not valid YAML: {line}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{kind} {name}: a {kind} is a mapping of settings")
    return _over_base(kind, name, raw, own.parent if own is not None else None, seen)


def _over_base(
    kind: str, name: str, raw: dict[str, Any], folder: Path | None, seen: tuple[str, ...]
) -> dict[str, Any]:
    raw = _in_full(kind, raw)
    base = raw.pop("base", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise InputError(f"{kind} {name}: base must be the name or file of a {kind}")
    inherited = local_or_packaged(kind, base, folder, f"{kind} {name}: its base")
    return _merge(_read(kind, inherited, (*seen, name)), raw)


def _in_full(kind: str, raw: dict[str, Any]) -> dict[str, Any]:
    """Expand a recipe's short form of `data` (paths) into `data.sources`."""
    data = raw.get("data")
    if kind != "recipe" or not isinstance(data, str | list):
        return dict(raw)
    given = [data] if isinstance(data, str) else data
    sources = [{"path": one} if isinstance(one, str) else one for one in given]
    return {**raw, "data": {"sources": sources}}


def _merge(base: Any, patch: Any) -> Any:
    """Deep merge of mappings. `null` removes a key; numbers as keys reach into a list.

    Data of another `layout` inherit nothing, since each layout has its own settings.
    """
    if isinstance(base, list) and isinstance(patch, dict):
        changes = {str(key): value for key, value in patch.items()}
        if set(changes) <= {str(i) for i in range(len(base))}:
            return [_merge(item, changes.get(str(i), item)) for i, item in enumerate(base)]
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    if base.get("layout") not in (None, patch.get("layout", base.get("layout"))):
        base = {}
    merged = dict(base)
    for key, value in patch.items():
        if value is None and isinstance(base.get(key), dict):
            del merged[key]
        else:
            merged[key] = _merge(base.get(key), value)
    return merged


def _first_line(error: ValidationError, model: type[Config], raw: object) -> str:
    """Format the first validation error as `field: what is wrong`, with a suggestion."""
    first = error.errors()[0]
    keys = _keys(first["loc"], raw, absent=first["type"] == "missing")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
        close = difflib.get_close_matches(keys[-1], _all_keys(model), n=1)
        if close and close[0] != keys[-1]:
            message += f", did you mean {close[0]}?"
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"].startswith("union_tag"):  # of settings that a kind or layout distinguishes
        about = first["ctx"]
        keys.append(about["discriminator"].strip("'"))
        message = "is missing"
        if first["type"] == "union_tag_invalid":
            message = f"{_short(repr(about['tag']))} is none of {about['expected_tags']}"
    elif first["type"] == "model_attributes_type":
        message = f"needs settings, as key: value (got {_short(repr(first['input']))})"
    elif first["type"] != "value_error":
        message += f" (got {_short(repr(first['input']))})"
    more = len(error.errors()) - 1
    tail = f" (and {more} more)" if more else ""
    field = ".".join(_short(key) for key in keys)
    return f"{field}: {message}{tail}" if field else f"{message}{tail}"


def _keys(place: tuple[int | str, ...], raw: object, *, absent: bool) -> list[str]:
    """Keys of an error's location in the file, without the names of union members.

    absent: the last key is not in the file.
    """
    found: list[str] = []
    for number, key in enumerate(place):
        inside = key in raw if isinstance(raw, dict) else isinstance(key, int)
        if inside or (absent and number == len(place) - 1):
            found.append(str(key))
            part: Any = raw  # else `isinstance` would narrow the type of its keys
            there = inside and isinstance(raw, dict | list)
            if isinstance(raw, list):  # an element that is missing has a number, too
                there = isinstance(key, int) and key < len(raw)
            raw = part[key] if there else None
    return found


def _short(text: str) -> str:
    return text if len(text) <= NAME_CHARACTERS else f"{text[:NAME_CHARACTERS]}..."


def _all_keys(model: type[Config]) -> list[str]:
    keys: set[str] = set()

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            keys.update(schema.get("properties", {}))
            for value in schema.values():
                walk(value)

    walk(model.model_json_schema())
    return sorted(keys)
