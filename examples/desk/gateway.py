"""The gateway: HTTP in, by Flask, with the blocking client. `flask --app gateway run` serves it.

A client that sends its order again, after a broken connection, sends the same key: the order takes effect once.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from aegis_sdk import NotExecuted, OutcomeUnknown, Rejected, blocking
from contracts import PLACE, RESULT, Order
from flask import Flask, request

app = Flask("gateway")


@functools.cache
def aegis() -> blocking.Aegis:
    """Connected by the first request, in the process that serves it."""
    return blocking.connect(os.environ.get("AEGIS_URL", "nats://127.0.0.1:4222"), name="gateway")


@app.post("/orders")
def place() -> tuple[dict[str, Any], int]:
    order = Order.model_validate(request.json)
    key = request.headers.get("Idempotency-Key")
    try:
        filled = aegis().request(PLACE, order, resource=order.account, key=key, timeout_s=10.0)
    except Rejected as refused:
        return {"refused": refused.code, "why": str(refused)}, 422
    except NotExecuted as error:
        return {"not_executed": error.code}, 503
    except OutcomeUnknown as unknown:
        return {"unknown": unknown.request_id}, 504
    return filled.model_dump(mode="json"), 200


@app.get("/results/<account>")
def result(account: str) -> dict[str, Any]:
    found = aegis().read(RESULT, "", resource=account)
    return found.model_dump(mode="json") | {"total": str(found.total)}
