import pytest

from tests.faults.mutations import MUTATIONS, ROOT, Mutation

DOCUMENT = (ROOT / "docs/reliability.md").read_text()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.guard)
def test_each_guard_stands_where_it_is_removed_and_has_its_test(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
    file, *_, name = mutation.test.split("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.guard)
def test_each_guard_is_in_the_table(mutation: Mutation) -> None:
    place = mutation.test.removeprefix("tests/").removeprefix("integration/").removeprefix("unit/stream_app/")
    assert f"| {mutation.guard} | `{place}` |" in DOCUMENT
