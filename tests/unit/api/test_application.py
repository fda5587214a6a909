import json
from datetime import UTC, datetime

import jsonschema
import pytest

from api.application import create_app
from api.deps import Services
from schemas.parse import parse_message
from schemas.transaction import Transaction
from tests.serving import Broken, serving

ROUTES = {
    ("get", "/live"),
    ("get", "/ready"),
    ("get", "/health"),
    ("get", "/metrics"),
    ("post", "/auth/token"),
    ("get", "/.well-known/jwks.json"),
    ("get", "/customers/{customer_id}/features"),
    ("get", "/customers/{customer_id}/scores"),
    ("get", "/customers/{customer_id}/profile"),
    ("get", "/customers/{customer_id}/export"),
    ("delete", "/customers/{customer_id}"),
    ("post", "/inference/fraud-detection"),
    ("post", "/inference/churn-score"),
    ("get", "/"),
    ("get", "/health/detailed"),
    ("get", "/customers"),
    ("get", "/customers/{customer_id}"),
    ("get", "/customers/{customer_id}/transactions"),
    ("get", "/analytics/customers"),
    ("get", "/analytics/transactions"),
    ("post", "/inference/churn-batch"),
    ("post", "/inference/batch-process"),
    ("get", "/inference/explain"),
    ("post", "/inference/segment"),
    ("get", "/models/status"),
    ("post", "/models/reload"),
    ("get", "/stream/scores"),
}


@pytest.fixture
async def document(client):
    response = await client.get("/openapi.json")
    assert response.status_code == 200
    return response.json()


def operations(document):
    return {(method, path): o for path, methods in document["paths"].items() for method, o in methods.items()}


async def test_every_route_is_documented(document):
    found = operations(document)
    assert set(found) == ROUTES
    for operation in found.values():
        assert operation["description"]
        assert operation["tags"]
        assert all(response["description"] for response in operation["responses"].values())
        (kind,) = next(r for status, r in operation["responses"].items() if status[0] == "2")["content"]
        assert kind in {"application/json", "text/plain", "text/event-stream"}


async def test_errors_are_documented_as_problem_documents(document):
    for (_, path), operation in operations(document).items():
        errors = {
            status: r for status, r in operation["responses"].items() if status[0] != "2" and status != "304"
        }
        if path.startswith(("/customers", "/inference")):
            assert {"422", "503"} <= set(errors)
        for status, response in errors.items():
            # OAuth has a form of its own for errors.
            if (path, status) not in {
                ("/health", "503"),
                ("/health/detailed", "503"),
                ("/auth/token", "400"),
                ("/auth/token", "401"),
            }:
                (kind,) = response["content"]
                assert kind == "application/problem+json"


async def test_every_reference_of_the_document_leads_somewhere(document):
    def references(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            node = node.values()
        elif not isinstance(node, list):
            return
        for inner in node:
            yield from references(inner)

    found = set(references(document))
    assert found
    for reference in found:
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


async def test_problems_are_what_the_document_says(document, client, away):
    schema = operations(document)["post", "/inference/fraud-detection"]["responses"]["422"]["content"]
    (described,) = schema.values()
    for response in (
        await client.get("/customers/nobody-home/features"),
        await client.post("/inference/fraud-detection", content=b"{}"),
        await away.get("/ready"),
    ):
        jsonschema.validate(response.json(), described["schema"])
        assert set(response.json()) <= set(described["schema"]["properties"])


async def test_the_example_of_a_transaction_is_accepted(document, eager, world):
    body = operations(document)["post", "/inference/fraud-detection"]["requestBody"]["content"]
    example = body["application/json"]["example"]
    jsonschema.validate(example, body["application/json"]["schema"])
    parse_message(Transaction, json.dumps(example).encode())
    async with serving(world.store, eager, now=datetime(2026, 3, 2, tzinfo=UTC)) as client:
        response = await client.post("/inference/fraud-detection", json=example)
    assert response.status_code == 200
    answer = operations(document)["post", "/inference/fraud-detection"]["responses"]["200"]["content"]
    schema = answer["application/json"]["schema"] | {"components": document["components"]}
    jsonschema.validate(response.json(), schema)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_documentation_is_served(client, path):
    response = await client.get(path)
    assert response.status_code == 200
    assert "/openapi.json" in response.text


async def test_what_the_store_holds_open_is_closed_at_the_end(eager):
    closed = []

    async def close():
        closed.append(True)

    app = create_app(Services(Broken(ValueError()), eager, close, lambda: datetime.now(UTC)), close)
    async with app.router.lifespan_context(app):
        assert not closed
    assert closed
