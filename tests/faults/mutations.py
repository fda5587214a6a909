"""Removes each guard of the delivery protocol in a copy of the source and names the test that notices.

python -m tests.faults.mutations [WORD...]

With words, only the guards whose name has one of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ROOMS = (
    "schemas features models generator infra stream_app sink api harness cli tests pyproject.toml".split()
)
_TIMEOUT_S = 1800
_COMMITS = "tests/integration/history_stores/test_commits.py"
_HISTORIES = "tests/integration/history_stores/test_histories.py"
_PROCESSOR = "tests/unit/stream_app/test_processor.py"
_PASSES = "tests/unit/stream_app/test_passes.py"
_TRANSPORT = "tests/unit/stream_app/test_transport.py"
_RESUMPTION = "tests/unit/stream_app/test_resumption.py"
_WORKER = "tests/unit/stream_app/test_worker.py"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A guard, how to remove it, and the test that must fail without it."""

    guard: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        "fence: epoch and owner in the Function",
        "infra/functions.lua",
        "if held[1] ~= epoch or held[2] ~= owner then",
        "if false then",
        f"{_COMMITS}::test_an_earlier_lease_is_fenced_off_and_writes_nothing",
    ),
    Mutation(
        "owner token: the same epoch given out twice",
        "infra/functions.lua",
        "if held[1] ~= epoch or held[2] ~= owner then",
        "if held[1] ~= epoch then",
        "tests/integration/test_redis_history_store.py::test_an_epoch_given_out_twice_serves_its_last_owner_only",
    ),
    Mutation(
        "offset check in the Function",
        "infra/functions.lua",
        "if stored_next ~= args[4] then return 'ROLLED_BACK' end",
        "",
        f"{_COMMITS}::test_an_offset_that_the_store_is_not_at_is_a_rollback",
    ),
    Mutation(
        "a lost reply is taken for applied",
        "infra/functions.lua",
        "if stored_next == args[5] and stored_next ~= args[4] then return 'ALREADY_APPLIED' end",
        "",
        f"{_COMMITS}::test_the_same_commit_again_is_already_applied",
    ),
    Mutation(
        "length check of histories",
        "infra/functions.lua",
        "if redis.call('STRLEN', keys[k]) ~= tonumber(args[i]) then",
        "if false then",
        f"{_HISTORIES}::test_a_history_of_another_length_is_an_error_and_nothing_is_written",
    ),
    Mutation(
        "read fence: histories are read under the lease",
        "infra/history_store.py",
        "_require_same(lease, _text(answers[2]))",
        "pass",
        f"{_COMMITS}::test_histories_are_not_given_to_an_earlier_lease",
    ),
    Mutation(
        "publish before append",
        "stream_app/processor.py",
        "        failures |= await delivery.publish_all([(m.partition, m.outgoing) for m in members])\n",
        "        later = [(m.partition, m.outgoing) for m in members]\n",
        f"{_PROCESSOR}::test_publishing_comes_before_the_commit",
    ),
    Mutation(
        "tail of the output partition: not published again",
        "stream_app/partition.py",
        "return offset < self.published_upto.get(TRANSACTIONS.name, 0)",
        "return False",
        f"{_PROCESSOR}::test_scores_already_published_are_not_published_again",
    ),
    Mutation(
        "of several partitions in a pass, one that is fenced off is dropped",
        "stream_app/delivery.py",
        'failures[partition.number] = LeaseLost(f"partition {partition.number}")',
        "pass",
        f"{_PASSES}::test_partition_that_is_not_ours_any_more_takes_no_other_with_it[fenced]",
    ),
    Mutation(
        "a pass that was interrupted asks what is published",
        "stream_app/passes.py",
        "for partition in partitions if len(partitions) > 1 else ():",
        "for partition in ():",
        f"{_PASSES}::test_partition_that_is_taken_while_a_pass_waits_interrupts_all_and_nothing_is_lost",
    ),
    Mutation(
        "what Kafka does not take of one partition is tried alone",
        "stream_app/delivery.py",
        "            partition.alone = True\n",
        "",
        f"{_PASSES}::test_partition_whose_messages_kafka_does_not_take_is_tried_alone_and_holds_up_no_other",
    ),
    Mutation(
        "a pass waits for no partition that is locked",
        "stream_app/partition.py",
        "return self.alone or self.lock.locked() or not self.erasures_read",
        "return self.alone or not self.erasures_read",
        f"{_PASSES}::test_pass_does_not_wait_for_a_partition_that_is_locked",
    ),
    Mutation(
        "start rule: a commit without stored state",
        "stream_app/resumption.py",
        "if log.committed and not went_back:",
        "if False:",
        f"{_RESUMPTION}::TestStartRules::test_commit_without_stored_state_is_refused",
    ),
    Mutation(
        "a chunk that does not join the last one is sought for",
        "stream_app/resumption.py",
        "    if chunk.after > cursor:\n",
        "    if False:\n",
        f"{_RESUMPTION}::TestWhatIsLeftOfAChunk::test_chunk_that_jumps_is_sought_back_for",
    ),
    Mutation(
        "retention is noticed inside a chunk too",
        "stream_app/resumption.py",
        "if (missing := chunk.missing) is not None",
        "if (missing := chunk.after) < chunk.records[0].offset",
        f"{_RESUMPTION}::TestWhatIsLeftOfAChunk::test_retention_that_passed_what_waited_ends_it_too",
    ),
    Mutation(
        "a rebalance waits for the chunks that were begun",
        "stream_app/transport.py",
        "        await self._positions.release(revoked)\n",
        "",
        f"{_TRANSPORT}::test_revoked_partitions_are_not_sought_and_not_given_out",
    ),
    # Last: its kernel is compiled with the mutation, and would be again without it.
    Mutation(
        "duplicate check by transaction id",
        "features/engine.py",
        "status[e] = DUPLICATE",
        "status[e] = ACCEPTED",
        f"{_PROCESSOR}::test_duplicate_is_a_dead_letter_and_counts_once",
    ),
)


