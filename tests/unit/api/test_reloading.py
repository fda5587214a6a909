import asyncio
import shutil
from dataclasses import replace

import numpy as np
import pytest

from api.deps import Loaded, Services
from api.reloading import ModelReload
from models.in_use import ModelsInUse
from models.registry import ModelRegistry
from schemas.errors import ModelError
from tests.serving import NOW


@pytest.fixture
def kept(registry, models, tmp_path):
    shutil.copytree(registry._root, tmp_path / "models")
    mine = ModelRegistry(tmp_path / "models")
    mine.save(replace(models.fraud.card, slope=models.fraud.card.slope * 0.5), models.fraud.trees)
    mine.save(replace(models.fraud.card, features_hash="other"), models.fraud.trees)
    return mine


async def test_every_tenant_gets_what_is_promoted_and_keeps_it_when_the_next_is_refused(kept, engine):
    in_use = ModelsInUse(kept, engine, shadows=False)

    def load():
        refused = in_use.refresh().refused
        if refused is not None:
            raise refused
        return Loaded(in_use.current, None)

    tenants = [Services(None, in_use.current, None, lambda: NOW) for _ in range(2)]
    taken, refused = [], []
    reload = ModelReload(tenants, load, lambda m: taken.append(m.fraud.card.version), refused.append, 60.0)
    await reload.look()
    assert (taken, refused) == ([], [False])
    kept.promote("fraud", "v2")
    await reload.look()
    assert [given.models.fraud.card.version for given in tenants] == ["v2", "v2"]
    assert tenants[0].loaded_at == NOW
    kept.promote("fraud", "v3")
    await reload.look()
    await reload.look()
    assert [given.models.fraud.card.version for given in tenants] == ["v2", "v2"]
    assert (taken, refused) == (["v2"], [False, False, True, True])


async def test_who_scores_while_models_change_scores_with_one_whole_set(kept, engine, training_data):
    in_use = ModelsInUse(kept, engine, shadows=False)
    given = Services(None, in_use.current, None, lambda: NOW)
    X = training_data.X[:3].astype(float)
    right = {v: kept.load("fraud", engine.names, v).predict_proba(X) for v in ("v1", "v2")}

    def load():
        assert in_use.refresh().refused is None
        return Loaded(in_use.current, None)

    reload = ModelReload([given], load, lambda m: None, lambda r: None, 60.0)
    seen = set()
    done = asyncio.Event()

    async def requests():
        while not done.is_set():
            models = given.models
            proba = models.fraud.predict_proba(X)
            await asyncio.sleep(0)
            assert np.array_equal(proba, right[models.fraud.card.version])
            seen.add(models.fraud.card.version)

    asking = [asyncio.create_task(requests()) for _ in range(3)]
    for _ in range(5):
        kept.promote("fraud", "v2")
        await reload.look()
        kept.roll_back("fraud")
        await reload.look()
    done.set()
    await asyncio.gather(*asking)
    assert seen == {"v1", "v2"}


def test_without_models_there_is_no_api(tmp_path, engine):
    with pytest.raises(ModelError):
        ModelsInUse(ModelRegistry(tmp_path), engine, shadows=False)


async def test_models_that_one_tenant_was_told_to_take_are_shown_at_the_next_look(kept, engine):
    in_use = ModelsInUse(kept, engine, shadows=False)
    tenants = [Services(None, in_use.current, None, lambda: NOW) for _ in range(2)]
    taken = []

    def load():
        assert in_use.refresh().refused is None
        return Loaded(in_use.current, None)

    reload = ModelReload(tenants, load, lambda m: taken.append(m.fraud.card.version), lambda r: None, 60.0)
    kept.promote("fraud", "v2")
    tenants[0].models = load().models
    await reload.look()
    assert [given.models.fraud.card.version for given in tenants] == ["v2", "v2"]
    assert taken == ["v2"]
    await reload.look()
    assert taken == ["v2"]


async def test_the_look_goes_on_whatever_went_wrong_and_takes_what_can_be_used(kept, engine):
    in_use = ModelsInUse(kept, engine, shadows=False)
    given = Services(None, in_use.current, None, lambda: NOW)
    refused = []
    answers = [PermissionError("segments"), Loaded(in_use.current, None, ModelError("segments are damaged"))]

    def load():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    reload = ModelReload([given], load, lambda m: None, refused.append, 60.0)
    await reload.look()
    kept.promote("fraud", "v2")
    in_use.refresh()
    answers[0] = answers[0]._replace(models=in_use.current)
    await reload.look()
    assert given.models.fraud.card.version == "v2"
    assert refused == [True, True]
