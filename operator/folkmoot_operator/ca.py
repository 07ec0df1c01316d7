"""The operator as certificate authority: its CA Secret, the endpoint's own certificate, its client certificate, its signatures.

The Secret lies in the operator's namespace and is the one Secret it may read, by name. What somebody who holds it could do: pass
as any serving pod of any tenant, and as the operator to every conductor.
"""

from __future__ import annotations

import base64
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from folkmoot_core import certificates
from folkmoot_core.certificates import Authority, Moment
from folkmoot_core.document import CertificateAnswer
from folkmoot_core.errors import Conflict, Invalid, Missing
from folkmoot_operator.kinds import SECRET, Key, Obj
from folkmoot_operator.kube import Kube
from folkmoot_operator.tls import load_pair

log = logging.getLogger(__name__)
SECRET_NAME: Final = "folkmoot-ca"  # noqa: S105 - a name
CLIENT_NAME: Final = "folkmoot-operator"


async def ensure(kube: Kube, namespace: str, now: Callable[[], datetime]) -> Authority:
    """The installation's CA, made if there is none; of two replicas that try at once the loser re-reads."""
    key = Key(namespace, SECRET_NAME)
    try:
        return _read(await kube.get(SECRET, key))
    except Missing:
        fresh = certificates.make_authority(
            ec.generate_private_key(ec.SECP256R1()), "Folkmoot CA", Moment(now(), x509.random_serial_number())
        )
    try:
        await kube.create(SECRET, _manifest(key, fresh))
    except Conflict:
        return _read(await kube.get(SECRET, key))
    log.info("made the installation's CA", extra={"secret": str(key)})
    return fresh


def _read(secret: Obj) -> Authority:
    data = secret.get("data") or {}
    try:
        pair = [base64.b64decode(data[name], validate=True) for name in ("tls.crt", "tls.key")]
    except (KeyError, ValueError) as error:
        raise Invalid(f"Secret {SECRET_NAME}: expected tls.crt and tls.key, found {sorted(data)}") from error
    return certificates.read_authority(*pair)


def _manifest(key: Key, authority: Authority) -> Obj:
    pair = {"tls.crt": authority.pem().encode(), "tls.key": certificates.key_pem(authority.key)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "data": {name: base64.b64encode(value).decode() for name, value in pair.items()},
    }


@dataclass
class Signer:
    """Signs with the CA. `now` is aware UTC."""

    authority: Authority
    now: Callable[[], datetime]

    def answer(self, csr: str, names: Sequence[str]) -> CertificateAnswer:
        """A serving certificate for `names`; raises `Invalid` for a bad request."""
        leaf = certificates.sign_serving(self.authority, certificates.request_key(csr), names, self._moment())
        return CertificateAnswer(
            certificate=certificates.pem(leaf), ca=self.authority.pem(), not_after=leaf.not_valid_after_utc.isoformat()
        )

    def serving_pair(self, names: Sequence[str]) -> tuple[bytes, bytes]:
        """A fresh key and certificate for the operator's own endpoint."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificates.sign_serving(self.authority, key.public_key(), names, self._moment())
        return certificates.pem(leaf).encode(), certificates.key_pem(key)

    def client_pair(self) -> tuple[bytes, bytes]:
        """A fresh key and certificate by which conductors know the operator."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificates.sign_client(self.authority, key.public_key(), CLIENT_NAME, self._moment())
        return certificates.pem(leaf).encode(), certificates.key_pem(key)

    def _moment(self) -> Moment:
        return Moment(self.now(), x509.random_serial_number())


@dataclass
class Contexts:
    """The endpoint's server context and the client context towards conductors; `renew` reloads both in place."""

    signer: Signer
    names: Sequence[str]
    server: ssl.SSLContext = field(init=False)
    client: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.create_default_context(cadata=self.signer.authority.pem())
        for context in (self.server, self.client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.renew()

    def renew(self) -> None:
        """New keys and certificates; called at two thirds of their lifetime."""
        load_pair(self.server, *self.signer.serving_pair(self.names))
        load_pair(self.client, *self.signer.client_pair())
