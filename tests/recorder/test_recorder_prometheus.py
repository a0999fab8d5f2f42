from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest

from agentobs.recorder.prometheus import RecorderCollector

if TYPE_CHECKING:
    from agentobs import Recorder


def _metrics(recorder: Recorder, **labels: str) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(RecorderCollector(recorder, **labels))
    lines = generate_latest(registry).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


def test_metrics_tell_what_became_of_each_kind_of_record(recorder: Recorder) -> None:
    decision = recorder.routing_decision(selected_agent="agent-debug")
    recorder.barrier()
    recorder.outcome(decision, success=True)
    recorder.barrier()

    metrics = _metrics(recorder)

    records = "agentobs_recorder_records_total"
    assert metrics[f'{records}{{kind="decision",state="accepted"}}'] == 1
    assert metrics[f'{records}{{kind="decision",state="written"}}'] == 1
    assert metrics[f'{records}{{kind="outcome",state="written"}}'] == 1
    assert metrics["agentobs_recorder_completeness"] == 1
    assert metrics["agentobs_recorder_pending"] == 0


def test_metrics_have_the_latencies_of_flushes_as_a_histogram(recorder: Recorder) -> None:
    recorder.routing_decision(selected_agent="agent-debug")
    recorder.barrier()

    metrics = _metrics(recorder)

    flushes = metrics["agentobs_recorder_flush_seconds_count"]
    assert flushes >= 1
    assert metrics['agentobs_recorder_flush_seconds_bucket{le="+Inf"}'] == flushes
    assert metrics["agentobs_recorder_flush_seconds_sum"] > 0


def test_metrics_have_the_labels_that_tell_recorders_apart(recorder: Recorder) -> None:
    recorder.routing_decision(selected_agent="agent-debug")

    metrics = _metrics(recorder, service="router")

    assert metrics['agentobs_recorder_cut_total{service="router"}'] == 0
    accepted = 'agentobs_recorder_records_total{kind="decision",service="router",state="accepted"}'
    assert metrics[accepted] == 1
