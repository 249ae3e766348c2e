"""A second server that has every commit before it is answered, to go on with when the first is
gone."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pgqueue.embedded.server import EmbeddedServer
from pgqueue.embedded.unprivileged import server_identity, temporary_home
from tests.chaos.site import DURABLE, Site
from tests.support.scene import until


@asynccontextmanager
async def a_standby(site: Site) -> AsyncIterator[EmbeddedServer]:
    """A synchronous standby of the site's server. `promote` makes it the site's server."""
    home = temporary_home(server_identity(), None)
    try:
        await asyncio.to_thread(_copy, site, home)
        with EmbeddedServer(DURABLE, home=home) as standby:
            site.rows("ALTER SYSTEM SET synchronous_standby_names = '*'")
            site.rows("SELECT pg_reload_conf()")
            await until(
                lambda: site.rows("SELECT sync_state FROM pg_stat_replication") == [("sync",)],
                30,
                "replication",
            )
            yield standby
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def promote(site: Site, standby: EmbeddedServer) -> None:
    """Kills the site's server and goes on with the other."""
    await asyncio.to_thread(site.server.kill)
    site.server = standby
    site.rows("SELECT pg_promote(true, 60)")


def _copy(site: Site, home: Path) -> None:
    who = server_identity()
    (home / "data").mkdir(mode=0o700)
    if who:
        os.chown(home / "data", who.uid, who.gid)
        home.chmod(0o711)
    program = str(site.server.binaries / "pg_basebackup")
    subprocess.run(
        [
            program,
            "--dbname",
            site.url,
            "--pgdata",
            str(home / "data"),
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ],
        user=who.uid if who else None,
        group=who.gid if who else None,
        extra_groups=[] if who else None,
        cwd="/",
        check=True,
    )
    with open(
        home / "password", "x", opener=lambda path, flags: os.open(path, flags, 0o600)
    ) as file:
        file.write(site.server.password)
