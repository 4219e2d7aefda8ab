"""The function's entry on AWS Lambda: ``lambda_function.lambda_handler``."""

import os

os.environ.setdefault("SYNCAGENT_HOME", "/tmp/syncagent")  # noqa: S108  # Lambda lets write nowhere else

import boto3  # noqa: F401  # while the function starts it has a whole core, whatever its memory

from syncagent.handlers.aws import handler as lambda_handler

__all__ = ["lambda_handler"]
