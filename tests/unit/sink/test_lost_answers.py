"""A sink whose database does what it is told, and whose answers are lost."""

import pytest

from infra.sink_store import SinkStore
from schemas.errors import DependencyError
from schemas.topics import FRAUD_SCORES
from tests.sinking import Broker, Deployment


@pytest.mark.parametrize("scored", [0, 4], ids=["offsets alone", "rows too"])
def test_a_commit_whose_answer_was_lost_is_done_and_the_sink_goes_on(tmp_path, monkeypatch, scored):
    broker, done, commit = Broker(), [], SinkStore.commit
    for number in range(scored):
        broker.score(f"t-{number}", broker.accept(f"t-{number}"))
    broker.log(FRAUD_SCORES.name).append(b"no score")

    def commit_and_lose_the_answer(store, change):
        commit(store, change)
        done.append(change)
        if done.count(change) == 1:
            raise DependencyError("the connection was cut")

    monkeypatch.setattr(SinkStore, "commit", commit_and_lose_the_answer)
    deployment = Deployment(tmp_path, broker)
    deployment.run()
    assert deployment.rows == [f"t-{number}" for number in range(scored)]
    assert deployment.store.offsets()[FRAUD_SCORES.name, 0] == scored + 1
    assert len(done) >= 2
    deployment.close()
