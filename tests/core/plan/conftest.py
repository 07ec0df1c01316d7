"""Makers of views and of an installation, and the plans of a tenant with two agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from folkmoot_core.plan import agent as agent_plan
from folkmoot_core.plan import tenant as tenant_plan
from folkmoot_core.plan import views
from folkmoot_core.plan.types import Installation, Problems
from folkmoot_core.plan.views import AgentView, TenantView

KEY = {"name": "keys", "key": "k"}
PROVIDERS = [
    {"name": "claude", "type": "Anthropic", "apiKeySecretRef": KEY},
    {
        "name": "house", "type": "OpenAICompatible", "baseURL": "https://vllm.models.svc:8443/v1", "region": "onprem",
        "caBundle": {"name": "house-ca", "key": "ca.pem"},
    },
    {"name": "fake", "type": "Scripted", "script": {"name": "answers", "key": "a.yaml"}},
]  # fmt: skip


def make_tenant(name: str = "acme", *, uid: str = "tenant-uid", deleted: str = "", **spec: Any) -> TenantView:
    metadata = {"name": name, "uid": uid, "generation": 3, **({"deletionTimestamp": deleted} if deleted else {})}
    full = {"cause": "I keep Acme's reviews honest.", "providers": PROVIDERS, **spec}
    found = views.parse_tenant({"metadata": metadata, "spec": full})
    assert not isinstance(found, Problems), found
    return found


def make_agent(name: str = "builder", *, uid: str = "agent-uid", namespace: str = "folkmoot-acme", **spec: Any) -> AgentView:
    full = {"cause": "I build.", "model": {"provider": "claude", "name": "claude-sonnet-5-5"}, **spec}
    found = views.parse_agent({"metadata": {"name": name, "namespace": namespace, "uid": uid, "generation": 2}, "spec": full})
    assert not isinstance(found, Problems), found
    return found


def make_installation(**other: Any) -> Installation:
    fields: dict[str, Any] = {
        "system_namespace": "folkmoot-system", "federation": "moot", "operator_image": "operator:1", "runtime_image": "runtime:1",
        "operator_service_url": "https://folkmoot-operator.folkmoot-system.svc:8443", "issuer": "https://issuer", "jwks": '{"keys": []}',
        "ca_bundle": "PEM", "version": "1.2.3+build.4", **other,
    }  # fmt: skip
    return Installation(**fields)


TOOLS = {"builtin": {"bash": "Allow", "read": "Allow"}}


@pytest.fixture
def inst() -> Installation:
    return make_installation()


@pytest.fixture
def objects(inst: Installation) -> list[dict[str, Any]]:
    """Everything of a tenant with one agent that has tools and one that has none."""
    tenant = make_tenant(owners=[{"kind": "Group", "name": "admins"}], auditors=[{"kind": "User", "name": "ina"}])
    return [
        *tenant_plan.plan(tenant, inst).objects,
        *agent_plan.plan(make_agent("builder", tools=TOOLS), tenant, inst).objects,
        *agent_plan.plan(make_agent("reader", uid="reader-uid"), tenant, inst).objects,
    ]


@pytest.fixture
def tenant() -> Callable[..., TenantView]:
    return make_tenant


@pytest.fixture
def agent() -> Callable[..., AgentView]:
    return make_agent


@pytest.fixture
def installation() -> Callable[..., Installation]:
    return make_installation
