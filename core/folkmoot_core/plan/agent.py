"""An Agent's plan: its account and pods, and, when it has tools, its sandbox and the network between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from folkmoot_core import names
from folkmoot_core.conditions import (
    REASON_ACCEPTED,
    REASON_INVALID,
    REASON_REF_NOT_FOUND,
    REASON_RESOLVED,
    REASON_SUSPENDED,
    Condition,
    false,
    true,
)
from folkmoot_core.errors import Invalid
from folkmoot_core.plan import core, identities, labels, network, pods, sandbox
from folkmoot_core.plan.pods import Container
from folkmoot_core.plan.types import Installation, Manifest, Plan, Problem
from folkmoot_core.plan.views import AgentView, TenantView

MODULE = "folkmoot_runtime.agent"
MAX_PROMPT = 100_000  # characters, as for spec.systemPrompt
ALIVE_FILE = f"{pods.RUN_DIR}/alive"
_RESOURCES = {"requests": {"cpu": "25m", "memory": "96Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}}


def plan(agent: AgentView, tenant: TenantView, inst: Installation) -> Plan:
    """Everything of one Agent. One that its tenant does not allow keeps its objects at zero replicas: it has no authority, and
    a grant given back brings it up again."""
    conditions = (_accepted(agent, tenant), _provider_ref(agent, tenant))
    stopped = agent.spec.suspend or tenant.stopped or any(c.status != "True" for c in conditions)
    replicas = 0 if stopped else agent.spec.replicas
    return Plan(objects=tuple(_objects(agent, tenant, inst, replicas)), conditions=conditions)


def resolve_prompt(agent: AgentView, config_map: Mapping[str, Any] | None) -> str | Problem:
    """The system prompt: from the spec, or from the ConfigMap that systemPromptFrom names (raw object, or None if absent)."""
    source = agent.spec.system_prompt_from
    if source is None:
        return agent.spec.system_prompt or ""
    reference = source.config_map_key_ref
    where = "spec.systemPromptFrom.configMapKeyRef"
    text = ((config_map or {}).get("data") or {}).get(reference.key)
    if text is None:
        found = "no ConfigMap of that name" if config_map is None else "the ConfigMap without that key"
        wanted = f"ConfigMap {reference.name} with key {reference.key} in {agent.meta.namespace}"
        return Problem(where, f"expected {wanted}, found {found}; create it or correct the reference", REASON_REF_NOT_FOUND)
    if len(text) > MAX_PROMPT:
        return Problem(where, f"the prompt has {len(text)} characters; at most {MAX_PROMPT}", REASON_INVALID)
    return str(text)


def _objects(agent: AgentView, tenant: TenantView, inst: Installation, replicas: int) -> Iterator[Manifest]:
    view = (agent, tenant)
    workload = names.agent_workload(agent.name)
    component = labels.COMPONENT_AGENT
    account = labels.agent_object(view, inst, ("v1", "ServiceAccount"), workload, component)
    yield {**account, "automountServiceAccountToken": False}
    if tools := agent.spec.tools.builtin.allowed():
        yield from network.of_agent(agent, tenant, inst)
        yield from _sandbox(agent, tenant, inst, (tools, replicas))
    yield sandbox.deployment(
        labels.agent_object(view, inst, ("apps/v1", "Deployment"), workload, component),
        labels.selector(tenant.name, component, agent.name),
        labels.template(tenant.name, component, agent.name),
        _pod(agent, tenant, inst, has_tools=bool(tools)),
        replicas,
    )


def _pod(agent: AgentView, tenant: TenantView, inst: Installation, *, has_tools: bool) -> Manifest:
    requests, limits = pods.merged(_RESOURCES, agent.spec.resources)
    env = {"FOLKMOOT_AGENT": agent.name}
    audiences = [names.AUDIENCE_BUS, names.AUDIENCE_BROKER, names.AUDIENCE_LEDGER, names.AUDIENCE_CONDUCTOR]
    if has_tools:
        env["FOLKMOOT_SANDBOX_URL"] = f"http://{names.sandbox_workload(agent.name)}:{names.PORT_SANDBOX}"
        audiences.append(names.AUDIENCE_SANDBOX)
    part = Container(
        name="agent", module=MODULE, uid=names.UID_AGENT, requests=requests, limits=limits, env=env, audiences=tuple(audiences),
        probes=pods.file_probes(ALIVE_FILE),
    )  # fmt: skip
    spec = pods.pod_spec(inst, names.agent_workload(agent.name), [pods.build(tenant, inst, part)], pods.volumes([part]))
    return {**spec, **_placement(agent)}


def _sandbox(agent: AgentView, tenant: TenantView, inst: Installation, work: tuple[tuple[str, ...], int]) -> Iterator[Manifest]:
    tools, replicas = work
    view, name, component = (agent, tenant), names.sandbox_workload(agent.name), labels.COMPONENT_SANDBOX
    selector = labels.selector(tenant.name, component, agent.name)
    jail = sandbox.Jail(
        caller=names.agent_workload(agent.name), tools=tools, workspace=agent.spec.sandbox.workspace,
        resources=agent.spec.sandbox.resources, agent=agent.name,
    )  # fmt: skip
    head = labels.agent_object(view, inst, ("v1", "Service"), name, component)
    yield core.headless(head, selector, {"sandbox": names.PORT_SANDBOX}, before_ready=False)
    yield sandbox.deployment(
        labels.agent_object(view, inst, ("apps/v1", "Deployment"), name, component),
        selector,
        labels.template(tenant.name, component, agent.name),
        {**sandbox.pod(tenant, inst, jail), **_placement(agent)},
        replicas,
    )


def _placement(agent: AgentView) -> Manifest:
    placement: Manifest = {}
    if agent.spec.node_selector:
        placement["nodeSelector"] = dict(agent.spec.node_selector)
    if agent.spec.priority_class_name:
        placement["priorityClassName"] = agent.spec.priority_class_name
    return placement


def _accepted(agent: AgentView, tenant: TenantView) -> Condition:
    if not any(p.name == agent.spec.model.provider for p in tenant.spec.providers):
        return true("Accepted", REASON_ACCEPTED)  # ResolvedRefs says what is missing; the grant cannot be judged without it
    try:
        identities.check_agent(agent, tenant)
    except Invalid as error:
        return false("Accepted", error.reason, error.message)
    if agent.spec.suspend or tenant.stopped:
        who = f"Agent {agent.name}" if agent.spec.suspend else f"Tenant {tenant.name}"
        return true("Accepted", REASON_SUSPENDED, f"{who} is suspended or being deleted: scaled to zero")
    return true("Accepted", REASON_ACCEPTED)


def _provider_ref(agent: AgentView, tenant: TenantView) -> Condition:
    wanted = agent.spec.model.provider
    known = sorted(p.name for p in tenant.spec.providers)
    if wanted in known:
        return true("ResolvedRefs", REASON_RESOLVED)
    return false(
        "ResolvedRefs",
        "ProviderNotAllowed",
        f"model.provider {wanted} is not among the providers of Tenant {tenant.name} ({', '.join(known) or 'none'}); "
        "choose one of them or add it to the Tenant",
    )
