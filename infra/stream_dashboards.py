"""Dashboards of operations and of the API."""

from infra.dashboard_panels import RATE, Dashboard, Panel, p99, stat

OPERATIONS = Dashboard(
    "tidegate-operations",
    "Tidegate: operations",
    [
        stat("Scored", "Transactions scored a second.", "tidegate:events_scored:rate1m", "eps"),
        stat(
            "Latency p99",
            "From the broker's timestamp to score published and state kept.",
            "tidegate:event_latency_seconds:p99_5m",
            "s",
            (1, 5),
        ),
        stat(
            "Oldest unscored",
            "Age of the oldest transaction that waits.",
            'tidegate:oldest_unprocessed_age_seconds:max{topic="transactions"}',
            "s",
            (30, 300),
        ),
        stat(
            "Dead letters",
            "Share of messages refused.",
            "tidegate:dead_letters:ratio_rate5m",
            "percentunit",
            (0.005, 0.02),
        ),
        stat(
            "Partitions without worker",
            "Partitions of the transactions topic whose lease nobody has.",
            "max(tidegate_partitions) - sum(tidegate_partitions_owned)",
            "short",
            (1, 1),
        ),
        stat(
            "Alerts firing",
            "Of Prometheus; each has a section in docs/runbooks.md.",
            'count(ALERTS{alertstate="firing"}) or vector(0)',
            "short",
            (1, 3),
        ),
        Panel(
            "Events",
            "What became of them.",
            [(f"sum by (outcome) (rate(tidegate_events_total[{RATE}]))", "{{outcome}}")],
            "eps",
        ),
        Panel(
            "Latency",
            "From the broker's timestamp to score published and state kept. Objective: 99 % within 1 s.",
            [
                ("tidegate:event_latency_seconds:p50_5m", "p50"),
                ("tidegate:event_latency_seconds:p99_5m", "p99"),
            ],
            "s",
            limits=(1, 5),
        ),
        Panel(
            "Lag",
            "Records in the log that are not processed.",
            [
                (
                    'sum by (topic, partition) (tidegate_lag_records{topic="transactions"})',
                    "{{topic}} {{partition}}",
                )
            ],
        ),
        Panel(
            "Age of the oldest unprocessed record",
            "By topic; labels wait for their transactions.",
            [("tidegate:oldest_unprocessed_age_seconds:max", "{{topic}}")],
            "s",
            limits=(30, 300),
        ),
        Panel(
            "Time by step",
            "Seconds a second that all workers spend in each step; publish and commit are waiting.",
            [(f"sum by (step) (rate(tidegate_step_seconds_sum[{RATE}]))", "{{step}}")],
            "s",
            stacked=True,
        ),
        Panel(
            "Time of a step",
            "Mean by step of one chunk.",
            [("tidegate:step_seconds:mean5m", "{{step}}")],
            "s",
        ),
        Panel(
            "Chunk size",
            "Mean records of one chunk: the busier, the larger.",
            [
                (
                    f"sum by (topic) (rate(tidegate_chunk_records_sum[{RATE}])) / "
                    f"sum by (topic) (rate(tidegate_chunk_records_count[{RATE}]))",
                    "{{topic}}",
                )
            ],
        ),
        Panel(
            "Histories found in the cache",
            "The rest is read from Redis.",
            [("tidegate:cache_hits:ratio_rate5m", "hits")],
            "percentunit",
        ),
        Panel(
            "Calls to Kafka and Redis",
            "p99 by call.",
            [(p99("tidegate_dependency_call_seconds", "dependency, call"), "{{dependency}} {{call}}")],
            "s",
        ),
        Panel(
            "Calls tried again",
            "A dependency is away or slow.",
            [(f"sum by (dependency) (rate(tidegate_retries_total[{RATE}]))", "{{dependency}}")],
            "ops",
        ),
        Panel(
            "Dead letters by reason",
            "Refused messages.",
            [(f"sum by (reason) (rate(tidegate_dead_letters_total[{RATE}]))", "{{reason}}")],
            "mps",
        ),
        Panel(
            "Messages published",
            "Acknowledged by the broker, by topic.",
            [(f"sum by (topic) (rate(tidegate_published_messages_total[{RATE}]))", "{{topic}}")],
            "mps",
        ),
        Panel(
            "Changes of leases",
            "acquired: a rebalance. fenced: a worker that was taken over. rolled_back: Redis lost writes.",
            [("sum by (change) (increase(tidegate_lease_changes_total[5m]))", "{{change}}")],
        ),
        Panel(
            "Partitions by worker",
            "Leases held.",
            [("tidegate_partitions_owned", "{{instance}}"), ("max(tidegate_partitions)", "all")],
        ),
        Panel(
            "Redis memory",
            "Used, and the limit where there is one.",
            [
                ("max(tidegate_redis_memory_bytes)", "used"),
                ("max(tidegate_redis_memory_limit_bytes)", "limit"),
            ],
            "bytes",
        ),
        Panel(
            "Redis state",
            "1 is yes. Persistence must be 1, may evict must be 0.",
            [
                ("min(tidegate_redis_up)", "answers"),
                ("min(tidegate_redis_append_only)", "append-only file"),
                ("min(tidegate_redis_persistence_ok)", "last write went well"),
                ("max(tidegate_redis_may_evict)", "may evict"),
                ("max(tidegate_redis_replicas)", "replicas"),
            ],
        ),
        Panel(
            "CPU",
            "Cores used by process.",
            [(f'rate(process_cpu_seconds_total{{job=~"tidegate.*"}}[{RATE}])', "{{job}} {{instance}}")],
        ),
        Panel(
            "Memory",
            "Resident, by process.",
            [('process_resident_memory_bytes{job=~"tidegate.*"}', "{{job}} {{instance}}")],
            "bytes",
        ),
        Panel(
            "Event loop delay",
            "p99 by worker: above half a second it has too little CPU.",
            [(p99("tidegate_loop_delay_seconds", "instance"), "{{instance}}")],
            "s",
            limits=(0.1, 0.5),
        ),
        Panel(
            "Event log behind",
            "All that was published so long ago is in event log and customer index.",
            [("max(tidegate_sink_behind_seconds)", "sink")],
            "s",
            limits=(60, 300),
        ),
        Panel(
            "Sink",
            "Rows written to the event log, and messages left out by reason.",
            [
                (f"sum(rate(tidegate_sink_rows_total[{RATE}]))", "rows"),
                (f"sum by (reason) (rate(tidegate_sink_skipped_total[{RATE}]))", "{{reason}}"),
            ],
            "eps",
        ),
        Panel(
            "Event time",
            "How far the newest event accepted is behind the clock, by partition.",
            [("time() - max by (partition) (tidegate_watermark_timestamp_seconds)", "{{partition}}")],
            "s",
        ),
    ],
)

