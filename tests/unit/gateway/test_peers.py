"""Several gateways: each group meets at one of them, also when one dies."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
from genrm_gateway.catalog import FileCatalog
from genrm_gateway.peers import ranked
from genrm_scoring import spec_file
from genrm_scoring.targets import Means

from tests.unit.gateway.serving import EXACT, Gateway, fleet

GATEWAYS = [f"http://gateway-{number}:6009" for number in range(3)]
GROUPS = [f"prompt {number}" for number in range(300)]


def test_every_gateway_finds_the_same_one_and_groups_are_spread_evenly() -> None:
    first = Counter(ranked(GATEWAYS, group)[0] for group in GROUPS)
    assert all(ranked(GATEWAYS[::-1], group) == ranked(GATEWAYS, group) for group in GROUPS)
    assert min(first.values()) > 70


def test_who_is_gone_loses_its_own_groups_only() -> None:
    for group in GROUPS:
        before, after = ranked(GATEWAYS, group), ranked(GATEWAYS[:2], group)
        assert after == [gateway for gateway in before if gateway != GATEWAYS[2]]


async def opened() -> FileCatalog:
    return await FileCatalog.open(spec_file.checked([fleet("sums", EXACT)], "test"), Means())


async def ask(client: httpx.AsyncClient, gateway: Gateway, group: str, response: str, size: int) -> httpx.Response:
    body = {"solution_str": response, "prompt_str": group, "response_str": response, "ground_truth": "4"}
    return await client.post(f"{gateway.url}/get_reward2?group_size={size}", json=body)


async def test_members_that_ask_different_gateways_meet_and_none_is_lost_when_one_dies() -> None:
    gateways = [Gateway(opened) for _ in range(3)]
    urls = [gateway.url for gateway in gateways]
    for gateway in gateways:
        gateway.begin([url for url in urls if url != gateway.url])
    many = [f"prompt {number}" for number in range(300)]  # ports differ from run to run, and with them whose is which
    of_each = [[group for group in many if ranked(urls, group)[0] == url][:4] for url in urls]
    groups = [group for of_one in of_each for group in of_one]
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        early = [
            asyncio.create_task(ask(client, gateway, group, "4", 3)) for group in groups for gateway in gateways[:2]
        ]
        async with asyncio.timeout(30):
            while sum([await waiting(client, url) for url in urls]) < len(groups):
                assert not any(task.done() for task in early)
        await gateways[2].end(killed=True)
        late = [asyncio.create_task(ask(client, gateways[0], group, "5", 3)) for group in groups]
        replies = await asyncio.gather(*early, *late)
    assert Counter((reply.status_code, reply.json()["score"]) for reply in replies) == {(200, 1.0): 24, (200, 0.0): 12}
    for gateway in gateways:
        await gateway.end()


async def waiting(client: httpx.AsyncClient, url: str) -> int:
    """Groups that are not complete there."""
    page = (await client.get(f"{url}/metrics")).text
    return int(float(page.partition("\ngenrm_gateway_groups_waiting ")[2].partition("\n")[0]))
