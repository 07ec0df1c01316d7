"""The CustomResourceDefinitions: structural, bounded, in step with the models and with the files that are committed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from folkmoot_core import crd, names
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import views
from folkmoot_core.plan.types import Problems
from folkmoot_core.resources.common import Spec

ROOT = Path(__file__).resolve().parents[2]
VALID: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "valid.yaml").read_text())
DEFINITIONS = crd.definitions()


def schema(definition: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for key, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{key}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


ALL = [
    pytest.param(path, node, id=f"{name}{path}")
    for name, definition in DEFINITIONS.items()
    for path, node in nodes(schema(definition))
    if path and not path.startswith((".apiVersion", ".kind", ".metadata"))
]


@pytest.mark.parametrize(("path", "node"), ALL)
def test_every_field_is_structural_bounded_and_explained(path: str, node: dict[str, Any]) -> None:
    assert not {"$ref", "title", "$defs", "const", "allOf", "oneOf"} & node.keys()
    if node.get("x-kubernetes-int-or-string"):
        assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}]
        assert "type" not in node
    else:
        assert "anyOf" not in node
        assert node["type"] in ("object", "array", "string", "integer", "boolean")
    if node.get("type") == "array":
        assert "maxItems" in node
        assert "x-kubernetes-list-type" in node
    if node.get("type") == "string":
        assert node.keys() & {"maxLength", "enum", "format", "pattern"}
    if isinstance(node.get("additionalProperties"), dict):
        assert "maxProperties" in node
    assert "additionalProperties" not in node or "properties" not in node
    if not path.endswith(("[]", "{}")):
        assert node.get("description"), "kubectl explain would say nothing"


@pytest.mark.parametrize(("path", "node"), ALL)
def test_keys_of_map_lists_are_required_and_plain(path: str, node: dict[str, Any]) -> None:
    for key in node.get("x-kubernetes-list-map-keys", ()):
        assert key in node["items"]["required"], path
        assert node["items"]["properties"][key]["type"] == "string"


@pytest.mark.parametrize(("path", "node"), ALL)
def test_defaults_hold_no_null(path: str, node: dict[str, Any]) -> None:
    assert "null" not in yaml.safe_dump(node.get("default", "")), path


@pytest.mark.parametrize("name", DEFINITIONS)
def test_rules_say_what_to_do(name: str) -> None:
    found = [rule for _, node in nodes(schema(DEFINITIONS[name])) for rule in node.get("x-kubernetes-validations", ())]
    assert found
    for rule in found:
        assert rule["rule"]
        assert 20 < len(rule["message"]) < 300


@pytest.mark.parametrize("name", DEFINITIONS)
def test_columns_show_fields_that_exist(name: str) -> None:
    known = {path for path, _ in nodes(schema(DEFINITIONS[name]))}
    for column in DEFINITIONS[name]["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = re.sub(r"\[\?.*?\]", "[]", column["jsonPath"])
        assert path in known or path.startswith(".metadata."), column


@pytest.mark.parametrize("name", DEFINITIONS)
def test_kubectl_wait_and_get_folkmoot_work(name: str) -> None:
    spec = DEFINITIONS[name]["spec"]
    assert spec["names"]["categories"] == [names.CATEGORY]
    assert spec["names"]["shortNames"][0].startswith("fm")
    assert spec["versions"][0]["subresources"] == {"status": {}}
    conditions = schema(DEFINITIONS[name])["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def defaulted(node: dict[str, Any], value: Any) -> Any:
    """What the API server's defaulting makes of a value."""
    if isinstance(value, dict):
        properties = node.get("properties", {})
        result = {key: defaulted(properties.get(key, {}), item) for key, item in value.items()}
        for key, child in properties.items():
            if key not in result and "default" in child:
                result[key] = defaulted(child, child["default"])
        return result
    if isinstance(value, list):
        return [defaulted(node["items"], item) for item in value]
    return value


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.kind)
def test_the_api_servers_defaults_are_the_models(kind: crd.Kind) -> None:
    """A manifest means the same before and after the API server has filled it in: else every reader would see another."""
    spec = VALID[kind.kind]
    filled = defaulted(schema(crd.definition(kind))["properties"]["spec"], spec)
    assert kind.spec.model_validate(filled) == kind.spec.model_validate(spec)
    assert kind.spec.model_validate(filled).model_dump(by_alias=True, exclude_none=True, mode="json") == filled


def test_what_the_schema_has_the_models_take() -> None:
    metadata = {"name": "probe"}
    for kind, parse in (("Tenant", views.parse_tenant), ("Agent", views.parse_agent)):
        kind_of = next(k for k in crd.KINDS if k.kind == kind)
        filled = defaulted(schema(crd.definition(kind_of))["properties"]["spec"], VALID[kind])
        assert not isinstance(parse({"metadata": metadata, "spec": filled}), Problems)


def test_the_committed_files_are_what_the_models_say() -> None:
    done = subprocess.run([sys.executable, ROOT / "crds" / "generate", "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_union_has_no_structural_schema() -> None:
    class Either(Spec):
        value: int | str

    with pytest.raises(Invalid, match="no unions"):
        crd.structural(Either)
