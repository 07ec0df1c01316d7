"""`python -m folkmoot_runtime.witness`: open the directory, get a certificate, serve both doors.

One per installation, in the operator's namespace and on a volume of its own; its FOLKMOOT_TENANT is `system`, a name that no
tenant can have. Exits with 1 and a sentence when its keys or its memory are not both there, or when another process has them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
import uuid
from collections.abc import Mapping

from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_runtime import process, web
from folkmoot_runtime import settings as environment
from folkmoot_runtime.settings import Settings
from folkmoot_runtime.tls import ServingCertificate
from folkmoot_runtime.trust import Trust
from folkmoot_runtime.witness.door import Witness
from folkmoot_runtime.witness.volume import Birth, open_volume

log = logging.getLogger("folkmoot_runtime.witness")


def _new_name() -> str:
    return f"folkmoot-witness/{uuid.uuid4()}"


def _new_seed() -> bytes:
    return os.urandom(32)


NEW = Birth(name=_new_name, seed=_new_seed)


async def run(settings: Settings, env: Mapping[str, str]) -> None:
    """Serve until cancelled."""
    operator_port = _port(env, "FOLKMOOT_OPERATOR_PORT", names.PORT_WITNESS_OPERATOR)
    volume = await open_volume(settings.data / "witness", NEW)
    try:
        log.info("witness open", extra={"witness": volume.identity.ed25519.name})
        trust = Trust(settings.trust, settings.namespace)
        certificate = ServingCertificate(settings, trust, settings.run / "witness-tls")
        await certificate.obtain()
        witness = Witness(volume.store, volume.identity, time.time)
        public, operator = certificate.server_context(), certificate.server_context(require_client_certificate=True)
        host, port = settings.listen_host, settings.port or names.PORT_WITNESS
        async with asyncio.TaskGroup() as group:
            group.create_task(certificate.renew_forever())
            group.create_task(web.serve(witness.public(), host=host, port=port, context=public, http="httptools"))
            group.create_task(web.serve(witness.operator(), host=host, port=operator_port, context=operator, http="httptools"))
            log.info("doors open", extra={"public": port, "operator": operator_port})
    finally:
        await volume.close()


def _port(env: Mapping[str, str], key: str, default: int) -> int:
    text = env.get(key, "") or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise Invalid(f"environment variable {key} is {text!r}; expected a port number")
    return int(text)


async def main() -> None:
    """From the environment."""
    await run(environment.from_environment(), os.environ)


if __name__ == "__main__":
    sys.exit(process.main("witness", main))
