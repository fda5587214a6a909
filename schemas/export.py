"""JSON Schema files and an AsyncAPI document, generated from the models."""

import json
import re
from typing import Any

from schemas.fields import SCHEMA_VERSION
from schemas.topics import TOPICS, Topic


def documents() -> dict[str, str]:
    """File names and texts."""
    files = {f"{file_stem(topic)}.v{SCHEMA_VERSION}.json": _text(json_schema(topic)) for topic in TOPICS}
    return {**files, "asyncapi.json": _text(asyncapi())}


def file_stem(topic: Topic) -> str:
    """`FraudScore` becomes `fraud_score`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", topic.message.__name__).lower()


def json_schema(topic: Topic) -> dict[str, Any]:
    """JSON Schema (2020-12) of a topic's message: as read for inputs, as written for outputs."""
    mode = "validation" if topic.direction == "in" else "serialization"
    schema = topic.message.model_json_schema(mode=mode)  # type: ignore[arg-type]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3.0 document of all topics, as seen by this application."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tidegate",
            "version": f"{SCHEMA_VERSION}.0.0",
            "description": "Fraud and churn scores from transactions. Messages are keyed by customer_id.",
        },
        "defaultContentType": "application/json",
        "channels": {
            topic.name: {
                "address": topic.name,
                "description": topic.meaning,
                "messages": {
                    topic.message.__name__: {"$ref": f"#/components/messages/{topic.message.__name__}"}
                },
                "bindings": {"kafka": {"topicConfiguration": dict(topic.config)}},
            }
            for topic in TOPICS
        },
        "operations": {
            re.sub(r"\W", "_", topic.name): {
                "action": "receive" if topic.direction == "in" else "send",
                "channel": {"$ref": f"#/channels/{topic.name}"},
            }
            for topic in TOPICS
        },
        "components": {
            "messages": {
                topic.message.__name__: {
                    "name": topic.message.__name__,
                    "title": topic.meaning,
                    "contentType": "application/json",
                    "payload": {
                        "schemaFormat": "application/schema+json;version=draft-2020-12",
                        "schema": {"$ref": f"./{file_stem(topic)}.v{SCHEMA_VERSION}.json"},
                    },
                }
                for topic in TOPICS
            }
        },
    }


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
