"""What the operator itself keeps in its own namespace, for the installation's own services (the witness): what they trust."""

from __future__ import annotations

from folkmoot_core import names
from folkmoot_core.plan import labels
from folkmoot_core.plan.types import Installation, Manifest

COMPONENT = "installation"


def trust(inst: Installation) -> Manifest:
    """The trust ConfigMap, as every tenant's namespace has one."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.TRUST_CONFIGMAP,
            "namespace": inst.system_namespace,
            "labels": labels.of_installation(inst, COMPONENT),
        },
        "data": trust_data(inst),
    }


def trust_data(inst: Installation) -> dict[str, str]:
    """What `folkmoot_runtime.trust` reads, by file name."""
    return {"ca.crt": inst.ca_bundle, "jwks.json": inst.jwks, "issuer": inst.issuer}
