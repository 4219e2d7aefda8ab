"""What S3's wiring reads and writes: policies' statements, and a bucket's notification document.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-event-types-and-destinations.html
"""

from __future__ import annotations

import fnmatch
import json
import re
from typing import Any
from urllib.parse import quote_plus, unquote_plus

EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*", "s3:ObjectRestore:*")
"""What items depend on. What a lifecycle deletes is no ``ObjectRemoved``."""
DETAILS = ("Object Created", "Object Deleted", "Object Restore Completed", "Object Restore Expired")
"""The same, in EventBridge's words."""
KINDS = {
    "QueueConfigurations": "QueueArn",
    "LambdaFunctionConfigurations": "LambdaFunctionArn",
    "TopicConfigurations": "TopicArn",
}
"""Lists of a notification document, and the field that says where an entry sends to."""
BRIDGE = "EventBridgeConfiguration"
_ENCODED = re.compile(r"[A-Za-z0-9!_.*'()/%+-]*")
"""Values of filters that S3 compares with keys: characters that are safe in a key, and escapes."""

Json = dict[str, Any]


def parsed(text: Any) -> Any:
    """What is in a text of JSON; None where it is none."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None


def policy_of(holder: Json) -> Json:
    """The policy among the attributes of a queue or a function; empty where there is none."""
    told = parsed(holder.get("Policy"))
    return told if isinstance(told, dict) else {}


def statements_of(holder: Json) -> list[Json]:
    """The statements of that policy."""
    told = policy_of(holder).get("Statement", [])
    return [told] if isinstance(told, dict) else list(told)


def allows(there: Json, wanted: Json) -> bool:
    """Whether a statement allows what another one does. One that is not understood does not."""
    service = wanted["Principal"]["Service"]
    principal = there.get("Principal")
    if isinstance(principal, dict):
        anyone = service in _listed(principal.get("Service")) or "*" in _listed(principal.get("AWS"))
    else:
        anyone = principal == "*"
    action = str(wanted["Action"]).lower()
    facts = {name.lower(): value for one in wanted["Condition"].values() for name, value in one.items()}
    return (
        there.get("Effect") == "Allow"
        and anyone
        and any(fnmatch.fnmatchcase(action, one.lower()) for one in _listed(there.get("Action")))
        and any(fnmatch.fnmatchcase(wanted["Resource"], one) for one in _listed(there.get("Resource")))
        and all(
            name.lower() in facts
            and any(_meets(operator, facts[name.lower()], one) for one in _listed(values))
            for operator, pairs in there.get("Condition", {}).items()
            for name, values in pairs.items()
        )
    )


def _meets(operator: str, fact: str, value: str) -> bool:
    if operator == "StringEquals":
        return fact == value
    return operator in {"ArnEquals", "ArnLike", "StringLike"} and fnmatch.fnmatchcase(fact, value)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value or []]


def entry_of(document: Json, id: str) -> tuple[str, Any] | None:
    """The kind of the entry with this id, and the entry in a form that can be compared."""
    found = ((kind, entry) for kind in KINDS for entry in document.get(kind, []) if entry.get("Id") == id)
    kind, entry = next(found, (None, None))
    return None if kind is None else (kind, plain(entry))


def plain(entry: Any) -> Any:
    """An entry without what means nothing: the order of events, how a filter's value is encoded."""
    rest = {name: value for name, value in entry.items() if name not in {"Events", "Filter"}}
    return rest, sorted(entry.get("Events", [])), filter_of(entry)


def encoded(prefix: str) -> str:
    """A filter's value, as S3 writes keys into events: form-encoded, a space as a plus, a slash and a star as they are.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-filtering.html
    """
    return quote_plus(prefix, safe="/*").replace("~", "%7E")


def matches(entry: Json) -> bool:
    """Whether an entry's filter matches any key at all: a value that is not encoded, such as ``day=1/``, matches none."""
    return all(_ENCODED.fullmatch(one.get("Value", "")) for one in _rules(entry))


def filter_of(entry: Json) -> tuple[str, str]:
    """Prefix and suffix, decoded."""
    told = {str(one["Name"]).lower(): unquote_plus(one.get("Value", "")) for one in _rules(entry)}
    return told.get("prefix", ""), told.get("suffix", "")


def _rules(entry: Json) -> list[Json]:
    return list(entry.get("Filter", {}).get("Key", {}).get("FilterRules", []))


def overlapping(events: list[str]) -> bool:
    """Whether any of these events is one of ours."""
    return any(
        fnmatch.fnmatchcase(ours, one) or fnmatch.fnmatchcase(one, ours) for ours in EVENTS for one in events
    )


def without(entries: list[Json], id: str) -> list[Json]:
    """The entries that have another id."""
    return [entry for entry in entries if entry.get("Id") != id]


def covers(pattern: Any, bucket: str, prefix: str) -> bool:
    """Whether a pattern of EventBridge tells all of a bucket's keys that begin so. One that is not understood does not."""
    if not isinstance(pattern, dict) or pattern.keys() - {"source", "detail-type", "detail"}:
        return False
    detail = pattern.get("detail", {})
    if not isinstance(detail, dict) or detail.keys() - {"bucket", "object"}:
        return False
    about, keys = detail.get("bucket", {}), detail.get("object", {})
    told = keys.get("key", [{"prefix": ""}]) if keys.keys() <= {"key"} else []
    return (
        "aws.s3" in pattern.get("source", ["aws.s3"])
        and set(DETAILS) <= set(pattern.get("detail-type", DETAILS))
        and about.keys() <= {"name"}
        and bucket in about.get("name", [bucket])
        and any(
            isinstance(one, dict) and one.keys() == {"prefix"} and prefix.startswith(one["prefix"])
            for one in told
        )
    )


def comparable(document: Json) -> Any:
    """A document without what means nothing: the order of its entries, too."""
    told = [
        json.dumps([kind, plain(entry)], sort_keys=True) for kind in KINDS for entry in document.get(kind, [])
    ]
    return sorted(told), BRIDGE in document
