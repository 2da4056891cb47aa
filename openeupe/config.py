"""The manners that every typed setting shares, and how settings are read from YAML."""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from openeupe.errors import InputError

_FOLDERS = {"study": "studies"}  # those of other kinds are named KINDs


class Config(BaseModel):
    """A group of settings: unknown keys are errors, and values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Settings = TypeVar("Settings", bound=Config)


class _UniqueKeys:
    """Refuses a mapping that gives a key twice, of which PyYAML keeps the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)  # type: ignore[misc]
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if first := lines.get((key.tag, key.value)):
                raise yaml.YAMLError(
                    f"key {key.value!r} is given twice (lines {first} and {line}): keep one"
                )
            lines[key.tag, key.value] = line
        return node


class _Loader(_UniqueKeys, yaml.SafeLoader):
    """Safe loader for which 010 is not 8 and 1:30 is not 90, as they are for PyYAML.

    Both stay text, and a setting that is a number reads text as decimal digits: 010 is 10.
    """


_INT = "tag:yaml.org,2002:int"
_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] != _INT]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _INT, re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$"), list("-+0123456789")
)


class _WordLoader(_UniqueKeys, yaml.BaseLoader):
    """Loader that leaves every value as it is written."""


def parse_yaml(text: str, *, words: bool = False) -> Any:
    """Parse YAML text into plain data.

    Args:
        words: leave every value as the text that stands there, for lists of names.

    Raises:
        yaml.YAMLError: if the text is no YAML, or a mapping gives a key twice.
    """
    return yaml.load(text, _WordLoader if words else _Loader)


def load_settings(
    model: type[Settings], kind: str, source: str | Path, overrides: list[str] | None = None
) -> Settings:
    """Read a `kind` ("recipe", "suite"): a YAML file, or the name of one that the package carries.

    A file may start with `base: NAME_OR_FILE`; it then holds only what differs from the base.
    `overrides` are `key=value` with dotted keys (`stages.proxy.steps=100`); values are YAML, and
    `null` removes a named part.

    Raises:
        InputError: one line naming the file and field, and the mend.
    """
    return check_settings(model, kind, str(source), read_settings(kind, source, overrides))


def read_settings(
    kind: str, source: str | Path, overrides: list[str] | None = None
) -> dict[str, Any]:
    """`load_settings` up to the merged mapping, which is not checked yet."""
    raw = _read(kind, source)
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r}: write it as key=value")
        try:
            parsed = parse_yaml(value)
        except yaml.YAMLError as error:
            line = " ".join(str(error).split())
            raise InputError(f"override {override!r} is not a YAML value: {line}") from None
        patch: Any = parsed
        for part in reversed(key.split(".")):
            patch = {part: patch}
        raw = _merge(raw, patch)
    return raw


def with_base(kind: str, name: str, raw: dict[str, Any], beside: Path) -> dict[str, Any]:
    """A mapping of settings that stands inside another file, laid over its `base` if it has one.

    beside: the folder in which a base is looked for before the package's own.
    """
    return _over_base(kind, name, dict(raw), beside, ())


def check_settings(model: type[Settings], kind: str, name: str, raw: dict[str, Any]) -> Settings:
    """The settings of a merged mapping, or one line that says what is wrong with it."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{kind} {name}: {_first_line(error, model)}") from None


def packaged_names(kind: str) -> list[str]:
    """Names of the files of this kind that the package carries."""
    folder = resources.files("openeupe") / _FOLDERS.get(kind, f"{kind}s")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def _read(kind: str, source: str | Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    name = str(source)
    if name in seen:
        raise InputError(f"{kind} {name}: its base leads back to itself ({' -> '.join(seen)})")
    folder = _FOLDERS.get(kind, f"{kind}s")
    packaged = resources.files("openeupe") / folder / f"{name.removesuffix('.yaml')}.yaml"
    path = Path(name)
    if path.is_file():
        file: Any = path
    elif "/" not in name and packaged.is_file():
        file = packaged
    else:
        known = packaged_names(kind)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        raise InputError(f"{kind} {name}: no such file, nor a {kind} of the package; {hint}")
    try:
        raw = parse_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{kind} {name} is not valid YAML: {line}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{kind} {name}: a {kind} is a mapping of settings")
    return _over_base(kind, name, raw, path.parent if path.is_file() else None, seen)


def _over_base(
    kind: str, name: str, raw: dict[str, Any], beside: Path | None, seen: tuple[str, ...]
) -> dict[str, Any]:
    base = raw.pop("base", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise InputError(f"{kind} {name}: base must be the name or file of a {kind}")
    inherited = beside / base if beside and (beside / base).is_file() else base
    return _merge(_read(kind, inherited, (*seen, name)), raw)


def _merge(base: Any, patch: Any) -> Any:
    """Deep merge of mappings; `null` removes a key; numbers as keys reach into a list."""
    if isinstance(base, list) and isinstance(patch, dict):
        changes = {str(key): value for key, value in patch.items()}
        if set(changes) <= {str(i) for i in range(len(base))}:
            return [_merge(item, changes.get(str(i), item)) for i, item in enumerate(base)]
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    merged = dict(base)
    for key, value in patch.items():
        if value is None and isinstance(base.get(key), dict):
            del merged[key]
        else:
            merged[key] = _merge(base.get(key), value)
    return merged


def _first_line(error: ValidationError, model: type[Config]) -> str:
    """The first complaint of pydantic as `field: what is wrong`, with a guess at a typo."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
        close = difflib.get_close_matches(str(first["loc"][-1]), _all_keys(model), n=1)
        if close:
            message += f", did you mean {close[0]}?"
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] != "value_error":
        message += f" (got {first['input']!r})"
    more = len(error.errors()) - 1
    tail = f" (and {more} more)" if more else ""
    return f"{field}: {message}{tail}" if field else f"{message}{tail}"


def _all_keys(model: type[Config]) -> list[str]:
    keys: set[str] = set()

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            keys.update(schema.get("properties", {}))
            for value in schema.values():
                walk(value)

    walk(model.model_json_schema())
    return sorted(keys)
