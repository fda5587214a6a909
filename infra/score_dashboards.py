"""Dashboards of what is scored: fraud, churn, models."""

from infra.dashboard_panels import RATE, Dashboard, Panel, share, stat

FRAUD = Dashboard(
    "tidegate-fraud",
    "Tidegate: fraud",
    [
        stat(
            "Alert rate",
            "Share of transactions to review or block, last hour.",
            "tidegate:fraud_alerts:ratio_rate1h",
            "percentunit",
            (0.02, 0.05),
        ),
        stat(
            "Precision",
            "Of labelled transactions that the model would stop, the share that was fraud; 30 days.",
            "tidegate:fraud_precision:increase30d",
            "percentunit",
            (0.5, 0.25),
        ),
        stat(
            "Recall",
            "Of transactions labelled fraud, the share that the model would stop; 30 days.",
            "tidegate:fraud_recall:increase30d",
            "percentunit",
            (0.5, 0.25),
        ),
        stat(
            "Blocked, 1 h",
            "Transactions to block.",
            'sum(increase(tidegate_fraud_decisions_total{decision="block"}[1h]))',
            "short",
        ),
        stat(
            "To review, 1 h",
            "Transactions to review.",
            'sum(increase(tidegate_fraud_decisions_total{decision="review"}[1h]))',
            "short",
        ),
        stat(
            "Fraud labels, 1 h",
            "Labels that came.",
            'sum(increase(tidegate_labels_total{label="fraud"}[1h]))',
            "short",
        ),
        Panel(
            "Decisions",
            "Transactions by decision.",
            [(f"sum by (decision) (rate(tidegate_fraud_decisions_total[{RATE}]))", "{{decision}}")],
            "eps",
        ),
        Panel(
            "Alerts",
            "By kind and severity; what is only unusual is an anomaly.",
            [
                (
                    f'sum by (kind, severity) (rate(tidegate_alerts_total{{kind!="churn"}}[{RATE}]))',
                    "{{kind}} {{severity}}",
                )
            ],
            "eps",
        ),
        Panel(
            "Value at risk",
            "Sum of the amounts to review or block in an hour, by currency; nothing is converted.",
            [
                (
                    "sum by (decision, currency) (increase(tidegate_fraud_alerted_amount_total[1h]))",
                    "{{decision}} {{currency}}",
                )
            ],
        ),
        Panel(
            "Top reasons",
            "Features that are the first reason of most alerts, last hour.",
            [("topk(10, sum by (feature) (increase(tidegate_fraud_reasons_total[1h])))", "{{feature}}")],
            kind="bargauge",
        ),
        Panel(
            "Score distribution",
            "Share of scores at or below each bound.",
            share("tidegate_fraud_score"),
            "percentunit",
            kind="bargauge",
        ),
        Panel(
            "Labels",
            "By label and what the model in use decides of the transaction.",
            [("sum by (label, decision) (increase(tidegate_labels_total[1h]))", "{{label}}: {{decision}}")],
        ),
        Panel(
            "Late and repeated",
            "Late events are scored; repeated ones are refused.",
            [
                (
                    f"sum by (outcome) "
                    f'(rate(tidegate_events_total{{outcome=~"late|duplicate|forwarded"}}[{RATE}]))',
                    "{{outcome}}",
                )
            ],
            "eps",
            width=24,
        ),
    ],
)

CHURN = Dashboard(
    "tidegate-churn",
    "Tidegate: churn",
    [
        stat("Scored, 1 d", "Customers rescored.", "sum(increase(tidegate_churn_scores_total[1d]))", "short"),
        stat(
            "High band, 1 d",
            "Churn scores in the high band.",
            'sum(increase(tidegate_churn_scores_total{band="high"}[1d]))',
            "short",
        ),
        stat(
            "Churn alerts, 1 d",
            "Customers who moved up.",
            'sum(increase(tidegate_alerts_total{kind="churn"}[1d]))',
            "short",
        ),
        stat(
            "Drift",
            "Distance of the last day's distribution from that of two weeks.",
            "tidegate:churn_probability:drift",
            "percentunit",
            (0.1, 0.15),
        ),
        Panel(
            "Scores by band",
            "Recomputed churn probabilities.",
            [(f"sum by (band) (rate(tidegate_churn_scores_total[{RATE}]))", "{{band}}")],
            "eps",
        ),
        Panel(
            "Scores by cause",
            "An event of the customer, or the sweep over silent ones.",
            [(f"sum by (trigger) (rate(tidegate_churn_scores_total[{RATE}]))", "{{trigger}}")],
            "eps",
        ),
        Panel(
            "Movements",
            "Customers who changed band in a day.",
            [
                (
                    "sum by (before, after) (increase(tidegate_churn_moves_total[1d]))",
                    "{{before}} to {{after}}",
                )
            ],
        ),
        Panel(
            "Value at risk",
            "Yearly value times probability over the customers scored in a day, by band.",
            [("sum by (band) (increase(tidegate_churn_value_at_risk_total[1d]))", "{{band}}")],
        ),
        Panel(
            "Distribution",
            "Share of probabilities at or below each bound.",
            share("tidegate_churn_probability"),
            "percentunit",
            kind="bargauge",
        ),
        Panel(
            "Alerts",
            "By severity.",
            [('sum by (severity) (increase(tidegate_alerts_total{kind="churn"}[1d]))', "{{severity}}")],
        ),
    ],
)

