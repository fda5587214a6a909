"""The API's TLS settings on a real socket."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.listening import tls_options
from api.settings import ApiSettings
from tests.deployment import eventually

pytestmark = pytest.mark.integration


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for loopback."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, private


@asynccontextmanager
async def served(settings: ApiSettings) -> AsyncIterator[int]:
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})

    config = uvicorn.Config(answer, port=0, lifespan="off", log_level="critical", **tls_options(settings))
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    await eventually(lambda: server.started, 10, "the server")
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


def trusting(chain: Path, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(chain))
    if own is not None:
        context.load_cert_chain(*map(str, own))
    return context


async def test_it_answers_https_and_not_http(tmp_path):
    chain, key = certificate(tmp_path, "server")
    async with served(ApiSettings(tls_cert=chain, tls_key=key)) as port:
        async with httpx.AsyncClient(verify=trusting(chain)) as client:
            assert (await client.get(f"https://localhost:{port}/")).text == "answer"
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"http://localhost:{port}/")
        async with httpx.AsyncClient() as stranger:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await stranger.get(f"https://localhost:{port}/")


async def test_old_protocols_and_ciphers_are_refused(tmp_path):
    chain, key = certificate(tmp_path, "server")
    async with served(ApiSettings(tls_cert=chain, tls_key=key)) as port:
        old = trusting(chain)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers("ECDHE+AES256+SHA384:!AESGCM:!CHACHA20")
        async with httpx.AsyncClient(verify=old) as client:
            with pytest.raises((httpx.ConnectError, httpx.ReadError)):
                await client.get(f"https://localhost:{port}/")


async def test_a_client_without_the_right_certificate_is_refused(tmp_path):
    chain, key = certificate(tmp_path, "server")
    mine = certificate(tmp_path, "client")
    stranger = certificate(tmp_path, "stranger")
    async with served(ApiSettings(tls_cert=chain, tls_key=key, tls_client_ca=mine[0])) as port:
        async with httpx.AsyncClient(verify=trusting(chain, mine)) as client:
            assert (await client.get(f"https://localhost:{port}/")).text == "answer"
        for own in (None, stranger):
            async with httpx.AsyncClient(verify=trusting(chain, own)) as client:
                with pytest.raises(httpx.TransportError):
                    await client.get(f"https://localhost:{port}/")
