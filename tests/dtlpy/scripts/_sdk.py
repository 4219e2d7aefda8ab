"""What every chapter begins with: the SDK, signed in, and a project of its own."""

import contextlib
import os
import uuid
import warnings

warnings.simplefilter("ignore")

import dtlpy as dl  # noqa: E402

assert dl.login_m2m(email=os.environ["EMAIL"], password=os.environ["PASSWORD"])
assert not dl.token_expired()


def project() -> dl.Project:
    return dl.projects.create(f"project {uuid.uuid4().hex[:8]}")


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
