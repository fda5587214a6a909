"""The demo's screen."""

from dataclasses import dataclass

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from harness.feed import Sent
from harness.watch import Seen

_COLOURS = {"block": "red", "review": "yellow", "high": "magenta", "medium": "cyan"}


@dataclass(slots=True)
class Screen:
    """Everything shown; built anew for each picture."""

    phase: str
    urls: dict[str, str]
    sent: Sent
    seen: Seen
    rate: float

    def __rich__(self) -> Group:
        return Group(self._head(), self._alerts(), self._risk(), self._links())

    def _head(self) -> Panel:
        latency = sorted(self.seen.latency_s[-5000:])
        shown = Text()
        shown.append(f"{self.phase}\n", style="bold")
        shown.append(
            f"in {self.sent.transactions:,}   scored {len(self.seen.scores):,}   {self.rate:,.0f} scores/s   "
            f"churn scores {self.seen.churn:,}   alerts {self.seen.alerts.total():,}   "
            f"dead letters {self.seen.dead_letters.total():,}"
        )
        if latency:
            shown.append(
                f"\npublish to score: p50 {_ms(latency, 0.5)}, p99 {_ms(latency, 0.99)} of {len(latency):,}"
            )
        return Panel(shown, title="Tidegate")

    def _alerts(self) -> Table:
        table = Table(title="Newest alerts", expand=True)
        for name in ("time", "customer", "severity", "score", "amount", "why"):
            table.add_column(name, no_wrap=name != "why")
        for alert in reversed(self.seen.recent_alerts):
            amount = f"{alert['amount']:,.2f} {alert['currency']}" if alert.get("amount") else ""
            table.add_row(
                alert["event_time"][:16].replace("T", " "),
                alert["customer_id"],
                Text(f"{alert['kind']} {alert['severity']}", style=_COLOURS[alert["severity"]]),
                f"{alert['score']:.2f}",
                amount,
                "; ".join(reason["text"] for reason in alert["reasons"][:3]),
            )
        return table

    def _risk(self) -> Table:
        table = Table(title="Customers most at risk of leaving", expand=True)
        for name in ("customer", "churn", "value at risk", "why"):
            table.add_column(name, no_wrap=name != "why")
        most = sorted(self.seen.at_risk.values(), key=lambda s: -s["value_at_risk"])[:5]
        for score in most:
            table.add_row(
                score["customer_id"],
                f"{score['churn_probability']:.0%} {score['band']}",
                f"{score['value_at_risk']:,.0f}",
                "; ".join(reason["text"] for reason in score["drivers"][:3]),
            )
        return table

    def _links(self) -> Text:
        return Text("   ".join(f"{name}: {url}" for name, url in self.urls.items()), style="dim")


def _ms(ordered: list[float], share: float) -> str:
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000:.0f} ms"
