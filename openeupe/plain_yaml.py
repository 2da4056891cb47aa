"""YAML as plain data, with limits that stop alias bombs before they are expanded."""

from __future__ import annotations

from typing import Any

import yaml

from openeupe.limits import YAML_BYTES, YAML_DEPTH, YAML_VALUES


def load_yaml(content: str | bytes, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The plain value of a YAML text.

    Raises:
        yaml.YAMLError: for whatever is wrong with the text, limits included.
    """
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
    """Refuse what is too large or too deep once every alias is written out, without doing so."""
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