def main(words: Sequence[str] = ()) -> int:
    """Try every mutation and print a table; 0 where each was noticed."""
    wanted = [m for m in MUTATIONS if not words or any(word in m.guard for word in words)]
    with tempfile.TemporaryDirectory(prefix="tidegate-mutations-") as folder:
        copy = Path(folder)
        for room in _ROOMS:
            if (ROOT / room).is_dir():
                # With the compiled kernels beside the source, which are used where it is unchanged.
                shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("*.pyc"))
            else:
                shutil.copy(ROOT / room, copy / room)
        code, said = _run(copy, sorted({mutation.test for mutation in wanted}))
        if code != 0:
            print(f"the tests fail without a mutation (pytest's exit code {code})\n{said}", file=sys.stderr)
            return 2
        print("| guard removed | test that fails |\n| --- | --- |", flush=True)
        unnoticed = 0
        for mutation in wanted:
            unnoticed += not _is_noticed(copy, mutation)
        return int(unnoticed > 0)


def _is_noticed(copy: Path, mutation: Mutation) -> bool:
    path = copy / mutation.file
    before = path.read_text()
    if before.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.guard}: {mutation.file} has its text {before.count(mutation.old)} times")
    path.write_text(before.replace(mutation.old, mutation.new))
    if "later = " in mutation.new:
        # The publishing comes behind the commit instead.
        text = path.read_text()
        commit = "        failures |= await delivery.commit_all(commits)\n"
        path.write_text(text.replace(commit, f"{commit}        await delivery.publish_all(later)\n"))
    try:
        # 1: tests ran and some failed. Anything else is not what was asked, nor is a fixture that fails.
        code, said = _run(copy, [mutation.test])
        noticed = code == 1 and f"\nFAILED {mutation.test}" in said
    finally:
        path.write_text(before)
    if not noticed:
        print(f"{mutation.guard}: pytest's exit code {code}\n{said}", file=sys.stderr)
    print(f"| {mutation.guard} | {mutation.test if noticed else 'NONE'} |", flush=True)
    return noticed


def _run(copy: Path, tests: list[str]) -> tuple[int, str]:
    # The models are trained by the first run, which is without a mutation.
    environment = {**os.environ, "PYTHONPATH": str(copy), "TIDEGATE_TEST_MODELS": str(copy / "trained")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-m", "", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout[-4000:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
