"""The door: the ASGI middleware that every request to an engine meets first.

Deny by default. A route that `routes` does not list answers one constant 404, and so does an admin route without the
operator's token: from outside, the two cannot be told apart. Scoring passes while the door is `serving`, with a
client's key where keys are set; in any other state it is answered at once with 503, because a request to a sleeping
engine hangs. `/health` is answered here, from a check that is safe in every state: kubelet asks whether the engine
lives, not whether it is awake.

The door does not know tokens, only their SHA-256. It streams: bodies are never held or read, except the few bytes of a
`PUT /genrm/door` and of an admin call. What it passes is stamped with the revision and the boot id. State lives in the
instance, so one process can hold many doors (the engine simulator does). Errors of the engine go through untouched.
"""

from __future__ import annotations

import asyncio
import enum
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict

from genrm_door.device import product
from genrm_door.inner import Inner
from genrm_door.nvml import DeviceMemory, Meter, device_memory
from genrm_door.rebirth import Restart, restarter
from genrm_door.record import Record, Refused, State
from genrm_door.routes import ROUTES, Kind, canonical
from genrm_door.settings import Settings
from genrm_door.weights import Weights
from genrm_door.wire import (
    NOT_FOUND,
    App,
    Message,
    Receive,
    Scope,
    Send,
    again,
    answer,
    answer_json,
    digest_of,
    is_one_of,
    leadership,
    read,
    swallow,
    values,
    wanted_state,
    without_token,
)

__all__ = ["NOT_FOUND", "App", "Door", "Message", "Receive", "Scope", "Send", "Settings"]

MAX_CALL_CHARACTERS = 200
IDLE_POLL_SECONDS = 0.02
LEAVE_SECONDS = 0.05
"""Between the answer to who ended the engine and its end: so that the answer is on its way."""


class Who(enum.Enum):
    """Whose `Authorization` a request carries. Clients' keys are told apart only where the door was given some."""

    STRANGER = "stranger"
    CLIENT = "client"
    OPERATOR = "operator"


class Visit:
    """One scoring request inside: what is needed to cut it off."""

    __slots__ = ("answered", "cut", "task")

    def __init__(self) -> None:
        self.task = asyncio.current_task()
        self.answered = False
        """The client has the beginning of an answer."""
        self.cut = False

    def end(self) -> None:
        """Have the door answer in the engine's place; the engine hears of it as of a client that hung up."""
        if not self.cut and self.task is not None:
            self.cut = True
            self.task.cancel()


