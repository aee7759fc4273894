"""Orders that come too late: of a leader that was deposed, and for a server that has started anew since."""

from __future__ import annotations

import pytest

from tests.unit.door.support import TOKEN, Client, Engine


def epoch(*words: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((b"genrm-epoch", word) for word in words)


async def order(client: Client, path: str, *words: bytes) -> int:
    method, body = ("PUT", b'{"state": "serving"}') if path == "/genrm/door" else ("POST", b"")
    return (await client(method, path, token=TOKEN, body=body, headers=epoch(*words))).status


@pytest.mark.parametrize("path", ["/genrm/door", "/wake_up", "/reset_prefix_cache"])
async def test_a_deposed_leader_changes_nothing(client: Client, engine: Engine, path: str) -> None:
    assert await order(client, path) == 200  # nobody has said a number yet
    assert await order(client, path, b"7") == 200
    before = list(engine.calls), await client.document()
    assert before[1]["epoch"] == 7
    assert await order(client, path, b"6") == 409
    assert await order(client, path) == 409
    assert (list(engine.calls)[: len(before[0])], (await client.document())["ledger"]) == (
        before[0],
        before[1]["ledger"],
    )
    assert await order(client, path, b"7") == 200 and await order(client, path, b"8") == 200
    assert (await client.document())["epoch"] == 8


async def test_the_refusal_says_who_gives_the_orders(client: Client) -> None:
    await order(client, "/wake_up", b"8")
    refused = await client.post("/wake_up", token=TOKEN, headers=epoch(b"7"))
    assert refused.json()["error"] == "the leader of epoch 7 was deposed: epoch 8 gives the orders here"


@pytest.mark.parametrize("words", [(b"x",), (b"",), (b"-1",), (b"1", b"2"), (b"9" * 19,), ("\u0663".encode(),)])
async def test_an_epoch_that_is_no_number_is_refused(client: Client, words: tuple[bytes, ...]) -> None:
    assert await order(client, "/wake_up", *words) == 409
    assert (await client.document())["epoch"] is None


async def test_who_has_no_token_sets_no_epoch(client: Client) -> None:
    assert (await client.post("/wake_up", headers=epoch(b"99"))).status == 404
    assert (await client.document())["epoch"] is None


# -- for which boot


async def test_an_order_for_another_boot_changes_nothing(client: Client, engine: Engine) -> None:
    boot_id = (await client.document())["bootId"]
    for words in ((b"before",), (boot_id.encode(), b"before"), (b"",)):
        headers = (*epoch(b"7"), *((b"genrm-boot-id", word) for word in words))
        for method, path, body in (("PUT", "/genrm/door", b'{"state": "serving"}'), ("POST", "/wake_up", b"")):
            refused = await client(method, path, token=TOKEN, body=body, headers=headers)
            assert refused.status == 409 and f"this is boot {boot_id}" in refused.json()["error"]
    document = await client.document()
    assert (document["state"], document["epoch"], document["ledger"]) == ("closed", None, [])
    assert "/wake_up" not in str(engine.calls)
    headers = ((b"genrm-boot-id", boot_id.encode()),)
    assert (await client.post("/wake_up", token=TOKEN, headers=headers)).status == 200


async def test_reading_is_for_whoever_is_there(client: Client) -> None:
    headers = ((b"genrm-boot-id", b"before"),)
    assert (await client("GET", "/genrm/door", token=TOKEN, headers=headers)).status == 200
    assert (await client("GET", "/is_sleeping", token=TOKEN, headers=headers)).status == 200
