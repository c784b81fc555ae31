"""YAML files without duplicate keys."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from slay.errors import SlayError, shown

TEXT = "tag:yaml.org,2002:str"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, names: Collection[str] = ()) -> Any:
    """Parse a YAML file; `names` are top-level keys whose values are text. Raises `SlayError`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except ValueError as error:  # not UTF-8
        raise SlayError(f"{path}: is no YAML ({error})") from error
    return parse(text, str(path), names)


def parse(text: str, where: str, names: Collection[str] = ()) -> Any:
    """Parse YAML text as `read_yaml` does; `where` is the prefix of error messages."""
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_repeated(node, where)
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value in names and isinstance(value, yaml.ScalarNode):
                value.tag = TEXT
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: malformed numbers
        if isinstance(error, SlayError):
            raise
        raise SlayError(f"{where}: is no YAML ({' '.join(str(error).split())})") from error


def _refuse_repeated(node: yaml.Node, where: str) -> None:
    """Raise `SlayError` for a duplicate key in a mapping, of which YAML would keep the last."""
    waiting, seen = [node], {id(node)}
    while waiting:
        node = waiting.pop()
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            names: set[tuple[str, str]] = set()
            for key, _ in node.value:
                name = (key.tag, str(key.value))
                if name in names:
                    line = key.start_mark.line + 1
                    raise SlayError(f"{where}, line {line}: {shown(key.value)} stands twice")
                names.add(name)
            inner = [each for pair in node.value for each in pair]
        new = [each for each in inner if id(each) not in seen]
        seen.update(map(id, new))
        waiting += new