API = Dashboard(
    "tidegate-api",
    "Tidegate: API",
    [
        stat("Requests", "A second.", "sum(tidegate:http_requests:rate1m)", "reqps"),
        stat(
            "Errors",
            "Share of requests that end with a server error.",
            "tidegate:http_errors:ratio_rate5m",
            "percentunit",
            (0.001, 0.01),
        ),
        stat(
            "Slowest route p99",
            "Time to answer.",
            "max(tidegate:http_request_seconds:p99_5m)",
            "s",
            (0.1, 0.25),
        ),
        stat(
            "In progress",
            "Requests that are being answered.",
            "sum(tidegate_http_requests_in_progress)",
            "short",
        ),
        Panel(
            "Requests by route",
            "A second.",
            [("sum by (route) (tidegate:http_requests:rate1m)", "{{route}}")],
            "reqps",
        ),
        Panel(
            "Requests by status",
            "A second.",
            [("sum by (status) (tidegate:http_requests:rate1m)", "{{status}}")],
            "reqps",
            stacked=True,
        ),
        Panel(
            "Time to answer",
            "p99 by route.",
            [("tidegate:http_request_seconds:p99_5m", "{{route}}")],
            "s",
            limits=(0.1, 0.25),
        ),
        Panel(
            "Redis reads",
            "p99 of the API's calls.",
            [
                (
                    "histogram_quantile(0.99, sum by (le, call) "
                    '(rate(tidegate_dependency_call_seconds_bucket{job="tidegate-api"}[5m])))',
                    "{{call}}",
                )
            ],
            "s",
        ),
        Panel(
            "CPU",
            "Cores used.",
            [(f'rate(process_cpu_seconds_total{{job="tidegate-api"}}[{RATE}])', "{{instance}}")],
        ),
        Panel(
            "Memory",
            "Resident.",
            [('process_resident_memory_bytes{job="tidegate-api"}', "{{instance}}")],
            "bytes",
        ),
    ],
)