MODELS = Dashboard(
    "tidegate-models",
    "Tidegate: models",
    [
        stat(
            "Fraud model's age",
            "Since it was trained.",
            'time() - max(tidegate_model_created_timestamp_seconds{name="fraud"})',
            "s",
            (30 * 86400, 45 * 86400),
        ),
        stat(
            "Churn model's age",
            "Since it was trained.",
            'time() - max(tidegate_model_created_timestamp_seconds{name="churn"})',
            "s",
            (30 * 86400, 45 * 86400),
        ),
        stat(
            "Versions in use",
            "Of the fraud model; more than one only during a roll-out.",
            'count(count by (version) (tidegate_model_info{name="fraud", role="champion"}))',
            "short",
            (2, 3),
        ),
        stat(
            "Fraud score drift",
            "Distance of the last hour's distribution from that of a week.",
            "tidegate:fraud_score:drift",
            "percentunit",
            (0.05, 0.1),
        ),
        stat(
            "Churn drift",
            "Distance of the last day's distribution from that of two weeks.",
            "tidegate:churn_probability:drift",
            "percentunit",
            (0.1, 0.15),
        ),
        stat(
            "Feature drift",
            "Largest change of a feature's unknown share.",
            "max(tidegate:feature_unknown:drift)",
            "percentunit",
            (0.1, 0.2),
        ),
        Panel(
            "Models in use",
            "By process.",
            [("tidegate_model_info", "{{name}} {{version}} {{role}} {{instance}}")],
            kind="table",
            width=24,
        ),
        Panel(
            "Quality when trained",
            "On held-back data.",
            [("max by (name, measure) (tidegate_model_quality)", "{{name}} {{measure}}")],
            kind="bargauge",
        ),
        Panel(
            "Thresholds",
            "Score from which a decision or band is given.",
            [("max by (name, decision) (tidegate_model_threshold)", "{{name}} {{decision}}")],
            "percentunit",
            kind="bargauge",
        ),
        Panel(
            "Score drift",
            "Kolmogorov-Smirnov distance, as far as the buckets show it.",
            [("tidegate:fraud_score:drift", "fraud"), ("tidegate:churn_probability:drift", "churn")],
            "percentunit",
            limits=(0.05, 0.1),
        ),
        Panel(
            "Unknown features",
            "Share of vectors in which a feature is unknown, last hour: the most.",
            [("topk(15, tidegate:feature_unknown:ratio_rate1h)", "{{feature}}")],
            "percentunit",
            kind="bargauge",
        ),
        Panel(
            "Changed features",
            "Change of the unknown share, last hour against a week: the most.",
            [("topk(15, tidegate:feature_unknown:drift)", "{{feature}}")],
            "percentunit",
            limits=(0.1, 0.2),
        ),
        Panel(
            "Moved features",
            "Population stability index of the newest events against training: the most.",
            [("topk(15, max by (feature) (tidegate_feature_psi))", "{{feature}}")],
            kind="bargauge",
            limits=(0.1, 0.25),
        ),
        Panel(
            "Moved scores",
            "Population stability index of the newest scores against training.",
            [("max by (name) (tidegate_score_psi)", "{{name}}")],
            limits=(0.1, 0.25),
        ),
        Panel(
            "Calibration",
            "Frauds reported for each that the scores promised, 30 days; 1 is right if all are reported.",
            [("tidegate:fraud_calibration:ratio30d", "reported to promised")],
            limits=(1.5, 2),
        ),
        Panel(
            "Frauds promised and reported",
            "By the size of the score, 30 days.",
            [
                ("sum by (score) (increase(tidegate_fraud_expected_total[30d]))", "promised, {{score}}"),
                ("sum by (score) (increase(tidegate_fraud_observed_total[30d]))", "reported, {{score}}"),
            ],
            kind="bargauge",
        ),
        Panel(
            "Precision and recall",
            "From labels; 30 days.",
            [
                ("tidegate:fraud_precision:increase30d", "precision"),
                ("tidegate:fraud_recall:increase30d", "recall"),
            ],
            "percentunit",
        ),
    ],
)
