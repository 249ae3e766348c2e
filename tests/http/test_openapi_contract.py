"""The service against its own description: Schemathesis reads the OpenAPI document of a running
process, and tries to prove it wrong.

What comes is deterministic. To look further: the command that stands in the failure, with another
--seed and more examples.
"""

import asyncio
import re
import shlex
import sys
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from tests.http.test_api_process import environment, ready
from tests.support.api import ADMIN_TOKEN, API_TOKEN
from tests.support.factories import a_job, value

EXCLUDED = {
    "positive_data_acceptance": (
        "which payload fits which type, and that a batch has a filter, is more than a schema says"
    ),
    "use_after_free": "DELETE cancels a job, and a cancelled job is still there",
    "allow_header_conformance": (
        "the framework's own answer to OPTIONS names one of two methods that share a path"
    ),
}


@pytest.mark.timeout(400)
async def test_the_service_does_what_its_description_says(
    database_url: str, connection: AsyncConnection[object], tmp_path: Path
) -> None:
    for job_id in "0123456789ab":  # what a generator thinks of first
        await a_job(connection, job_id=job_id, status="dlq")
    tokens = {"PGQUEUE_ADMIN_TOKENS": ADMIN_TOKEN, "PGQUEUE_API_TOKENS": API_TOKEN}
    async with ready(**environment(database_url, PGQUEUE_SIGNIN_LIMIT="1000000/1h", **tokens)) as (
        api,
        _,
    ):
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{api.url}/schema/openapi.json",
        ]
        command += [
            "--header",
            f"Authorization: Bearer {ADMIN_TOKEN}",
            "--exclude-checks",
            ",".join(EXCLUDED),
        ]
        command += [
            "--seed",
            "1",
            "--max-examples",
            "15",
            "--no-color",
            "--warnings",
            "off",
            "--request-timeout",
            "30",
        ]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, f"{shlex.join(command)}\n{said}"
        assert re.search(r"Selected: (\d+)/\1\n", said), "every operation"
        assert await value(connection, "SELECT count(*) FROM job_logs") > 12, (
            "it found out how jobs are handed in"
        )
        assert not [line for line in api.lines if line["level"] == "error"]
