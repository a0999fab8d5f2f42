"""The statistics of a recorder as metrics of Prometheus, made when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentobs.errors import MissingExtraError
from agentobs.recorder.statistics import LATENCY_BOUNDS, SETTLED, TURNED_AWAY

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingExtraError("prometheus", "Metrics of a recorder") from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from agentobs.recorder.recorder import Recorder
    from agentobs.recorder.statistics import Statistics

_PREFIX = "agentobs_recorder"
_BY_KIND = ("accepted", *SETTLED, *TURNED_AWAY, "replayed")
_COUNTERS = {
    "sanitised": "Values that were replaced by ones that PostgreSQL stores",
    "cut": "Contexts and texts that were shortened",
    "orphaned": "Rows that were written without their parent, which never came",
    "unspooled": "Records that could not be written to the spool",
    "damaged": "What could not be read of a spool",
    "retried": "Batches that were sent again",
    "reconnected": "Connections that were opened again",
}
_GAUGES = {
    "pending": "Records that are accepted and not settled",
    "buffer_rows": "Records in the buffer",
    "buffer_bytes": "Bytes of records in the buffer",
    "held_rows": "Records that wait for rows of other processes",
    "held_bytes": "Bytes of records that wait for rows of other processes",
    "open_runs": "Runs that have begun and not ended",
    "spool_bytes": "Bytes of records in the spool",
    "completeness": "Share of the records that are, or will be, in the database",
}


class RecorderCollector(Collector):
    """What a registry asks: `REGISTRY.register(RecorderCollector(recorder))`.

    `labels` tell one recorder of a process from another.
    """

    def __init__(self, recorder: Recorder, **labels: str) -> None:
        self._recorder = recorder
        self._names, self._values = tuple(labels), tuple(labels.values())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        statistics = self._recorder.statistics()
        yield self._records(statistics)
        for name, words in _COUNTERS.items():
            counter = CounterMetricFamily(f"{_PREFIX}_{name}", words, labels=self._names)
            counter.add_metric(self._values, getattr(statistics, name))
            yield counter
        for name, words in _GAUGES.items():
            gauge = GaugeMetricFamily(f"{_PREFIX}_{name}", words, labels=self._names)
            gauge.add_metric(self._values, getattr(statistics, name))
            yield gauge
        yield self._flushes(statistics)

    def _records(self, statistics: Statistics) -> Metric:
        names = (*self._names, "state", "kind")
        family = CounterMetricFamily(
            f"{_PREFIX}_records", "Records by what became of them", labels=names
        )
        for state in _BY_KIND:
            for kind, number in getattr(statistics, state).items():
                family.add_metric((*self._values, state, kind), number)
        return family

    def _flushes(self, statistics: Statistics) -> Metric:
        family = HistogramMetricFamily(
            f"{_PREFIX}_flush_seconds", "How long flushes took", labels=self._names
        )
        buckets, total = [], 0
        for bound in (*LATENCY_BOUNDS, float("inf")):
            total += statistics.flush_latencies.get(bound, 0)
            buckets.append((f"{bound:g}" if bound < float("inf") else "+Inf", total))
        family.add_metric(self._values, buckets, sum_value=statistics.flush_seconds)
        return family
