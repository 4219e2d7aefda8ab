"""URLs of drivers: what is refused, and that nothing secret is repeated."""

from __future__ import annotations

import pytest

from syncagent.drivers import parse_url
from syncagent.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hunter2@bucket/path",
        "s3://bucket?endpoint=https://user:hunter2@minio:9000",
        "gs://bucket?endpoint=https%3A%2F%2Fuser%3Ahunter2%40proxy",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="holds credentials; credentials never stand in a URL") as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)
