"""What the door remembers of vLLM's memory, and the lies that it keeps vLLM from."""

from __future__ import annotations

import pytest
from genrm_door.record import Refused
from genrm_door.vllm_memory import TAGS, VllmMemory

from tests.unit.door.support import TOKEN, Client, Engine, answer

AWAKE = {"paused": False, "released": [], "level": None}
SLEEPS = {"paused": True, "released": sorted(TAGS), "level": 1}


def told(*calls: tuple[str, str, int | None]) -> VllmMemory:
    """A memory after these calls went through: path, query, and how the engine answered."""
    memory = VllmMemory()
    for path, query, status in calls:
        order = memory.judge(path, query.encode(), b"", 0)
        assert order is not None
        memory.note(order, status)
    return memory


@pytest.mark.parametrize(
    ("calls", "document"),
    [
        ([], AWAKE),
        ([("/sleep", "", 200)], SLEEPS),
        ([("/sleep", "level=2&mode=abort", 200)], {"paused": True, "released": sorted(TAGS), "level": 2}),
        ([("/sleep", "level=0", 200)], {"paused": True, "released": [], "level": 0}),
        ([("/sleep", "level=0", 200), ("/sleep", "level=1", 200)], SLEEPS),
        ([("/sleep", "level=1", 200)] * 2, SLEEPS),
        ([("/sleep", "level=7", 400)], AWAKE),
        ([("/sleep", "", 200), ("/wake_up", "", 200)], AWAKE),
        ([("/sleep", "", 200), ("/wake_up", "tags=weights", 200)],
         {"paused": True, "released": ["kv_cache"], "level": 1}),
        ([("/sleep", "", 200), ("/wake_up", "tags=weights", 200), ("/wake_up", "tags=kv_cache", 200)], AWAKE),
        ([("/sleep", "", 200), ("/wake_up", "tags=weights&tags=kv_cache", 200)], AWAKE),
        ([("/sleep", "level=0", 200), ("/wake_up", "tags=scheduling", 200)], AWAKE),
        ([("/reset_prefix_cache", "", 500)], AWAKE),
        ([("/sleep", "", 500)], None),
        ([("/sleep", "", None)], None),
        ([("/sleep", "level=1.0", 200)], None),
        ([("/wake_up", "", 500), ("/wake_up", "", 200)], AWAKE),
        ([("/sleep", "", 500), ("/wake_up", "tags=weights", 200)], None),
        ([("/sleep", "", 500), ("/sleep", "", 200)], SLEEPS),
    ],
)  # fmt: skip
def test_the_memory_follows_the_calls(calls: list[tuple[str, str, int | None]], document: object) -> None:
    memory = told(*calls)
    assert memory.document() == document
    assert memory.asleep is (None if document is None else document != AWAKE)


@pytest.mark.parametrize(
    ("calls", "path", "query", "sentence"),
    [
        ([("/sleep", "level=1", 200)], "/sleep", "level=2", "the engine sleeps at level 1, and says yes to any other"),
        ([("/sleep", "level=2", 200)], "/sleep", "", "the engine sleeps at level 2"),
        ([("/sleep", "", 200), ("/wake_up", "tags=weights", 200)], "/wake_up", "tags=weights&tags=kv_cache",
         "weights is up already, and vLLM would wake nothing"),
    ],
)  # fmt: skip
def test_what_vllm_would_lie_about_is_refused(
    calls: list[tuple[str, str, int | None]], path: str, query: str, sentence: str
) -> None:
    memory = told(*calls)
    with pytest.raises(Refused, match=sentence):
        memory.judge(path, query.encode(), b"", 0)


async def test_the_document_shows_it_and_a_refused_call_does_not_reach_the_engine(
    client: Client, engine: Engine
) -> None:
    assert (await client.document())["memory"] == AWAKE
    assert (await client.post("/sleep", token=TOKEN, query=b"level=1")).status == 200
    assert (await client.document())["memory"] == {"paused": True, "released": ["kv_cache", "weights"], "level": 1}
    engine.calls.clear()
    assert (await client.post("/sleep", token=TOKEN, query=b"level=2")).status == 409
    assert engine.calls == []
    engine.paths["/wake_up"] = lambda scope, receive, send: answer(send, 500)
    await client.post("/wake_up", token=TOKEN)
    assert (await client.document())["memory"] is None
