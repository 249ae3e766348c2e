"""The guards of sql/migrations/ and sql/functions/ against a role that may do less than it asks
for."""

from tests.guards import Guard, function, guard, table
from tests.support.places import ROOT

DOORS_OF = "schema/test_doors"
PRODUCER = f"{DOORS_OF}::TestAdmin::test_a_producer_may_not"
BARE = f"{DOORS_OF}::TestInserts::test_a_right_to_insert_is_all_that_a_bare_insert_needs"
CLOSED = (
    f"{DOORS_OF}::TestNobody::test_nothing_is_for_everybody_whatever_the_owner_gives_by_default"
)

TAKEN = "schema/test_definers::test_nothing_that_another_role_made_is_taken"

DEFINER, HERE = "LANGUAGE plpgsql SECURITY DEFINER", "SET search_path FROM CURRENT"


def closed(file: str) -> Guard:
    """The statement that takes a function from PUBLIC, turned round."""
    return guard(
        f"{file}:closed",
        f"functions/{file}.sql",
        {"REVOKE ALL ON FUNCTION": "GRANT ALL ON FUNCTION", "FROM PUBLIC;": "TO PUBLIC;"},
        CLOSED,
        slow=file != "enqueue_job",
    )


def closed_in_tables(what: str, first: str, last: str) -> Guard:
    swaps = {
        f"REVOKE ALL ON {first}": f"GRANT ALL ON {first}",
        f"{last} FROM PUBLIC": f"{last} TO PUBLIC",
    }
    return table(f"closed-{what}", swaps, CLOSED)


DOORS = [
    *(closed(path.stem) for path in sorted(ROOT.glob("sql/functions/*.sql"))),
    closed_in_tables("tables", "job_logs,", "job_functions"),
    closed_in_tables("types", "TYPE", "pgqueue_bulk_answer"),
    closed_in_tables("functions", "FUNCTION", "pgqueue_keep_admin()"),
    # A bare INSERT
    table(
        "defaults-rights",
        {f"{DEFINER} {HERE} AS $$ BEGIN IF": f"LANGUAGE plpgsql {HERE} AS $$ BEGIN IF"},
        BARE,
    ),
    table(
        "defaults-path",
        {f"{DEFINER} {HERE} AS $$ BEGIN IF": f"{DEFINER} AS $$ BEGIN IF"},
        BARE,
    ),
    table(
        "id-default",
        {
            "EXECUTE 'ALTER TABLE job_logs ALTER id SET DEFAULT ' || fresh;": (
                "CREATE FUNCTION pgqueue_later() RETURNS uuid LANGUAGE sql AS 'SELECT "
                "gen_random_uuid()'; REVOKE ALL ON FUNCTION pgqueue_later() FROM PUBLIC; "
                "ALTER TABLE job_logs ALTER id SET DEFAULT pgqueue_later();"
            )
        },
        BARE,
    ),
    # Limits
    function(
        "pgqueue_span",
        "window",
        {"pg_catalog.make_interval(secs => extract(epoch FROM span)::float8)": "span"},
        f"{DOORS_OF}::TestLimits::test_a_day_is_24_hours_in_every_time_zone_of_the_callers",
    ),
    function(
        "pgqueue_stored_payload",
        "filled",
        {"filled - user_from": "filled"},
        f"{DOORS_OF}::TestLimits::test_what_is_filled_in_does_not_change_whose_job_it_is[filled0]",
    ),
    function(
        "pgqueue_enqueue_many",
        "types",
        {"AS k WHERE k.limit_count IS NOT NULL) THEN": "AS k WHERE false) THEN"},
        f"{DOORS_OF}::TestLimits::test_jobs_of_other_types_in_the_same_call_are_no_way_round_it"
        "[pgqueue_enqueue_many]",
    ),
    # Nothing that another role made is taken. (Most others fail as statements that make no sense: a
    # trap has a type of its own.)
    function(
        "enqueue_job",
        "exact-null",
        {"NULL::jsonb": "NULL"},
        TAKEN,
        slow=True,
    ),
    # Administrators
    function(
        "pgqueue_job_type",
        "admin",
        {"IF kind.admin AND NOT pgqueue_is_admin() THEN": "IF false THEN"},
        f"{PRODUCER}[enqueue_job]",
        f"{PRODUCER}[many]",
        f"{PRODUCER}[mixed group]",
    ),
    function(
        "pgqueue_is_admin",
        "role",
        {
            "CASE pg_catalog.current_setting('role') WHEN 'none' THEN session_user "
            "ELSE pg_catalog.current_setting('role')::name END": "session_user"
        },
        f"{DOORS_OF}::TestAdmin::test_the_role_that_is_set_counts",
    ),
    table(
        "admin-kept",
        {"NEW.admin := NOT pgqueue_is_admin();": ""},
        f"{DOORS_OF}::TestAdmin::test_a_worker_cannot_open_a_type_by_publishing_it",
    ),
]
