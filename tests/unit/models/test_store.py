"""One suite for every place that models are kept in."""

import json

import pytest

from models.roles import Roles
from models.store import FileModelStore, VersionTaken
from schemas.errors import ModelError


@pytest.fixture(params=["files", "mlflow"])
def store(request, tmp_path, monkeypatch):
    if request.param == "files":
        return FileModelStore(tmp_path / "models")
    # In no lock file: whoever uses MLflow installs it.
    pytest.importorskip("mlflow")
    from infra.mlflow_store import MlflowModelStore

    monkeypatch.chdir(tmp_path)
    return MlflowModelStore(f"sqlite:///{tmp_path}/mlflow.db")


FILES = {"card.json": b"{}", "trees.ubj": bytes(range(256))}


def test_what_is_put_is_read_back(store):
    assert store.versions("fraud") == []
    assert store.roles("fraud") == Roles()
    for number in (1, 2):
        version = store.next_version("fraud")
        assert version == f"v{number}"
        store.put("fraud", version, FILES)
    assert store.versions("fraud") == ["v1", "v2"]
    assert store.versions("churn") == []
    assert {file: store.read("fraud", "v2", file) for file in FILES} == FILES
    for missing in (("fraud", "v9", "card.json"), ("fraud", "v1", "other"), ("churn", "v1", "card.json")):
        with pytest.raises(OSError, match=r"."):
            store.read(*missing)
    # Not as a store that does not answer: who can do without the file asks for it.
    with pytest.raises(FileNotFoundError):
        store.read("fraud", "v1", "other")


def test_a_version_is_given_out_once(store):
    store.put("fraud", "v1", FILES)
    with pytest.raises(VersionTaken):
        store.put("fraud", "v1", {"card.json": b"other"})
    assert store.read("fraud", "v1", "card.json") == b"{}"
    assert store.versions("fraud") == ["v1"]
    # And the next that is asked for can be had.
    version = store.next_version("fraud")
    store.put("fraud", version, FILES)
    assert store.versions("fraud") == ["v1", version]


def test_roles_are_kept_as_a_whole(store):
    for _ in range(3):
        store.put("fraud", store.next_version("fraud"), FILES)
    for roles in (
        Roles("v1"),
        Roles("v2", "v1", 0.25, ("v3",), ("v1",)),
        Roles("v3", former=("v1", "v2")),
    ):
        store.assign("fraud", roles)
        assert store.roles("fraud") == roles
    assert store.roles("churn") == Roles()


def test_the_place_has_no_password(store):
    assert "fraud" in store.where("fraud", "v1")


def test_roles_that_are_none_name_the_file(tmp_path):
    store = FileModelStore(tmp_path)
    (tmp_path / "fraud").mkdir()
    for broken in ("{", "[]", '{"champion": 3}', '{"champion": "v1", "challenger": "v2", "share": 2}'):
        (tmp_path / "fraud" / "roles.json").write_text(broken)
        with pytest.raises(ModelError, match=r"roles\.json cannot be read"):
            store.roles("fraud")


def test_a_champion_of_an_earlier_version_is_still_one(tmp_path):
    store = FileModelStore(tmp_path)
    store.put("fraud", "v1", FILES)
    (tmp_path / "fraud" / "champion").write_text("v1\n")
    assert store.roles("fraud") == Roles("v1")
    store.assign("fraud", store.roles("fraud").promoted("v2"))
    assert json.loads((tmp_path / "fraud" / "roles.json").read_text())["former"] == ["v1"]
