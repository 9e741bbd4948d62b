"""How large responses may be."""

from __future__ import annotations

import pytest

from polos.v1.run_service_pb2 import GetRunRequest
from polos_client.errors import InvalidRequest
from polos_client.wire import INPUT_LIMIT, RESULT_LIMIT
from polos_service.api.grpc.messages import result_limit
from polos_service.reading.details import RESULTS_LIMIT

GRPC_LIMIT = 4 * 1024 * 1024
"""Bytes of a message that gRPC takes by default."""


@pytest.mark.parametrize("include_input", [False, True])
def test_a_response_has_the_size_that_grpc_takes_by_default(*, include_input: bool) -> None:
    limit = result_limit(GetRunRequest(include_input=include_input))
    given = INPUT_LIMIT if include_input else 0
    assert limit + given + RESULTS_LIMIT <= GRPC_LIMIT - 512 * 1024


def test_who_names_a_limit_gets_it_up_to_the_largest() -> None:
    for include_input in (False, True):
        asked = GetRunRequest(max_result_bytes=5, include_input=include_input)
        assert result_limit(asked) == 5
        asked.max_result_bytes = 2**31 - 1
        assert result_limit(asked) == RESULT_LIMIT
        asked.max_result_bytes = -1
        with pytest.raises(InvalidRequest, match="-1"):
            result_limit(asked)
