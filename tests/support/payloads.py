"""Parts of events that tests of the client share."""

from __future__ import annotations

from polos.v1 import event_pb2 as pb
from polos.v1.error_pb2 import FailureReason

CALL = pb.ToolCall(id="c1", name="add", arguments_json='{"a": 1}')
LONG_CALL = pb.ToolCall(
    id="c1", name="add", long_arguments=pb.LongArguments(step_key="llm:1", call=2)
)
USAGE = pb.Usage(input_tokens=2, output_tokens=3, total_tokens=5, cache_read_input_tokens=0)
FAILURE = pb.StepFailure(
    message="boom", reason=FailureReason.FAILURE_REASON_TOOL_FAILED, retryable=True
)
