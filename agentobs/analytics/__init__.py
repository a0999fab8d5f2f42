"""Questions about what agents and routers did, each over a window of time.

A module answers one kind of question: it builds a statement without touching a database, runs it in
the caller's session, and returns frozen results whose fields name their units. Reads only, but
for `refresh_agent_scores`.

::

    recent_workflows    which there were
    traces              workflows as trees, with their decisions and critical paths
    trace_tree          the tree itself, without a database
    performance         what agents did, also by version
    router, decisions   the router over time; the slowest, and what the cache missed
    components          what the four components add to the confidence
    reliability         confidence against what came of it
    weights             weights of the components that would have been better
    handoff_graph       who hands over to whom
    user_feedback       what people said
    failures            what went wrong
    thresholds          alerts, with the rows behind them
    scores              the scores of definitions, brought up to date
    window, results     what bounds a question, what answers it
    frames              answers as tables of other libraries
"""

from __future__ import annotations

from agentobs.analytics.components import ComponentConfidence, confidence, select_confidence
from agentobs.analytics.decisions import (
    RepeatedRequest,
    SlowDecision,
    repeated_requests,
    select_repeated_requests,
    select_slowest,
    slowest,
)
from agentobs.analytics.failures import ErrorOfType, Errors, errors, select_errors
from agentobs.analytics.handoff_graph import (
    DeadEnd,
    Handoff,
    Handoffs,
    PingPong,
    handoffs,
    select_dead_ends,
    select_handoffs,
    select_ping_pongs,
)
from agentobs.analytics.performance import (
    AgentPerformance,
    AgentVersionPerformance,
    agent_versions,
    agents,
    select_agent_versions,
    select_agents,
)
from agentobs.analytics.recent_workflows import Workflow, select_workflows, workflows
from agentobs.analytics.reliability import (
    Calibration,
    GroupCalibration,
    Interval,
    ReliabilityBin,
    Verdict,
    calibration,
    select_calibration,
)
from agentobs.analytics.results import Result, Table
from agentobs.analytics.router import (
    RoutingBucket,
    RoutingSummary,
    routing,
    routing_summary,
    select_routing,
    select_routing_summary,
)
from agentobs.analytics.scores import RefreshedScores, refresh_agent_scores, update_agent_scores
from agentobs.analytics.thresholds import Alert, AlertThresholds, alerts
from agentobs.analytics.trace_results import FailedBranch, Trace, TraceDecision, TraceNode
from agentobs.analytics.trace_tree import Link
from agentobs.analytics.traces import session_traces, trace
from agentobs.analytics.user_feedback import (
    Correction,
    Feedback,
    FeedbackOfType,
    feedback,
    select_corrections,
    select_feedback,
)
from agentobs.analytics.weights import ROUTER_WEIGHTS, Weights, WeightSuggestion, suggest_weights
from agentobs.analytics.window import Window

__all__ = [
    "ROUTER_WEIGHTS",
    "AgentPerformance",
    "AgentVersionPerformance",
    "Alert",
    "AlertThresholds",
    "Calibration",
    "ComponentConfidence",
    "Correction",
    "DeadEnd",
    "ErrorOfType",
    "Errors",
    "FailedBranch",
    "Feedback",
    "FeedbackOfType",
    "GroupCalibration",
    "Handoff",
    "Handoffs",
    "Interval",
    "Link",
    "PingPong",
    "RefreshedScores",
    "ReliabilityBin",
    "RepeatedRequest",
    "Result",
    "RoutingBucket",
    "RoutingSummary",
    "SlowDecision",
    "Table",
    "Trace",
    "TraceDecision",
    "TraceNode",
    "Verdict",
    "WeightSuggestion",
    "Weights",
    "Window",
    "Workflow",
    "agent_versions",
    "agents",
    "alerts",
    "calibration",
    "confidence",
    "errors",
    "feedback",
    "handoffs",
    "refresh_agent_scores",
    "repeated_requests",
    "routing",
    "routing_summary",
    "select_agent_versions",
    "select_agents",
    "select_calibration",
    "select_confidence",
    "select_corrections",
    "select_dead_ends",
    "select_errors",
    "select_feedback",
    "select_handoffs",
    "select_ping_pongs",
    "select_repeated_requests",
    "select_routing",
    "select_routing_summary",
    "select_slowest",
    "select_workflows",
    "session_traces",
    "slowest",
    "suggest_weights",
    "trace",
    "update_agent_scores",
    "workflows",
]
