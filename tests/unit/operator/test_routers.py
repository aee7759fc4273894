"""Who is told of the pods that serve, when something is wrong with one of several routers."""

from __future__ import annotations

from genrm_operator.errors import EngineError
from genrm_operator.observed import SidePod
from genrm_operator.routers import Routers
from genrm_operator.trouble import Trouble


class Told(Routers):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    async def follow(self, pod: SidePod, token: str, wanted: list[str]) -> bool:
        if pod.name == "silent":
            raise EngineError(pod.name, "no answer")
        self.told.append(pod.name)
        return True


def router(name: str, trouble: Trouble | None = None) -> SidePod:
    return SidePod("rl", name, name, "judge", "10.0.0.1", ready=True, deleting=False, trouble=trouble)


async def test_what_ails_one_router_keeps_nothing_from_the_others() -> None:
    pods = [router("crashed", Trouble("EngineCrashed", "said nothing")), router("silent"), router("a"), router("b")]
    async with Told() as routers:
        found = await routers.follow_all(pods, "token", [])
        assert found == ("EngineCrashed", "pod crashed: said nothing") and routers.told == ["a", "b"]
        assert await routers.follow_all(pods[1:], "token", []) == (
            "RouterUnreachable",
            "silent: no answer; it is tried again",
        )
        assert await routers.follow_all(pods[2:], "token", []) is None
