"""Azure templates on this machine, which has no Bicep compiler: their syntax trees, and the values of simple expressions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".rigs/bicep/bin/python"


@dataclass(frozen=True)
class Node:
    """A named part of a template."""

    kind: str
    text: str
    children: tuple[Node, ...]

    def walk(self) -> Iterator[Node]:
        """It, and all below."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, *kinds: str) -> list[Node]:
        """All of some kinds, in order."""
        return [one for one in self.walk() if one.kind in kinds]

    def properties(self) -> dict[str, Node]:
        """An object's."""
        return {
            one.children[0].text.strip("'"): one.children[1]
            for one in self.children
            if one.kind == "object_property" and len(one.children) == 2
        }


@dataclass(frozen=True)
class Parameter:
    """One of a template's."""

    type: str
    decorators: dict[str, Any]
    default: Node | None


@dataclass(frozen=True)
class Resource:
    """One of a template's, also below another one."""

    name: str
    type: str
    """With its version, as ``Microsoft.Storage/storageAccounts@2023-05-01``."""
    body: Node
    """An object."""
    condition: Node | None
    parents: tuple[str, ...] = ()
    existing: bool = False
    properties: dict[str, Node] = field(default_factory=dict)


class Template:
    """A Bicep file."""

    def __init__(self, path: Path) -> None:
        if not PYTHON.exists():
            raise AssertionError("Bicep's grammar is not there: run scripts/rigs.sh")
        command = [str(PYTHON), str(Path(__file__).with_name("bicep.py")), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.tree = _node(json.loads(done.stdout))

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        found: dict[str, Parameter] = {}
        decorators: dict[str, Any] = {}
        for one in self.tree.children:
            if one.kind == "decorators":
                for call in one.find("call_expression"):
                    name, arguments = call.children
                    decorators[name.text] = value(arguments.children[0], {})
                continue
            if one.kind == "parameter_declaration":
                name, kind, *default = one.children
                found[name.text] = Parameter(kind.text, decorators, default[0] if default else None)
            decorators = {}
        return found

    @cached_property
    def variables(self) -> dict[str, Node]:
        return {
            one.children[0].text: one.children[1]
            for one in self.tree.children
            if one.kind == "variable_declaration"
        }

    @cached_property
    def outputs(self) -> dict[str, Node]:
        return {
            one.children[0].text: one.children[-1]
            for one in self.tree.children
            if one.kind == "output_declaration"
        }

    @cached_property
    def resources(self) -> list[Resource]:
        return list(_resources(self.tree, ()))

    def resource(self, *path: str) -> Resource:
        (found,) = (one for one in self.resources if (*one.parents, one.name) == path)
        return found

    def scope(self, given: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
        """What names stand for: parameters that are given, the defaults of others, variables.

        :param there: by name of a resource, what Azure would tell of it; of ``resourceGroup``, ``environment``, … too.
        """
        scope: dict[str, Any] = dict(there)
        for name, parameter in self.parameters.items():
            if name in given:
                scope[name] = _checked(name, parameter, given[name])
            else:
                assert parameter.default is not None, f"parameter {name} has to be given"
                scope[name] = value(parameter.default, scope)
        assert set(given) <= set(self.parameters), set(given) - set(self.parameters)
        for name, node in self.variables.items():
            scope[name] = value(node, scope)
        return scope


def value(node: Node, scope: Mapping[str, Any]) -> Any:
    """What an expression comes to.

    :raises AssertionError: it is of a kind that is not known here.
    """
    match node.kind:
        case "string":
            return _text(node, scope)
        case "number":
            return int(node.text)
        case "boolean":
            return node.text == "true"
        case "identifier":
            return scope[node.text]
        case "array":
            return [value(one, scope) for one in node.children]
        case "object":
            return {name: value(one, scope) for name, one in node.properties().items()}
        case "parenthesized_expression":
            return value(node.children[0], scope)
        case "interpolation":
            return value(node.children[0], scope)
        case "member_expression" | "resource_expression":
            of = value(node.children[0], scope)
            return of.get(node.children[1].text) if ".?" in node.text else of[node.children[1].text]
        case "subscript_expression":
            return value(node.children[0], scope)[value(node.children[1], scope)]
        case "unary_expression":
            return not value(node.children[0], scope)
        case "binary_expression":
            return _binary(node, scope)
        case "ternary_expression":
            condition, yes, no = node.children
            return value(yes if value(condition, scope) else no, scope)
        case "call_expression":
            return _call(node, scope)
    raise AssertionError(f"{node.kind}: {node.text}")


def _text(node: Node, scope: Mapping[str, Any]) -> str:
    parts = []
    for one in node.children:
        match one.kind:
            case "interpolation":
                parts.append(str(value(one, scope)))
            case "escape_sequence":
                parts.append(one.text[1:])
            case _:
                parts.append(one.text)
    return "".join(parts)


def _binary(node: Node, scope: Mapping[str, Any]) -> Any:
    left, right = node.children
    operator = node.text[len(left.text) : len(node.text) - len(right.text)].strip()
    first = value(left, scope)
    match operator:
        case "&&":
            return first and value(right, scope)
        case "==":
            return first == value(right, scope)
        case "??":
            return value(right, scope) if first is None else first
    raise AssertionError(operator)


def _call(node: Node, scope: Mapping[str, Any]) -> Any:
    name, arguments = node.children
    given = [value(one, scope) for one in arguments.children]
    match name.text:
        case "split":
            return given[0].split(given[1])
        case "empty":
            return not given[0]
        case "concat":
            return [one for some in given for one in some]
        case "uniqueString":
            return "u" * 13
        case "resourceGroup" | "environment":
            return scope[name.text]
        case "subscriptionResourceId":
            return f"{given[0]}/{given[1]}"
    raise AssertionError(f"{name.text}()")


def _checked(name: str, parameter: Parameter, given: str) -> Any:
    """A value from a command line."""
    told: Any = int(given) if parameter.type == "int" else given
    if parameter.type == "bool":
        told = {"true": True, "false": False}[given]
    rules = parameter.decorators
    assert told in rules.get("allowed", [told]), f"{name}={told}"
    if parameter.type == "int":
        assert rules.get("minValue", told) <= told <= rules.get("maxValue", told), f"{name}={told}"
    elif parameter.type == "string":
        size = len(told)
        assert rules.get("minLength", size) <= size <= rules.get("maxLength", size), f"{name}={told}"
    return told


def _resources(node: Node, parents: tuple[str, ...]) -> Iterator[Resource]:
    for one in node.children:
        if one.kind == "object_property" and len(one.children) == 1:
            yield from _resources(one, parents)
        if one.kind != "resource_declaration":
            continue
        name, kind, body = one.children
        condition = None
        if body.kind == "if_statement":
            condition, body = body.children
        head = one.text.partition("{")[0].partition("if (")[0]
        yield Resource(
            name.text, kind.text.strip("'"), body, condition, parents, " existing " in head, body.properties()
        )
        yield from _resources(body, (*parents, name.text))


def _node(told: list[Any]) -> Node:
    kind, text, children = told
    return Node(kind, text, tuple(_node(one) for one in children if one[0] != "comment"))