class Door:
    """One door in front of one engine's ASGI application. Starts `closed`, with a boot id of its own."""

    def __init__(
        self,
        app: App,
        settings: Settings | None = None,
        *,
        now: Callable[[], float] = time.time,
        boot_id: str | None = None,
        gpus: Callable[[], DeviceMemory | None] = device_memory,
        restart: Restart | None = None,
    ) -> None:
        self.app = app
        self._gpus = Meter(gpus)
        self._restart = restart or restarter(os.environ)
        self._leaves = False
        """The engine is about to end. Until it has, the door is closed: `gated` is who has nothing behind it."""
        self.settings = settings = Settings.from_env(os.environ) if settings is None else settings
        if settings.engine not in ROUTES:
            raise ValueError(f"GENRM_ENGINE is {settings.engine!r}: the door knows {', '.join(ROUTES)}")
        self.routes = ROUTES[settings.engine]
        self.memory = self.routes.memory()
        boot_id = boot_id or settings.boot_id or secrets.token_hex(8)
        weights = asdict(Weights.from_json(settings.weights)) if settings.weights else None
        self.record = Record(boot_id, settings.engine, settings.revision, weights=weights, device=product(), now=now)
        self.record.take_over(settings.remembered())
        self._stamp = [
            (b"genrm-revision", settings.revision.encode("latin-1", "replace")),
            (b"genrm-boot-id", self.record.boot_id.encode()),
        ]
        self._inner = Inner(app)
        self._visits: set[Visit] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise RuntimeError(f"the door does not know the protocol {scope['type']!r}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        kind = self.routes.table.get((scope["method"], path))
        tokens = values(scope, b"authorization")
        if kind is None or len(tokens) > 1 or not canonical(path, scope.get("raw_path")):
            return await answer(send, 404, NOT_FOUND)
        if kind is Kind.SCORING:
            return await self._score(tokens, scope, receive, send)
        if kind is Kind.OPEN:
            return await self.app(self._for_engine(scope, self._who(tokens)), receive, self._stamped(send))
        if kind is Kind.HEALTH:
            return await self._health(scope, send)
        if kind is Kind.SHOWN:
            return await self._show(scope, send)
        if kind is Kind.TERMINATE and is_one_of(digest_of(tokens), (self.settings.local_sha256,)):
            return await self._terminate(scope, send)
        if kind is Kind.TERMINATE or self._who(tokens) is not Who.OPERATOR:
            return await answer(send, 404, NOT_FOUND)
        try:
            if kind is not Kind.ADMIN_READ and scope["method"] != "GET":
                self.record.meant(values(scope, b"genrm-boot-id"))
                self.record.obey(leadership(values(scope, b"genrm-epoch")))
            if kind is Kind.DOOR:
                await self._door(scope, receive, send)
            elif kind is Kind.ADMIN_READ:
                await self.app(without_token(scope), receive, self._stamped(send))
            else:
                await self._admin(kind, scope, receive, send)
        except Refused as refused:
            await answer_json(send, 409, {"error": str(refused), "state": self.record.state.value})

    def _who(self, tokens: list[bytes]) -> Who:
        if not tokens:
            return Who.STRANGER
        digest = digest_of(tokens)
        if is_one_of(digest, (self.settings.token_sha256,)):
            return Who.OPERATOR
        return Who.CLIENT if is_one_of(digest, self.settings.client_key_sha256) else Who.STRANGER

    def _for_engine(self, scope: Scope, who: Who) -> Scope:
        """What was meant for the door ends at the door; any other `Authorization` is the engine's affair."""
        return scope if who is Who.STRANGER else without_token(scope)

    async def _score(self, tokens: list[bytes], scope: Scope, receive: Receive, send: Send) -> None:
        record, who = self.record, self._who(tokens)
        if who is Who.STRANGER and self.settings.client_key_sha256:
            said = {"error": "scoring needs a key of this reward model's clients: Authorization: Bearer <key>"}
            return await self._refuse(receive, send, 401, said, (b"www-authenticate", b"Bearer"))
        operator = who is Who.OPERATOR
        if record.state is not State.SERVING and not (operator and self._may_try()):
            state = record.state.value
            said = {"error": f"the door is {state}: ask another replica, or again later", "state": state}
            return await self._refuse(receive, send, 503, said, (b"retry-after", b"1"))
        # Nothing is awaited between the look at the state and here: admission and draining cannot cross.
        record.enter(operator=operator)
        self._visits.add(visit := Visit())
        try:
            await self.app(self._for_engine(scope, who), receive, self._stamped(send, visit))
        except asyncio.CancelledError:
            if not visit.cut:
                raise
            if visit.task is not None and hasattr(visit.task, "uncancel"):  # Python 3.11
                visit.task.uncancel()  # it was meant for the engine, not for the server's task
            if not visit.answered:  # else nothing but a broken connection tells the client that the rest is missing
                said = {"error": "cut off: the engine goes to sleep; ask another replica", "state": record.state.value}
                await answer_json(send, 503, said, (b"retry-after", b"1"), *self._closing())
        finally:
            self._visits.discard(visit)
            record.leave(operator=operator)

    async def _refuse(
        self, receive: Receive, send: Send, status: int, said: Mapping[str, str], header: tuple[bytes, bytes]
    ) -> None:
        if self.record.terminating:
            await swallow(receive)
        await answer_json(send, status, said, header, *self._closing())

    def _may_try(self) -> bool:
        """Whether the operator may score now though nobody else may. Where the engine cannot say that it sleeps, a
        request to a sleeper may be its end, so that what was released through the door counts."""
        if self._leaves:
            return False
        return self.record.state is State.CLOSED and (self.routes.asleep is not None or self.memory.asleep is False)

    async def _admin(self, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one call that changes the engine, alone, and remember how it ended."""
        self._refuse_what_comes_too_late()
        body = await read(receive)
        if body is None:
            return
        order = self.memory.judge(scope["path"], scope.get("query_string", b""), body, self.record.inside)
        if order is None:
            return await answer_json(send, 200, {"status": "done already"}, *self._stamp)
        call = f"{_call(scope)} {' '.join(sorted(order.tags)) if body else ''}".rstrip()
        if kind is Kind.ADMIN_SHUT and self.record.state is State.SERVING:
            raise Refused(f"{call} while the door is serving would shut the engine under its clients: drain first")
        with self.record.turn(call) as entry:
            if order.when_idle and not await self._is_idle(scope):
                entry.status = 409
                raise Refused(f"{call}: the engine still computes, although nobody is inside: ask again")
            stamped = self._stamped(send)

            def watched(message: Message) -> Awaitable[None]:
                if message["type"] == "http.response.start":
                    entry.status = message["status"]
                return stamped(message)

            try:
                await self.app(without_token(scope), again(body, receive), watched)
            except BaseException:
                entry.status = entry.status or 500
                raise
            finally:
                self.memory.note(order, entry.status)

    async def _is_idle(self, scope: Scope) -> bool:
        """Wait a while for the engine to finish what nobody waits for any more."""
        assert self.routes.idle is not None, "only who can be asked depends on it"
        now = asyncio.get_running_loop().time
        end = now() + self.settings.idle_seconds
        while (left := end - now()) > 0:
            got = await self._inner.ask(scope, self.routes.idle, left)
            if got is not None and got[0] == 200:
                return True
            await asyncio.sleep(IDLE_POLL_SECONDS)
        return False

    async def _terminate(self, scope: Scope, send: Send) -> None:
        """The pod's own preStop hook: no new clients (with `?admit=1`: none after this moment's), and who is inside."""
        record = self.record
        record.terminate(admit=scope.get("query_string", b"") == b"admit=1")
        await answer_json(send, 200, {"state": record.state.value, "inside": record.inside}, *self._closing())

    async def _show(self, scope: Scope, send: Send) -> None:
        """Answer with the fields of the engine's document that the route lists, whatever else it may tell."""
        got = await self._inner.ask(scope, scope["path"], self.settings.health_seconds)
        try:
            document = json.loads(got[1]) if got is not None and got[0] == 200 else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            return await answer_json(send, 502, {"error": f"{scope['path']}: the engine does not answer"})
        shown = {name: document[name] for name in self.routes.shown[scope["path"]] if name in document}
        await answer_json(send, 200, shown, *self._stamp)

    async def _door(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "PUT":
            body = await read(receive)
            if body is None:
                return
            try:
                state = wanted_state(body)
            except ValueError as error:
                return await answer_json(send, 400, {"error": str(error), "state": self.record.state.value})
            await self._set(state, scope)
            if state is State.DRAINING and scope.get("query_string", b"") == b"cut=1":
                self._cut_off()
        word = await self._engine_sleeps(scope, self.settings.word_seconds)
        asked = scope["method"] == "GET" and scope.get("query_string", b"") == b"memory=1"
        found = await self._device_memory() if asked else None
        if asked and self.record.running is None:  # an order that goes on makes of the word what it was
            self.record.measured(None if found is None else found.used, word)
        document = self.record.document(word, self.memory.document())
        if asked:
            document["deviceMemory"] = None if found is None else found._asdict()
        await answer_json(send, 200, document, *self._stamp)

    async def _device_memory(self) -> DeviceMemory | None:
        """None also where the driver takes too long: it may, when a GPU is in trouble, and nobody else must wait."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self._gpus.read()), self.settings.word_seconds)
        except asyncio.TimeoutError:
            return None

    async def _set(self, state: State, scope: Scope) -> None:
        """Change the state. Shutting acts at once, always; opening waits for nobody, and never opens on a sleeper."""
        record = self.record
        if self._leaves and state is State.GATED:
            return
        self._refuse_what_comes_too_late()
        record.check(state)
        if state is record.state:
            return
        call = f"PUT {state.value}"
        if state is State.GATED:
            return self._leave(call)
        if state in (State.CLOSED, State.DRAINING):
            record.state = state
            record.note(call, 200)
            return
        with record.turn(call) as entry:
            entry.status = 409
            before = record.state
            if state is State.SERVING:
                word = await self._engine_sleeps(scope, self.settings.opening_seconds)
                if word is None:
                    raise Refused("the engine does not say whether it sleeps: the door serves when it does")
                if word:
                    raise Refused("the engine says that it sleeps: wake it before the door serves")
            if record.state is not before:
                raise Refused(f"the door was set to {record.state.value} meanwhile")
            record.state = state
            if state is State.SERVING:
                record.night = None
            entry.status = 200

    def _leave(self, call: str) -> None:
        """End the engine, a moment from now, and be back at the gate."""
        if self._restart is None:
            raise Refused("no launcher started this engine, so that nobody would start it again: replace the pod")
        if self.record.inside:
            raise Refused(f"{self.record.inside} requests are inside: wait until nobody is, or end them first")
        with self.record.turn(call) as entry:
            entry.status = 200
            self.record.state, self._leaves = State.CLOSED, True
        asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._restart, self.record.hand_over())

    def _refuse_what_comes_too_late(self) -> None:
        if self._leaves:
            raise Refused("the engine ends: its container goes back to the gate")

    def _cut_off(self) -> None:
        """End what is inside: the drain has taken as long as it may.

        Raises:
            Refused: the engine would go on with it unseen, and not survive a sleep meanwhile (SGLang, whose scheduler
                finishes a batch that nobody waits for).
        """
        if self.routes.asleep is None:
            raise Refused("this engine does not let go of a request that was ended: wait until it is done")
        if self._visits:
            self.record.note(f"cut off {len(self._visits)}", 200)
        for visit in self._visits:
            visit.end()

    async def _health(self, scope: Scope, send: Send) -> None:
        if self.routes.asleep is None and self.memory.asleep is None:
            # Nothing but a new start clears this up, and the kubelet gives one to who does not live.
            lost = {"engine": "lost: a call failed, and nobody knows what memory it holds"}
            return await answer_json(send, 503, {**lost, "state": self.record.state.value})
        got = await self._inner.ask(scope, self.routes.alive, self.settings.health_seconds)
        if got is not None and got[0] == 200:
            return await answer_json(send, 200, {"engine": "alive", "state": self.record.state.value})
        said = "says nothing" if got is None else f"answers {got[0]}"
        await answer_json(send, 503, {"engine": said, "state": self.record.state.value})

    async def _engine_sleeps(self, scope: Scope, seconds: float) -> bool | None:
        """The engine's own word on whether it sleeps; None if it has none or does not say in time."""
        if self.routes.asleep is None:
            return self.memory.asleep
        got = await self._inner.ask(scope, self.routes.asleep, seconds)
        if got is None or got[0] != 200:
            return None
        try:
            word = json.loads(got[1])["is_sleeping"]
        except (ValueError, KeyError, TypeError):
            return None
        return word if isinstance(word, bool) else None

    def _stamped(self, send: Send, visit: Visit | None = None) -> Send:
        def stamped(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                if visit is not None:
                    visit.answered = True
                message = {**message, "headers": [*message.get("headers", ()), *self._stamp, *self._closing()]}
            return send(message)

        return stamped

    def _closing(self) -> tuple[tuple[bytes, bytes], ...]:
        """A pod that ends tells its clients not to come back over the same connection: it outlives every Service."""
        return ((b"connection", b"close"),) if self.record.terminating else ()


def _call(scope: Scope) -> str:
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{scope['method']} {scope['path']}{'?' if query else ''}{query}"[:MAX_CALL_CHARACTERS]
