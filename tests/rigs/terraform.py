"""Stands in for `terraform`, which no registry has: takes the words that the real one takes, and makes the Pub/Sub of a template.

    GCLOUD_WORLD=FOLDER python -m tests.rigs.terraform WORDS

Whether there is what it made is in ``FOLDER/terraform.json``: the variables that it was made with.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.rigs.gcloud import BUCKETS_NUMBER, NUMBER, URL

ROOT = Path(__file__).parents[2]
HCL = ROOT / ".rigs/hcl/bin/python"
Json = dict[str, Any]


def read(template: Path) -> Json:
    """A template, see `tests.rigs.hcl`."""
    assert HCL.exists(), "what reads Terraform's language is not there: run scripts/rigs.sh"
    command = [str(HCL), str(ROOT / "tests/rigs/hcl.py"), str(template)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found


def resources(told: Json) -> dict[str, Json]:
    """By ``type.name``."""
    return {f"{kind}.{name}": body for one in told["resource"] for kind, named in one.items() for name, body in named.items()}  # fmt: skip


def variables(told: Json) -> dict[str, Json]:
    return {name: body for one in told["variable"] for name, body in one.items()}


def given(told: Json) -> dict[str, str]:
    """Variables from the environment, and defaults; all that are asked for are there."""
    known = variables(told)
    mine = {
        name.removeprefix("TF_VAR_"): value
        for name, value in os.environ.items()
        if name.startswith("TF_VAR_")
    }
    assert set(mine) <= set(known), f"the template has no variable {set(mine) - set(known)}"
    lacking = {name for name, body in known.items() if "default" not in body} - set(mine)
    assert not lacking, f"nobody says {lacking}"
    for name, value in mine.items():
        for rule in known[name].get("validation", []):
            if found := re.search(r'regex\("(.*)", var\.', rule["condition"]):
                assert re.search(found[1].replace("\\\\", "\\"), value), rule["error_message"]
    return {name: str(body.get("default", "")).strip('"') for name, body in known.items()} | mine


def apply(told: Json, values: dict[str, str]) -> None:
    """Make the template's topics, subscriptions and their rights, for a queue's wiring."""
    from google.cloud import pubsub_v1

    made = resources(told)
    project, name = values["project"], values["name"]
    # What the template's expressions mean, for those that Pub/Sub's part has.
    meaning = {
        "${var.name}": name, "${local.dead_name}": told["locals"][0]["dead_name"].strip('"').replace("${var.name}", name),
        "${google_cloudfunctions2_function.function.service_config[0].uri}": URL,
        "${google_service_account.caller.email}": f"{name}-call@{project}.iam.gserviceaccount.com",
        "${local.storage}": f"serviceAccount:service-{BUCKETS_NUMBER}@gs-project-accounts.iam.gserviceaccount.com",
        "${local.pubsub}": f"serviceAccount:service-{NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com",
    }  # fmt: skip
    paths: dict[str, str] = {}
    for kind in ("topic", "subscription"):
        for full, body in made.items():
            if full.startswith(f"google_pubsub_{kind}."):
                paths[full] = f"projects/{project}/{kind}s/{meaning[body['name']]}"

    def path(reference: str) -> str:
        found = re.fullmatch(r"\$\{(google_pubsub_\w+\.\w+)\[0\]\.(?:id|name)\}", reference)
        assert found, reference
        return paths[found[1]]

    with pubsub_v1.PublisherClient() as publisher, pubsub_v1.SubscriberClient() as subscriber:
        for full in made:
            if full.startswith("google_pubsub_topic."):
                publisher.create_topic(name=paths[full])
        for full, body in made.items():
            if not full.startswith("google_pubsub_subscription."):
                continue
            wanted: Json = {
                "name": paths[full], "topic": path(body["topic"]), "ack_deadline_seconds": body["ack_deadline_seconds"],
            }  # fmt: skip
            for push in body.get("push_config", []):
                account = meaning[push["oidc_token"][0]["service_account_email"]]
                endpoint = meaning[push["push_endpoint"]]
                wanted["push_config"] = {
                    "push_endpoint": endpoint, "oidc_token": {"service_account_email": account},
                }  # fmt: skip
            for dead in body.get("dead_letter_policy", []):
                wanted["dead_letter_policy"] = {
                    "dead_letter_topic": path(dead["dead_letter_topic"]),
                    "max_delivery_attempts": dead["max_delivery_attempts"],
                }
            subscriber.create_subscription(request=wanted)
        for full, body in made.items():
            if found := re.match(r"google_pubsub_(topic|subscription)_iam_member\.", full):
                client = publisher if found[1] == "topic" else subscriber
                policy = client.get_iam_policy(request={"resource": path(body[found[1]])})
                policy.bindings.add(role=body["role"].strip('"'), members=[meaning[body["member"]]])
                client.set_iam_policy(request={"resource": path(body[found[1]]), "policy": policy})


def main(words: list[str], world: Path) -> None:
    folder, state = Path(words[0].removeprefix("-chdir=")), world / "terraform.json"
    assert words[0].startswith("-chdir=")
    told = read(folder / "main.tf")
    assert (folder / "syncagent-gcp.zip").is_file()
    match words[1:]:
        case ["init"]:
            (folder / ".terraform").mkdir(exist_ok=True)
        case ["apply"]:
            assert (folder / ".terraform").is_dir(), "terraform init comes before"
            values = given(told)
            if not state.exists():
                apply(told, values)
            state.write_text(json.dumps(values))
        case ["output", "-raw", name]:
            assert state.exists(), "there are no outputs before apply"
            (output,) = (body for one in told["output"] for named, body in one.items() if named == name)
            assert output["value"].endswith("service_config[0].uri}")
            sys.stdout.write(URL)
        case ["destroy"]:
            given(told)
            state.unlink()
        case _:
            raise AssertionError(f"terraform does not take {words}")


if __name__ == "__main__":
    main(sys.argv[1:], Path(os.environ["GCLOUD_WORLD"]))
