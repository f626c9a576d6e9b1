"""Turns generated requests into callbacks, and adds checks that schemathesis lacks.

A generated body can have any timestamp and nonce, but never the right signature, so without this module
all requests would be answered 401. Otherwise the generated data stays unchanged.
"""

import copy
import hashlib
import json
import os
import re
import time
from urllib.parse import parse_qsl

import requests
import schemathesis
from schemathesis.generation import GenerationMode
from schemathesis.generation.meta import CoverageScenario
from schemathesis.specs.openapi import checks

SECRET = os.environ["SECRET"]
BODY_LIMIT = int(os.environ["BODY_LIMIT"])

# The fields of a callback that is published, and of one that is only passed. The schema requires
# neither: any other signed callback is accepted as a dead letter.
GROUP_JOINED = {
    "event": "group_join",
    "group_id": "#team_42",
    "join_type": "Invited",
    "operator_account": "userA",
    "new_user_ids": ["userB", "userC"],
}
BEFORE_SEND_MSG = {"event": "before_send_msg"}

# The expected status of each case, if it is known.
expected = {}


def is_json(case):
    return case.media_type == "application/json"


def wire(case):
    """The bytes of the body, as they will be sent."""
    request = case.as_transport_kwargs(base_url="http://localhost")
    parts = ("method", "url", "headers", "data", "json", "files")
    body = requests.Request(**{part: request.get(part) for part in parts}).prepare().body or b""
    return body.encode() if isinstance(body, str) else body


def received(case):
    """The fields of the body as text, exactly as sent: a number is kept as its characters."""
    if is_json(case):
        return json.loads(wire(case), parse_int=str, parse_float=str)
    return dict(parse_qsl(wire(case).decode(), keep_blank_values=True))


def sign(body, fields):
    """Signs the body if possible. A signature that violates the schema is left unchanged."""
    generated = body.get("signature")
    parts = [SECRET, fields.get("timestamp"), fields.get("nonce")]
    if not isinstance(generated, str) or not re.fullmatch("[0-9A-Fa-f]{40}", generated):
        return
    if not all(isinstance(part, str) for part in parts):
        return
    joined = b"".join(sorted(part.encode() for part in parts))
    digits = hashlib.sha1(joined).hexdigest()
    # Upper and lower case are both valid; keep the case of the generated signature.
    pairs = zip(digits, generated)
    body["signature"] = "".join(digit.upper() if old.isupper() else digit for digit, old in pairs)


def write_digits(body):
    """1.0 is an integer in JSON Schema, but not for the service, which signs characters."""
    for name in ("timestamp", "nonce"):
        value = body.get(name)
        if isinstance(value, float) and value.is_integer():
            body[name] = int(value)


def freshen(body):
    """Sets a timestamp to now, in its type and unit. Leaves anything else unchanged."""
    old = body.get("timestamp")
    if isinstance(old, bool) or not isinstance(old, (str, int)):
        return
    units = {10: int(time.time()), 13: int(time.time() * 1000)}
    if re.fullmatch("[0-9]+", str(old)) and len(str(old)) in units:
        body["timestamp"] = type(old)(units[len(str(old))])


def complete(case, fields):
    for name, value in fields.items():
        is_list_of_form = isinstance(value, list) and not is_json(case)
        case.body[f"{name}[]" if is_list_of_form else name] = value


def begin_with_signed_fields(case):
    """A form is recognised by its beginning, and a schema cannot define the order of fields."""
    first = [name for name in ("appid", "timestamp", "nonce", "signature") if name in case.body]
    case.body = {name: case.body[name] for name in [*first, *case.body]}


def spoil(case, kwargs, kind):
    """Turns a valid callback into one that must be refused, if its kind is one of those.

    Returns the expected status."""
    if kind == 0:
        case.body["signature"] = case.body["signature"][::-1]
        return 401
    if kind == 1:
        case.body["padding"] = "x" * BODY_LIMIT
        return 413
    if kind == 2:
        kwargs["data"] = wire(case)[:-1] if is_json(case) else b"=&" + wire(case)
        return 400
    if kind == 3 and is_json(case):
        kwargs["data"] = wire(case)[:-1] + b', "nonce": "1"}'
        return 400
    if kind == 3:
        kwargs["data"] = wire(case) + b"&nonce=1"
        return 400
    if kind == 4:
        case.path += "/other"
        return 404
    if kind == 5:
        case.headers["Content-Encoding"] = "gzip"
        return 415
    if kind == 6:
        case.headers["X-Padding"] = "x" * (16 * 1024)
        return 431
    return None


def probe(case):
    """The scenario of a request that tries an undeclared method or Content-Type, else None.

    The built-in checks verify little of the answers to these."""
    scenario = getattr(case.meta.phase.data, "scenario", None)
    return scenario if scenario in checks.REQUEST_SHAPE_PROBES else None


@schemathesis.hook
def before_call(context, case, kwargs):
    if probe(case) == CoverageScenario.UNSPECIFIED_HTTP_METHOD:
        expected[case.id] = 405
        return
    if case.operation.method != "post" or not isinstance(case.body, dict):
        return
    # Generated bodies can share parts.
    case.body = copy.deepcopy(case.body)
    write_digits(case.body)
    if not is_json(case):
        begin_with_signed_fields(case)
    # By content, so that a repeated case is treated the same.
    kind = hashlib.sha256(repr((case.media_type, case.body)).encode()).digest()[0] % 16
    if kind != 7:
        freshen(case.body)
    if kind in (8, 9, 10):
        complete(case, GROUP_JOINED)
    if kind == 11:
        complete(case, BEFORE_SEND_MSG)
    sign(case.body, received(case))
    if case.meta.generation.mode.is_negative and not probe(case):
        return
    expected[case.id] = 413 if len(wire(case)) > BODY_LIMIT else 200
    refusal = spoil(case, kwargs, kind)
    if refusal:
        expected[case.id] = refusal
    if expected[case.id] != 200:
        # The schema does not describe this change, so schemathesis would still expect 200.
        case.meta.generation.mode = GenerationMode.NEGATIVE


@schemathesis.check
def answered_as_expected(ctx, response, case):
    """The exact status. The built-in checks only distinguish acceptance and refusal."""
    status = expected.get(case.id)
    assert status in (None, response.status_code), f"expected {status}, got {response.status_code}"


@schemathesis.check
def no_undeclared_header(ctx, response, case):
    """The built-in checks do not find a header that the schema does not declare."""
    answer = case.operation.responses.find_by_status_code(response.status_code)
    declared = {name.lower() for name, _ in answer.headers.items()} if answer else set()
    of_http = {"connection", "content-length", "content-type", "date", "transfer-encoding"}
    undeclared = set(response.headers) - declared - of_http
    assert not undeclared, f"{response.status_code} has undeclared headers: {undeclared}"


@schemathesis.check
def probes_are_answered_as_declared(ctx, response, case):
    """The answers to probes must be declared like all others."""
    tried, data = probe(case), case.meta.phase.data
    if not tried:
        return
    data.scenario = CoverageScenario.DEFAULT_POSITIVE_TEST
    try:
        checks.status_code_conformance(ctx, response, case)
        checks.content_type_conformance(ctx, response, case)
        checks.response_headers_conformance(ctx, response, case)
        checks.response_schema_conformance(ctx, response, case)
    finally:
        data.scenario = tried
