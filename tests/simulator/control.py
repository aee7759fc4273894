"""The control API: how a test tells the simulator what its pods are, and asks what they saw. Loopback only.

GET    /pods           {address: {"state", "up", "asleep", "bootId", "served", "inside", "epoch", "held", "violations":
                       how many}}
GET    /collisions     [[address, address]]: pods whose memory was up together on the same GPUs
GET    /pods/<ip>      everything about one pod (`SimPod.to_json`); 404 if nobody ever spoke to it
PUT    /pods/<ip>      {"settings": {"tokenSha256", "clientKeySha256", "revision", "model", "engine", "weights",
                       "slot"}, "faults": {...}}, each part optional
DELETE /pods/<ip>      forget it: the next contact is a new boot
PUT    /pods/<ip>/hold {"call": "PUT serving" or "POST /sleep" or the like, "when": "before" or "after", "skip": 0}
DELETE /pods/<ip>/hold let go what is held
POST   /pods/<ip>/engine {"method": "POST", "path": "/sleep"}: call its engine past the door, as somebody in its
                       container could; answers {"status": 200}
"""

from __future__ import annotations

import ipaddress
import json

from tests.simulator.asgi import Receive, Scope, Send, answer_json, body_of, lifespan
from tests.simulator.faults import Faults
from tests.simulator.fleet import Fleet, PodSettings
from tests.simulator.holds import Hold, When


class Control:
    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        body = await body_of(receive)
        if scope["method"] == "POST" and scope["path"].startswith("/pods/") and scope["path"].endswith("/engine"):
            status, document = await self._past_the_door(scope["path"].split("/")[2], body)
        else:
            status, document = self.handle(scope["method"], scope["path"], body)
        await answer_json(send, status, document)

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        if method == "GET" and path == "/pods":
            return 200, {address: _summary(pod.to_json()) for address, pod in self.fleet.pods.items()}
        if method == "GET" and path == "/collisions":
            return 200, self.fleet.collisions
        if not path.startswith("/pods/"):
            return 404, {"error": "there is /pods, /pods/<ip>, /pods/<ip>/hold and /collisions"}
        word, slash, hold = path.removeprefix("/pods/").partition("/")
        try:
            address = str(ipaddress.ip_address(word))
            if slash:
                return self._hold(method, address, hold, body)
            if method == "PUT":
                return self._put(address, body)
        except (ValueError, KeyError) as error:
            return 400, {"error": str(error)}
        if method == "GET":
            pod = self.fleet.pods.get(address)
            return (200, pod.to_json()) if pod else (404, {"error": f"nobody spoke to {address} yet"})
        if method == "DELETE":
            return 200, {"forgotten": self.fleet.forget(address)}
        return 405, {"error": f"{method} is none of GET, PUT, DELETE"}

    async def _past_the_door(self, address: str, body: bytes) -> tuple[int, object]:
        if (pod := self.fleet.pods.get(address)) is None:
            return 404, {"error": f"nobody spoke to {address} yet"}
        call = json.loads(body)
        return 200, {"status": await pod.past_the_door(call["method"], call["path"])}

    def _hold(self, method: str, address: str, what: str, body: bytes) -> tuple[int, object]:
        if what != "hold":
            return 404, {"error": f"there is no /pods/<ip>/{what}"}
        if method == "PUT":
            document = json.loads(body)
            hold = Hold(str(document["call"]), When(document["when"]), int(document.get("skip", 0)))
            self.fleet.pod(address).hold = hold
            return 200, {"call": hold.call}
        if method == "DELETE":
            return 200, {"let go": self.fleet.let_go(address)}
        return 405, {"error": f"{method} is none of PUT, DELETE"}

    def _put(self, address: str, body: bytes) -> tuple[int, object]:
        document = json.loads(body or b"{}")
        if not isinstance(document, dict) or (unknown := sorted(set(document) - {"settings", "faults"})):
            raise ValueError(
                f"write an object with settings and faults, not {unknown if isinstance(document, dict) else document!r}"
            )
        pod = self.fleet.pods.get(address)
        before = pod.settings if pod else self.fleet.default
        settings = PodSettings.from_json(document["settings"], before) if "settings" in document else None
        faults = Faults.from_json(document["faults"]) if "faults" in document else None
        return 200, self.fleet.configure(address, settings, faults).to_json()


def _summary(document: dict[str, object]) -> dict[str, object]:
    violations = document["violations"]
    assert isinstance(violations, list)
    kept = (
        "state",
        "up",
        "asleep",
        "bootId",
        "served",
        "inside",
        "epoch",
        "held",
    )  # without a door there is less to tell
    short = {key: document[key] for key in kept if key in document}
    return {**short, "violations": len(violations)}
