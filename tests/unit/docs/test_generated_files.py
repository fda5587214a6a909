"""Files that are generated from code say what the code says."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from api.settings import ApiSettings
from cli.metrics import all_metrics
from cli.settings import all_settings
from features.attributes import BALANCES, attribute_features
from features.catalogue import FEATURES
from features.describe import attributes_markdown, entities_markdown, lifetime_markdown
from features.describe import markdown as features_markdown
from features.entity_features import ENTITY_FEATURES
from features.lifetime import LIFETIME
from infra.metrics_table import markdown as metrics_markdown
from infra.settings_table import markdown as settings_markdown
from schemas.export import documents
from sink.settings import SinkSettings
from stream_app.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", sorted(documents()))
def test_schema_file_is_what_the_models_say(name):
    assert (ROOT / "schemas" / "json" / name).read_text() == documents()[name], "run 'make generated'"


def test_no_schema_file_is_left_over():
    assert {path.name for path in (ROOT / "schemas" / "json").iterdir()} == set(documents())


def test_feature_document_is_what_the_declarations_say():
    balances = attributes_markdown(attribute_features(",".join(BALANCES)))
    entities = entities_markdown(ENTITY_FEATURES)
    expected = features_markdown(FEATURES) + lifetime_markdown(LIFETIME) + entities + balances
    assert (ROOT / "docs" / "features.md").read_text() == expected, "run 'make generated'"


def test_settings_document_is_what_the_classes_say():
    expected = settings_markdown(all_settings())
    assert (ROOT / "docs" / "settings.md").read_text() == expected, "run 'make generated'"


def test_metrics_document_is_what_the_declarations_say():
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_markdown(all_metrics()), (
        "run 'make generated'"
    )


def test_no_metric_can_name_a_customer():
    labels = {label for metric in all_metrics() for label in metric.labels}
    assert not labels & {"customer", "customer_id", "transaction_id", "device", "path", "key"}


def test_metrics_follow_the_naming_conventions():
    for metric in all_metrics():
        assert metric.name.startswith("tidegate_"), metric
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric
        assert metric.meaning.endswith("."), metric


def test_settings_of_the_same_name_have_the_same_default():
    for one, other in combinations((WorkerSettings, SinkSettings, ApiSettings), 2):
        for name in one.model_fields.keys() & other.model_fields.keys():
            assert one.model_fields[name].default == other.model_fields[name].default, name


def test_every_setting_and_feature_has_a_meaning():
    assert all(s.meaning for s in all_settings())
    assert all(f.meaning.endswith(".") and f.phrase for f in (*FEATURES, *ENTITY_FEATURES))


@pytest.mark.parametrize("path", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(path):
    text = (ROOT / path).read_text()
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]
    missing = [t for t in targets if not (ROOT / path).parent.joinpath(t).exists()]
    assert not missing
