"""Stands in for Azure's host before Microsoft's own library that runs Python functions. Run by a Python that has that library.

    python azure_host.py FOLDER < REQUESTS

Requests and answers are JSON, one a line, and answers come as invocations end. First: settings, as a host specializes an instance
that waited for its app. https://github.com/Azure/azure-functions-language-worker-protobuf
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Records(logging.Handler):
    """What the host would be sent, so that it reaches Application Insights."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(log=f"{record.levelname} {record.name}: {record.getMessage()}")


def tell(**told: Any) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def wrong(result: Any) -> dict[str, str] | None:
    """An exception as the host hears it; None after a success."""
    if result.status == protos.StatusResult.Success:
        return None
    return {"message": result.exception.message, "trace": result.exception.stack_trace}


def asked(name: str, message: Any) -> Any:
    return SimpleNamespace(
        request=protos.StreamingMessage(**{name: message}),
        properties={"protos": protos, "host": "127.0.0.1"},
    )


def data(kind: str, value: Any) -> Any:
    if kind == "http":
        return protos.TypedData(
            http=protos.RpcHttp(
                method=value["method"], url=value["url"], headers=value["headers"],
                body=protos.TypedData(bytes=value["body"].encode()),
            )
        )  # fmt: skip
    return protos.TypedData(**{kind: value.encode() if kind == "bytes" else value})


def plain(told: Any) -> Any:
    """What a function returned."""
    if told.WhichOneof("data") == "http":
        body = told.http.body
        return {
            "status": int(told.http.status_code), "headers": dict(told.http.headers),
            "body": body.bytes.decode() if body.WhichOneof("data") == "bytes" else body.string,
        }  # fmt: skip
    return None


async def invoke(functions: dict[str, Any], request: dict[str, Any]) -> None:
    try:
        await _invoke(functions, request)
    except BaseException as bug:  # a test must not wait for an answer that never comes
        tell(id=request["id"], error={"message": f"the rig: {bug!r}", "trace": ""}, value=None)
        raise


async def _invoke(functions: dict[str, Any], request: dict[str, Any]) -> None:
    function = functions[request["function"]]
    answer = await runtime.invocation_request(
        asked(
            "invocation_request",
            protos.InvocationRequest(
                invocation_id=request["id"], function_id=function.function_id,
                input_data=[
                    protos.ParameterBinding(
                        name=request["parameter"], data=data(request["kind"], request["value"])
                    )
                ],
                trigger_metadata={
                    key: protos.TypedData(json=json.dumps(value))
                    for key, value in request["metadata"].items()
                },
            ),
        )
    )  # fmt: skip
    tell(id=request["id"], error=wrong(answer.result), value=plain(answer.return_value))


async def main(folder: str) -> None:
    loop = asyncio.get_running_loop()
    settings = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    runtime.start_threadpool_executor()
    reload = protos.FunctionEnvironmentReloadRequest(
        environment_variables={**os.environ, **settings, "AzureWebJobsScriptRoot": folder},
        function_app_directory=folder,
    )
    began = await runtime.function_environment_reload_request(
        asked("function_environment_reload_request", reload)
    )
    if error := wrong(began.result):
        tell(functions={}, error=error)
        return
    indexed = await runtime.functions_metadata_request(
        asked("functions_metadata_request", protos.FunctionsMetadataRequest(function_app_directory=folder))
    )
    functions = {one.name: one for one in indexed.function_metadata_results}
    for one in functions.values():
        load = protos.FunctionLoadRequest(function_id=one.function_id, metadata=one)
        loaded = await runtime.function_load_request(asked("function_load_request", load))
        assert not wrong(loaded.result)
    tell(
        functions={
            name: [json.loads(binding) for binding in one.raw_bindings] for name, one in functions.items()
        },
        error=None,
    )
    running = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        task = asyncio.create_task(invoke(functions, json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)
    runtime.stop_threadpool_executor()


if __name__ == "__main__":
    folder = str(Path(sys.argv[1]).resolve())
    os.chdir(folder)
    # As the image's worker has it: the app's packages come before its own.
    sys.path[:0] = [f"{folder}/.python_packages/lib/site-packages", folder]
    import azure_functions_runtime as runtime

    # The messages' wheel calls them tests.
    sys.path.append(str(Path(runtime.__file__).parents[1]))
    from tests import protos

    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger().addHandler(Records())
    asyncio.run(main(folder))
