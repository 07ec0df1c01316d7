"""`python -m folkmoot_runtime.tsa`: open the directory, get a certificate for the door where an operator gives one, serve.

In an installation it is the operator's (`FOLKMOOT_OPERATOR_URL`): the door speaks TLS with a certificate of the installation's CA, and
brokers know it as the authority named `cluster`. Elsewhere it speaks plain HTTP, for whoever puts a proxy before it: what counts is
the token's signature. Its FOLKMOOT_TENANT is `system`, a name that no tenant can have. Exits with 1 and a sentence when its directory
is not whole, or when another process has it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import time
from collections.abc import Mapping

from folkmoot_core import names
from folkmoot_core.errors import Invalid
from folkmoot_runtime import process, web
from folkmoot_runtime import settings as environment
from folkmoot_runtime.settings import Settings
from folkmoot_runtime.tls import ServingCertificate
from folkmoot_runtime.trust import Trust
from folkmoot_runtime.tsa.door import Authority
from folkmoot_runtime.tsa.volume import Birth, open_volume

log = logging.getLogger("folkmoot_runtime.tsa")
NAME = "FOLKMOOT_TIMESTAMPS_NAME"  # common name of the authority's certificate, for people; used once, at birth
DEFAULT_NAME = "Folkmoot timestamps"


async def run(settings: Settings, env: Mapping[str, str]) -> None:
    """Serve until cancelled."""
    name = env.get(NAME, "") or DEFAULT_NAME
    if not (name.isprintable() and len(name) <= 59):
        raise Invalid(f"environment variable {NAME} has {len(name)} characters; expected at most 59, all printable")
    volume = await asyncio.to_thread(open_volume, settings.data / "timestamps", Birth(name, time.time, secrets.randbits))
    authority = Authority(volume, time.time, secrets.randbits)
    try:
        log.info(
            "authority open",
            extra={"given_out": volume.last.number, "expires": f"{volume.signer.chain[0].not_valid_after_utc:%Y-%m-%d}"},
        )
        async with asyncio.TaskGroup() as group:
            certificate = None
            if settings.operator_url:
                certificate = ServingCertificate(
                    settings, Trust(settings.trust, settings.namespace), settings.run / "timestamps-tls"
                )
                await certificate.obtain()
                group.create_task(certificate.renew_forever())
            context = certificate.server_context() if certificate else None
            port = settings.port or names.PORT_TIMESTAMPS
            group.create_task(web.serve(authority.app(), host=settings.listen_host, port=port, context=context, http="httptools"))
            log.info("door open", extra={"port": port, "tls": context is not None})
    finally:
        authority.close()
        volume.close()


async def main() -> None:
    """From the environment."""
    await run(environment.from_environment(), os.environ)


if __name__ == "__main__":
    sys.exit(process.main("timestamps", main))
