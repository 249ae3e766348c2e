"""At most three exports an hour for one user."""

import msgspec

from pgqueue import Client, Job, Limit, RateLimited, task


class Export(msgspec.Struct):
    customer: str
    format: str


# [task]
@task("data.export", rate_limit=Limit(3, per="1h"), user_from="customer")
async def export(job: Job[Export]) -> None:
    print(f"exporting as {job.payload.format} for {job.user_id}")


# [/task]


def main() -> None:
    with Client.from_env() as client:
        for format_ in ("csv", "json", "xml", "pdf"):
            # [enqueue]
            try:
                client.enqueue(export, Export("customer-7", format_))
            except RateLimited as error:
                print(f"try again in {error.retry_after.total_seconds():.0f} s")
            # [/enqueue]


if __name__ == "__main__":
    main()
