"""An API server that says what a test has it say, over real HTTP; and the world of the whole story."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiohttp import web
from genrm_operator.kube import Kube
from genrm_operator.metrics import Metrics
from kubernetes.aio import client

from tests.unit.operator.test_whole_story import Everything

Answer = Callable[[web.Request], web.StreamResponse]


def absent(_: web.Request) -> web.StreamResponse:
    """As the API server answers for a resource that it does not know."""
    return web.Response(status=404, text="404 page not found\n")


class Server:
    def __init__(self) -> None:
        self.answer: Answer = absent
        self.asked: list[str] = []
        self.metrics = Metrics()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        return self.answer(request)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Kube]]:
    made, app = Server(), web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kube = Kube(client.ApiClient(client.Configuration(host=url)), metrics=made.metrics)
    yield made, kube
    await kube.close()
    await runner.cleanup()


@pytest.fixture
def story() -> Iterator[Everything]:
    """Three models at rest; what happens to them is the test's affair."""
    story = Everything()
    story.begin(measurable=True)
    try:
        yield story
        story.nothing_broke()
    finally:
        story.world.close()
