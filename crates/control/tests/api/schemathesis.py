"""What Schemathesis must know of Swarm: who calls what, and which few calls would end the run. Used by schemathesis.rs."""

import atexit
import json
import os
import pathlib
import re
import threading

import schemathesis

FOLDER = pathlib.Path(os.environ["SWARM_SCHEMATHESIS"])
WORLD = json.loads((FOLDER / "world.json").read_text())
LOCK = threading.Lock()
# Operation -> status -> how often.
TALLY = {}
EXPENDABLE = list(WORLD["expendable_tokens"])
# What no refusal may hold: names of the program's types, files and parts.
INSIDE = re.compile(r"::|\b(struct|enum|serde|sqlite|postgres|sqlx|hyper|axum|tokio|rustls|panicked|unwrap)\b|\.rs\b|/(home|root|tmp|usr|var)/", re.IGNORECASE)


@schemathesis.check
def tells_nothing_of_the_inside(context, response, case):
    if response.status_code < 400 or not response.content:
        return
    problem = response.json()
    # What was sent may come back: it is theirs.
    told = problem["detail"] if isinstance(problem, dict) else response.text
    told = re.sub(r"`[^`]*`", "", told)
    assert not INSIDE.search(told), f"the refusal tells of the inside: {told}"


@schemathesis.auth(refresh_interval=None)
class Credentials:
    """The operator's token where only operators may act, else the tenant administrator's."""

    def get(self, case, context):
        operation = context.operation.definition.raw
        if "x-swarm-action" not in operation:
            return None
        if operation["operationId"] == "token_logout":
            # A logout ends its own token alone: each has one of its own, as long as there are any.
            with LOCK:
                return EXPENDABLE.pop() if len(EXPENDABLE) > 1 else EXPENDABLE[0]
        return WORLD["operator_token" if operation["x-swarm-action"] in WORLD["operator_actions"] else "member_token"]

    def set(self, case, data, context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schemathesis.hook
def map_case(context, case):
    """What was learnt from answers is used again: never to suspend or revoke the callers themselves."""
    parameters = case.path_parameters or {}
    for name, value in parameters.items():
        if case.operation.definition.raw["operationId"] in WORLD["ending"] and str(value).lower() in WORLD["kept"]:
            parameters[name] = WORLD["nobody"]
    return case


@schemathesis.hook
def after_call(context, case, response):
    operation = case.operation.definition.raw["operationId"]
    # Another method on the path is no call of this operation.
    if response.request.method != case.operation.method.upper():
        return
    with LOCK:
        statuses = TALLY.setdefault(operation, {})
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1


@atexit.register
def tell():
    (FOLDER / "tally.json").write_text(json.dumps(TALLY))
