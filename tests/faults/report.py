"""Results of the fault tests, one file a row, and the table made of them.

python -m tests.faults.report docs/reliability.md
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.checker import Verdict

RESULTS = Path(os.environ.get("TIDEGATE_FAULT_RESULTS", ".tidegate/faults"))
BEGIN, END = "<!-- faults: written by `make faults` -->", "<!-- end of faults -->"


@dataclass
class Faults:
    """What a test did.

    Attributes:
        injected: How many times.
        resumed_s: From the end of each fault to progress of every partition, in seconds.
        note: What else was measured.
    """

    injected: int = 0
    resumed_s: list[float] = field(default_factory=list)
    note: str = ""


@dataclass
class Row:
    """One line of the table; `failed` where an invariant did not hold."""

    fault: str
    broker: str
    injected: int
    events: int
    lost: int
    doubled: int
    conflicting: int
    repeated: int
    resumed_s: float | None
    note: str
    failed: bool
    at: str
    conflicting_churn: int = 0

    @classmethod
    def of(cls, fault: str, faults: Faults, verdict: Verdict, broker: str) -> Row:
        return cls(
            fault=fault,
            broker=broker,
            injected=faults.injected,
            events=verdict.events,
            lost=verdict.lost,
            doubled=verdict.doubled,
            conflicting=verdict.conflicting,
            repeated=verdict.repeated,
            resumed_s=round(max(faults.resumed_s), 1) if faults.resumed_s else None,
            note=faults.note,
            failed=not verdict.clean,
            at=datetime.now(UTC).strftime("%Y-%m-%d"),
            conflicting_churn=verdict.conflicting_churn,
        )

    def write(self) -> None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        name = f"{self.broker} {self.fault}".lower().replace(" ", "-").replace("/", "-")
        (RESULTS / f"{name}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")

    def line(self) -> str:
        resumed = "" if self.resumed_s is None else f"{self.resumed_s:.1f}"
        cells = [self.fault, self.broker, self.injected, self.events, self.lost, self.doubled]
        cells += [self.conflicting, self.repeated, resumed, self.note]
        return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(rows: list[Row]) -> str:
    """The table and what it adds up to."""
    head = "| fault | broker | times | events | lost | doubled | conflicting | repeated | resumed after s | |"
    lines = [head, "| --- " * 10 + "|", *(row.line() for row in rows)]
    lost, doubled, conflicting = (
        sum(getattr(r, n) for r in rows) for n in ("lost", "doubled", "conflicting")
    )
    days = sorted({row.at for row in rows})
    said = f"{len(rows)} rows of {' to '.join(dict.fromkeys((days[0], days[-1])))}: "
    said += (
        f"{sum(r.injected for r in rows)} faults; lost {lost}, doubled {doubled}, conflicting {conflicting}; "
        f"churn scores that contradict each other {sum(r.conflicting_churn for r in rows)}."
    )
    return "\n".join([said, "", *lines])


def main(document: Path) -> int:
    """Put the table of all results into a document; returns the exit code."""
    rows = [Row(**json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json"))]
    if not rows:
        print(f"no results in {RESULTS}: run the fault tests first", file=sys.stderr)
        return 1
    text = document.read_text()
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    document.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}")
    print(f"{len(rows)} rows written to {document}")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
