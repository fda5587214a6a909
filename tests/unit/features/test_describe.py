from features.catalogue import FEATURES, FEATURES_HASH
from features.describe import markdown, window


def test_document_has_a_row_for_every_feature_and_the_hash():
    lines = markdown(FEATURES).splitlines()

    assert f"{len(FEATURES)} features, declaration `{FEATURES_HASH}`." in lines
    for feature in FEATURES:
        row = f"| `{feature.name}` | {window(feature)} | {feature.unit} | {feature.meaning} |"
        assert lines.count(row) == 1


def test_document_has_one_section_for_each_category():
    headings = [line for line in markdown(FEATURES).splitlines() if line.startswith("## ")]

    assert len(headings) == len(set(headings)) == len({f.category for f in FEATURES})
    assert "## Category spend" in headings
