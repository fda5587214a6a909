import json

import jsonschema
import pytest

from schemas.export import asyncapi, documents, file_stem, json_schema
from schemas.topics import TOPICS, TRANSACTIONS


def test_every_topic_has_a_schema_file_and_one_document_describes_all():
    names = set(documents())

    assert names == {f"{file_stem(topic)}.v1.json" for topic in TOPICS} | {"asyncapi.json"}
    assert "fraud_score.v1.json" in names


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_schema_is_a_valid_json_schema(topic):
    jsonschema.Draft202012Validator.check_schema(json_schema(topic))


@pytest.mark.parametrize("event_time", ["2026-03-01T09:30:00Z", 1_772_357_400_000])
def test_schema_accepts_a_time_in_both_forms(event_time):
    message = {
        "transaction_id": "1",
        "customer_id": "2",
        "event_time": event_time,
        "amount": 1,
        "currency": "EUR",
    }
    jsonschema.validate(message, json_schema(TRANSACTIONS))


def test_references_of_the_asyncapi_document_lead_somewhere():
    document, files = asyncapi(), documents()

    def references(part):
        if isinstance(part, dict):
            yield from ([part["$ref"]] if "$ref" in part else [])
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                yield from references(inner)

    for reference in references(document):
        if reference.startswith("./"):
            assert reference.removeprefix("./") in files
        else:
            found = document
            for step in reference.removeprefix("#/").split("/"):
                found = found[step]


def test_files_are_json_and_end_with_a_line_end():
    for text in documents().values():
        assert json.loads(text)
        assert text.endswith("}\n")
