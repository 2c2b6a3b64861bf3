"""The routes of the lead pages over a store, without a server: who asks is said in a header."""

from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from annotation_ui.lead import lead_routes
from rlhf.feedback.store import Store
from rlhf.records import Annotator
from tests.feedback.makers import comparison, judgement

CAMPAIGN = "c"


def lead_client(store: Store, name: str = "lea", role: str = "lead") -> TestClient:
    """A client that asks as `name`; the guard, which finds that out, has tests of its own."""
    app = FastAPI()
    app.include_router(lead_routes(store))

    @app.middleware("http")
    async def say_who(request: Request, call_next):
        request.state.annotator, request.state.role = name, role
        return await call_next(request)

    return TestClient(app)


def make_campaign(store: Store, num_items: int = 3, *, raters=("ann", "bob"), **settings) -> None:
    """Campaign `c` with items i0, i1, ..., people to rate them, and lea, who leads."""
    store.create_campaign(CAMPAIGN, **settings)
    items = [comparison(f"i{index}", f"yes {index}", f"no {index}") for index in range(num_items)]
    store.add_comparisons(CAMPAIGN, items)
    for rater in raters:
        store.add_annotator(Annotator(name=rater))
    store.add_annotator(Annotator(name="lea", role="lead"))


def say(store: Store, item: str, annotator: str = "ann", **values):
    """Records a judgement; its row."""
    row = judgement(item, annotator, **values)
    store.record([row])
    return row
