"""The guards of sql/migrations/ against a role that may do less than it asks for."""

from tests.guards import Guard, schema

FALSE_TYPES = "schema/test_doors::TestLimits::test_a_false_list_of_types_is_no_way_round_it"
PRODUCER = "schema/test_doors::TestAdmin::test_a_producer_may_not"
BARE = "schema/test_doors::TestInserts::test_a_right_to_insert_is_all_that_a_bare_insert_needs"
CLOSED = "schema/test_doors::TestNobody::test_nothing_is_for_everybody_whatever_the_owner_gives_by_default"

TAKEN = "schema/test_definers::test_nothing_that_another_role_made_is_taken"

TRIGGER, HERE = "RETURNS trigger LANGUAGE plpgsql", "SET search_path FROM CURRENT"
LOGS, ENQUEUE, OPERATE, LATER = (
    "0001_job_logs",
    "0002_enqueue_job",
    "0003_operate_jobs",
    "0004_dependencies_and_groups",
)


def closed(number: str, what: str, first: str, last: str) -> Guard:
    """The statement that takes it from PUBLIC, turned round."""
    swaps = {
        f"REVOKE ALL ON {first}": f"GRANT ALL ON {first}",
        f"{last} FROM PUBLIC": f"{last} TO PUBLIC",
    }
    return schema(number, f"closed-{what}", swaps, CLOSED)


DOORS = [
    closed(LOGS, "tables", "job_logs,", "job_tombstones"),
    closed(LOGS, "functions", "FUNCTION job_uuid(),", "job_type_change()"),
    closed(ENQUEUE, "types", "TYPE job_ticket,", "job_item"),
    closed(ENQUEUE, "functions", "FUNCTION known_job", "offer_jobs(jsonb)"),
    closed(OPERATE, "types", "TYPE", "job_change"),
    closed(OPERATE, "functions", "FUNCTION unchanged_job", "timestamptz, text[])"),
    schema(LATER, "closed-tables", {"REVOKE ALL ON job_dependencies FROM": "GRANT ALL ON job_dependencies TO"}, CLOSED),
    closed(LATER, "types", "TYPE", "job_answer"),
    closed(LATER, "functions", "FUNCTION dependency_failed", "offer_group(jsonb, text[])"),
    # A bare INSERT
    schema(LOGS, "defaults-rights", {f"{TRIGGER} SECURITY DEFINER {HERE} AS $$ BEGIN IF":
                                     f"{TRIGGER} {HERE} AS $$ BEGIN IF"}, BARE),
    schema(LOGS, "defaults-path", {f"{TRIGGER} SECURITY DEFINER {HERE} AS $$ BEGIN IF":
                                   f"{TRIGGER} SECURITY DEFINER AS $$ BEGIN IF"}, BARE),
    schema(LOGS, "id-default", {"SET DEFAULT ' || fresh;": "SET DEFAULT job_uuid()';"}, BARE),
    # Limits
    schema(ENQUEUE, "window", {"pg_catalog.make_interval(secs => extract(epoch FROM span)::float8)": "span"},
           "schema/test_doors::TestLimits::test_a_day_is_24_hours_in_every_time_zone_of_the_callers"),
    schema(ENQUEUE, "filled", {"filled - user_from": "filled"},
           "schema/test_doors::TestLimits::test_what_is_filled_in_does_not_change_whose_job_it_is[filled0]"),
    schema(LATER, "offer_many-types", {"(i.job_type = ANY (types)) IS NOT TRUE": "false"},
           f"{FALSE_TYPES}[offer_many-'{{doors.free}}']"),
    schema(LATER, "offer_many-types-null", {"(i.job_type = ANY (types)) IS NOT TRUE": "NOT i.job_type = ANY (types)"},
           f"{FALSE_TYPES}[offer_group-NULL]"),
    schema(LATER, "offer_group-isolation",
           {("pg_catalog.current_setting('transaction_isolation') = 'read committed' AND NOT "
               "EXISTS ("): "NOT EXISTS ("},
           ("schema/test_doors::TestLimits::test_it_is_not_counted_in_an_old_snapshot[offer_group-REPEATABLE "
           "READ]")),
    # Nothing that another role made is taken. (Most others fail as statements that make no sense: a
    # trap has a type of its own.)
    schema(LATER, "exact-bytes", {"known_job(c.job_id, ''::bytea)": "known_job(c.job_id, '')"}, TAKEN, slow=True),
    schema(LATER, "exact-member", {"i.item ->> 'delay'::text": "i.item ->> 'delay'"}, TAKEN, slow=True),
    schema(LATER, "exact-cat", {"refused := pg_catalog.array_cat(refused, crowded)": "refused := refused || crowded"},
           TAKEN, slow=True),
    # Administrators
    schema(ENQUEUE, "admin", {"IF kind.admin AND NOT job_admin() THEN": "IF false THEN"}, f"{PRODUCER}[enqueue_job]"),
    schema(LATER, "offer_jobs-admin", {"OR t.admin AND NOT job_admin() ORDER": "ORDER"}, f"{PRODUCER}[offer_jobs]"),
    schema(LATER, "offer_many-admin", {"= ANY (types) AND t.admin AND NOT job_admin()": "= ANY (types) AND false"},
           f"{PRODUCER}[offer_many]"),
    schema(LATER, "offer_group-admin", {"AND NOT t.admin AND o.owner": "AND o.owner"}, f"{PRODUCER}[mixed group]"),
    schema(LOGS, "admin-role",
           {"CASE pg_catalog.current_setting('role') WHEN 'none' THEN session_user "
            "ELSE pg_catalog.current_setting('role')::name END": "session_user"},
           "schema/test_doors::TestAdmin::test_the_role_that_is_set_counts"),
    schema(LOGS, "admin-kept", {"NEW.admin := NOT job_admin();": ""},
           "schema/test_doors::TestAdmin::test_a_worker_cannot_open_a_type_by_publishing_it"),
]  # fmt: skip
