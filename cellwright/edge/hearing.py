"""The hub's word as it comes over the line: bounded, and read as what an edge shall hold or not at all."""

from __future__ import annotations

import httpx

from cellwright.errors import HubError
from cellwright.hub.contract import Desired, told

MOST_BYTES = 64 << 20  # 200,000 versions


async def asked(client: httpx.AsyncClient, path: str, params: dict[str, str]) -> tuple[int, bytes]:
    """Status and body.

    Raises:
        httpx.HTTPError: the hub cannot be reached.
        HubError: the body is larger than any can be; it is cut off before it fills the memory.
    """
    content = bytearray()
    async with client.stream("GET", path, params=params) as answer:
        async for part in answer.aiter_bytes(65_536):
            content += part
            if len(content) > MOST_BYTES:
                raise HubError(f"the hub's answer has more than {MOST_BYTES} bytes; it was cut off")
    return answer.status_code, bytes(content)


def desired_of(content: bytes) -> Desired:
    """What an edge shall hold. Raises HubError where the answer is something else."""
    try:
        return told(Desired, content)
    except ValueError as error:
        raise HubError(f"the hub's answer is not what an edge shall hold ({error}); are both of one version?"[:500]) from error
