"""The sections of a configuration: which one a pydantic error speaks of, and where else a key exists."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .tree import Node, child


@dataclass(frozen=True, slots=True)
class Target:
    """What an error's location leads to.

    Parameters
    ----------
    path : tuple
        Key path in the file, without the labels that pydantic adds for members of unions.
    section : type
        The section that holds the last key.
    annotation : Any
        Type wanted there; None for a key the section does not have.
    fits : bool
        False when the error belongs to a member of a union that the value's shape rules out.
    also : tuple of str
        Shapes that the other members of that union would take: ``list``, ``mapping``.
    """

    path: tuple[str | int, ...]
    section: type[BaseModel]
    annotation: Any
    fits: bool = True
    also: tuple[str, ...] = ()


def follow(model: type[BaseModel], tree: Node, location: Sequence[str | int]) -> Target:
    """Translate the location of a pydantic error into a key path of the file."""
    annotation: Any = model
    section, path, node = model, (), tree
    also: tuple[str, ...] = ()
    for item in location:
        annotation, discriminator = strip(annotation)
        members = union_members(annotation)
        if discriminator is not None:
            annotation = {kind_of(member): member for member in members}.get(str(item))
            continue
        if len(members) > 1:
            if _label_shape(str(item)) != _shape(node):
                return Target(path, section, annotation, fits=False)
            also = tuple(sorted({_annotation_shape(m) for m in members} - {_shape(node)}))
            annotation = next((m for m in members if _annotation_shape(m) == _shape(node)), None)
            continue
        path, also = (*path, item), ()
        node = (child(node, item) if node is not None else None) or None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            section = annotation
            annotation = field_annotation(annotation.model_fields.get(str(item)))
        else:
            arguments = get_args(annotation)
            annotation = arguments[-1] if get_origin(annotation) is dict else (arguments or (None,))[0]
    return Target(path, section, annotation, also=also)


def field_annotation(field: FieldInfo | None) -> Any:
    """Type of a field, with the discriminator that pydantic moved out of its annotation."""
    if field is None:
        return None
    annotation: Any = field.annotation
    return Annotated[annotation, field] if field.discriminator else annotation


def strip(annotation: Any) -> tuple[Any, str | None]:
    """Remove ``Annotated`` and ``| None``; return the type and its discriminator, if any."""
    discriminator = None
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            for item in metadata:
                if isinstance(item, FieldInfo) and isinstance(item.discriminator, str):
                    discriminator = item.discriminator
        elif len(members := union_members(annotation)) == 1 and members[0] is not annotation:
            annotation = members[0]
        else:
            return annotation, discriminator


def union_members(annotation: Any) -> list[Any]:
    """Return the members of a union without None; a list of one for any other type."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for member in get_args(annotation) if member is not type(None)]
    return [annotation]


def kind_of(section: type[BaseModel]) -> str | None:
    """Return the value of ``kind`` that selects a section, if it has one."""
    field = section.model_fields.get("kind")
    arguments = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    return arguments[0] if arguments else None


def kinds(annotation: Any) -> list[str]:
    """Return the ``kind`` of every member of a discriminated union."""
    members = union_members(strip(annotation)[0])
    return [kind for member in members if isinstance(member, type) and (kind := kind_of(member))]


@functools.cache
def sections(model: type[BaseModel]) -> tuple[tuple[str, type[BaseModel]], ...]:
    """Return every section below `model` with its readable path, such as ``data.sources (kind: mix)``."""
    return tuple(_sections(model, ""))


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path or "the top level", model
    for name, field in model.model_fields.items():
        below = f"{path}.{name}" if path else name
        for member in _members_within(field_annotation(field)):
            label = f"{below} (kind: {kind})" if (kind := kind_of(member)) else below
            for where, section in _sections(member, below):
                yield (label if where == below else where), section


def _members_within(annotation: Any) -> list[type[BaseModel]]:
    annotation, _ = strip(annotation)
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    if get_origin(annotation) is Literal:
        return []
    return [found for argument in get_args(annotation) for found in _members_within(argument)]


def _shape(node: Node | None) -> str:
    if node is None or not isinstance(node.value, dict | list):
        return "scalar"
    return "mapping" if isinstance(node.value, dict) else "list"


def _label_shape(label: str) -> str:
    if label.startswith(("list[", "tuple[")):
        return "list"
    return "mapping" if label.startswith(("tagged-union[", "dict[")) or label[:1].isupper() else "scalar"


def _annotation_shape(annotation: Any) -> str:
    inner, discriminator = strip(annotation)
    if get_origin(inner) in (list, tuple):
        return "list"
    if discriminator or get_origin(inner) is dict:
        return "mapping"
    return "mapping" if isinstance(inner, type) and issubclass(inner, BaseModel) else "scalar"
