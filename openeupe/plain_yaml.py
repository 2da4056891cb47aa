"""YAML as plain data: unique keys, decimal numbers, and size limits."""

from __future__ import annotations

import re
from typing import Any

import yaml

from openeupe.limits import YAML_BYTES, YAML_DEPTH, YAML_VALUES


class _UniqueKeys:
    """Loader that refuses duplicate keys."""

    def compose_mapping_node(self, anchor: object) -> yaml.MappingNode:
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
    """Safe loader that leaves 010 and 1:30 as text.

    A setting that is a number reads text as decimal digits: 010 is 10.
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


def parse_yaml(content: str | bytes, *, words: bool = False) -> Any:
    """Parse YAML text into plain data.

    Args:
        content: the text, or its UTF-8 bytes.
        words: return every value as text, for lists of names.

    Raises:
        yaml.YAMLError: for invalid text, duplicate keys and exceeded limits.
    """
    loader = _WordLoader if words else _Loader
    if len(content) > YAML_BYTES:
        raise yaml.YAMLError(f"it has more than {YAML_BYTES} bytes")
    try:
        reader = loader(content.decode("utf-8") if isinstance(content, bytes) else content)
    except UnicodeDecodeError as error:
        raise yaml.YAMLError(str(error)) from None
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return reader.construct_document(node)
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise yaml.YAMLError(_too_deep()) from None
    except Exception as error:  # constructors meet what the tags did not promise: !!int x
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from None
    finally:
        reader.dispose()


def _too_deep() -> str:
    return f"it is nested more than {YAML_DEPTH} deep"


def _check_size(root: yaml.Node) -> None:
    """Refuse documents that are too large or too deep with expanded aliases."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) in open_nodes:
            raise yaml.YAMLError("an alias leads back to itself")
        if depth > YAML_DEPTH:
            raise yaml.YAMLError(_too_deep())
        if id(node) not in sizes:
            open_nodes.add(id(node))
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in children)
            open_nodes.discard(id(node))
        if sizes[id(node)] > YAML_VALUES:
            raise yaml.YAMLError(f"it holds more than {YAML_VALUES} values, aliases written out")
        return sizes[id(node)]

    size(root, 0)
