"""What the doctor wants to know of Redis, read in one visit with commands that cost the same on any server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from seawall.cache.client import Client
from seawall.cache.limiter import PREFIX
from seawall.cache.link import Reply
from seawall.cache.meter import info
from seawall.cache.setting import Settings, target
from seawall.kernel.error import Unavailable

SAMPLE = 32
"""Keys that are looked at: a neighbour that has a tenth of all is overlooked once in thirty."""


async def examined(settings: Settings, *, timeout_s: float) -> Mapping[str, str]:
    """``maxmemory``, ``maxmemory_policy``, ``slowlog-log-slower-than`` (microseconds; missing when the server doesn't
    say), and how many of ``sampled`` keys are ``foreign``.

    Raises:
        Unavailable: No answer; the reason names no secret.
    """
    client = Client(settings, target(settings.url), name="seawall-doctor")
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(client)
    except (OSError, TimeoutError) as error:
        why = str(error) or "no answer in time"
        raise Unavailable(f"Redis {target(settings.url).shown}", why) from error
    finally:
        await client.close()


async def _read(client: Client) -> dict[str, str]:
    memory = info(await client.ask("INFO", "memory"))
    found = {name: value for name, value in memory.items() if name in ("maxmemory", "maxmemory_policy")}
    try:
        match await client.ask("CONFIG", "GET", "slowlog-log-slower-than"):
            case [bytes(name), bytes(value)]:
                found[name.decode()] = value.decode()
    except Unavailable:
        pass  # managed servers keep their configuration to themselves
    keys: list[Reply] = [await client.ask("RANDOMKEY") for _ in range(SAMPLE)]
    sampled = [key for key in keys if isinstance(key, bytes)]
    found["sampled"] = str(len(sampled))
    found["foreign"] = str(sum(not key.startswith(PREFIX) for key in sampled))
    return found
