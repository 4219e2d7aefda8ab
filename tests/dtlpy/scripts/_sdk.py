"""What every chapter begins with: the SDK, signed in, and a project of its own."""

import contextlib
import os
import uuid
import warnings

warnings.simplefilter("ignore")

import dtlpy as dl  # noqa: E402

# What runs in the background here ends in a moment, and the client would sleep for two seconds before it looks.
dl.repositories.commands.MAX_SLEEP_TIME = 0.05

assert dl.login_m2m(email=os.environ["EMAIL"], password=os.environ["PASSWORD"])
assert not dl.token_expired()


def project() -> dl.Project:
    return dl.projects.create(f"project {uuid.uuid4().hex[:8]}")


def home_driver(home: dl.Project) -> dl.Driver:
    """A driver for the test's bucket, with credentials of its own."""
    key = home.integrations.create(
        integrations_type="s3", name=home.id, options={"key": "testing", "secret": "testing"}
    )
    return home.drivers.create(
        name=home.id, driver_type="s3", integration_id=key.id, integration_type="s3", bucket_name=os.environ["BUCKET"],
        project_id=home.id, allow_external_delete=True, region="us-east-1", endpoint=os.environ["S3"],
    )  # fmt: skip


@contextlib.contextmanager
def refused(kind: type[Exception], text: str):
    """The call inside raises `kind`, and says `text`."""
    try:
        yield
    except kind as error:
        assert text in str(error), f"{text!r} is not in {error}"
    else:
        raise AssertionError(f"{kind.__name__} was not raised")


def names(pages) -> list[str]:
    return sorted(item.filename for item in pages.all())


def done() -> None:
    print("done")
