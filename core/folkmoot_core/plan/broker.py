"""The broker pod of a tenant: the only one with provider keys and with a way out. It has no ledger key.

Secrets are mounted `optional` and without subPath, so that the pod starts before they exist and sees them change; the
operator names them and cannot read them (wiring.md §4).
"""

from __future__ import annotations

from folkmoot_core import names
from folkmoot_core.plan import core, labels, pods
from folkmoot_core.plan.pods import Container
from folkmoot_core.plan.types import Installation, Manifest
from folkmoot_core.plan.views import TenantView
from folkmoot_core.resources import ProviderSpec

MODULE = "folkmoot_runtime.broker"
STORAGE = "1Gi"
KEYS_DIR = "/etc/folkmoot/keys"
CA_DIR = "/etc/folkmoot/provider-ca"
SCRIPTS_DIR = "/etc/folkmoot/scripts"
_RESOURCES = {"requests": {"cpu": "50m", "memory": "160Mi"}, "limits": {"cpu": "1", "memory": "768Mi"}}


def service(tenant: TenantView, inst: Installation) -> Manifest:
    """Headless: one pod."""
    head = labels.tenant_object(tenant, inst, ("v1", "Service"), names.BROKER, names.BROKER)
    return core.headless(head, labels.selector(tenant.name, names.BROKER), {"broker": names.PORT_BROKER})


def stateful_set(tenant: TenantView, inst: Installation, *, replicas: int = 1) -> Manifest:
    """The broker, with the files of every provider."""
    providers = sorted(tenant.spec.providers, key=lambda p: p.name)
    files = [pair for p in providers for pair in _files(p)]
    part = Container(
        name="broker", module=MODULE, uid=names.UID_BROKER, requests=_RESOURCES["requests"], limits=_RESOURCES["limits"],
        audiences=(names.AUDIENCE_OPERATOR, names.AUDIENCE_LEDGER, names.AUDIENCE_CONDUCTOR), ports={"broker": names.PORT_BROKER},
        mounts=({"name": core.VOLUME, "mountPath": pods.DATA_DIR}, *(mount for _, mount in files)),
        probes=pods.https_probes(names.PORT_BROKER),
    )  # fmt: skip
    volumes = [*pods.volumes([part]), *(volume for volume, _ in files)]
    pod = pods.pod_spec(inst, names.SA_BROKER, [pods.build(tenant, inst, part)], volumes)
    return core.stateful(
        tenant, inst, (names.BROKER, pod), core.claim(tenant, names.BROKER, STORAGE, inst.storage_class), replicas
    )


def _files(provider: ProviderSpec) -> list[tuple[Manifest, Manifest]]:
    found: list[tuple[Manifest, Manifest]] = []
    if (key := provider.api_key_secret_ref) is not None:
        found.append(_pair(f"key-{provider.name}", pods.secret_file(key), f"{KEYS_DIR}/{provider.name}"))
    if (bundle := provider.ca_bundle) is not None:
        found.append(_pair(f"ca-{provider.name}", _config_map(bundle.name, bundle.key, "ca.crt"), f"{CA_DIR}/{provider.name}"))
    if (script := provider.script) is not None:
        source = _config_map(script.name, script.key, "script.yaml")
        found.append(_pair(f"script-{provider.name}", source, f"{SCRIPTS_DIR}/{provider.name}"))
    return found


def _config_map(name: str, key: str, path: str) -> Manifest:
    return {"configMap": {"name": name, "optional": True, "defaultMode": 0o444, "items": [{"key": key, "path": path}]}}


def _pair(volume: str, source: Manifest, path: str) -> tuple[Manifest, Manifest]:
    return {"name": volume, **source}, {"name": volume, "mountPath": path, "readOnly": True}
