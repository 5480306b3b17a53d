-- Functions, views, rules, triggers, policies.
create schema logic;
set search_path = logic, public;

create function standard(a int, b int default 2, out c int) language sql immutable parallel safe cost 5
    return a + b;
create function atomic(a text) returns table (x text, y int) language sql stable rows 7 leakproof
    begin atomic select a || 'ü''\', 1; select a, length(a) from shapes.tree limit 1; end;
create function body_text() returns text language plpgsql security definer set search_path = logic, pg_temp set work_mem to '5MB'
    as $body$ begin return $$it's $1 \ "quoted" $x$ $$ || E'\\.\n\\.'; end $body$;
create function many(variadic int[]) returns bigint language sql as 'select count(*) from unnest($1)';
create function poly(anyelement, anyarray) returns anyelement language sql as 'select $1' called on null input;
create function poly_range(anycompatiblerange) returns anycompatible language sql as 'select lower($1)';
create function sets(inout x int, out y text) returns setof record language sql as $$ select x, 'y' $$;
create function "Namé(int)"("Ärg 1" int, "arg""2" text default E'x\\y''z') returns void language sql as '';
create function row_taker(shapes.tree) returns int language sql stable as 'select $1.id * 10';
create function win() returns bigint language internal window as 'window_row_number';
create function supported(int) returns int language sql support generate_series_int4_support as 'select $1';
create procedure proc(inout a int, b text = 'd') language plpgsql as $$ begin commit; a := a + 1; end $$;
create procedure proc_standard(a int) language sql begin atomic insert into shapes.replica_full values (a); end;
comment on function "Namé(int)"(int, text) is E'a \\ comment ''here''';
comment on procedure proc(int, text) is 'a procedure';
alter function many(int[]) depends on extension plpgsql;

create view one as select id, parent from shapes.tree;
create view two with (security_barrier) as select * from one where parent is null or id > 0;
create view three with (check_option = cascaded) as select * from two;
create view four with (security_invoker = true, check_option = local) as select * from one where id > 0;
create view whole_row as select t, (t).id as i from shapes.tree t;
create recursive view numbers (n) as values (1) union all select n + 1 from numbers where n < 10;
create view odd_columns ("a ""b", "?column?", "ü.x", "select") as select 1, 2, 'x'::text collate "C", null::kinds.mood;
alter view one alter column parent set default 7;
create view "Sicht.""x""" as with c as materialized (select * from three) select *, row_number() over w, standard(id, 3) from c
    window w as (partition by id order by parent);
comment on view one is 'the first'; comment on column odd_columns."a ""b" is 'odd';
create view joins as select * from shapes.first f full join shapes.second s using (id) natural join shapes.partly tablesample system (50);
create view depends_on_key as select id, second_id, count(*) from shapes.first group by id;

-- A circle: a view calls a function that takes the view's row; and two views that read each other.
create view circle_a as select 1 as x, null::text as y;
create function circle(circle_a) returns text language sql stable as $$ select 'c' || $1.x $$;
create view circle_b as select x from circle_a;
create or replace view circle_a as select 1 as x, logic.circle(null::circle_a) as y;
create view back_a as select 1 as x; create view back_b as select x from back_a;
create or replace view back_a as select x from back_b union all select 2;

create materialized view mat_one as select parent, count(*) as n from shapes.tree group by 1;
create unique index on mat_one (n, parent);
create materialized view a_mat_two as select sum(n) as total from mat_one with data;
create materialized view aa_mat_three with (fillfactor = 50) as select total, n from a_mat_two, mat_one;
create materialized view unfilled as select 1 as x with no data;
create index on unfilled (x);
create materialized view on_unfilled as select * from unfilled with no data;
create view over_mat as select * from aa_mat_three;
create materialized view of_view as select * from over_mat;
comment on materialized view mat_one is 'one'; alter materialized view mat_one cluster on mat_one_n_parent_idx;

create table ruled (x int, y text);
create rule no_delete as on delete to ruled do instead nothing;
create rule kept as on update to ruled where old.x <> new.x do also (insert into shapes.replica_full values (new.x); delete from shapes.replica_nothing);
create rule told as on insert to ruled do also notify ruled;
create rule "up ""date" as on update to two do instead update shapes.tree set parent = new.parent where id = old.id returning id, parent;
comment on rule no_delete on ruled is 'never';
alter table ruled disable rule kept;
insert into ruled values (1, 'r');
create table becomes_ruled (x int); create rule "_r" as on insert to becomes_ruled do instead select 1;

create function touch() returns trigger language plpgsql as $$ begin raise exception 'touched %', tg_name; end $$;
create function quiet() returns trigger language plpgsql as $$ begin return new; end $$;
create table watched (id int primary key, t text, n int); insert into watched values (1, 't', 1);
create trigger never before insert or delete on watched for each statement execute function touch('arg''1', E'a\\b', 'ü');
alter table watched disable trigger never;
create trigger row_trigger before update of t, n on watched for each row when (old.* is distinct from new.*) execute function quiet();
create trigger always_trigger after insert on watched for each row execute function quiet(); alter table watched enable always trigger always_trigger;
create trigger replica_trigger after insert on watched for each row execute function touch(); alter table watched enable replica trigger replica_trigger;
create trigger transitions after update on watched referencing old table as o new table as n for each statement execute function quiet();
create constraint trigger "late 'one'" after insert or update on watched from shapes.tree deferrable initially deferred for each row execute function quiet();
create trigger truncated before truncate on watched execute function touch();
create function instead() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger on_view instead of insert or update on one for each row execute function instead();
create trigger on_root after insert on shapes.by_range for each row execute function quiet();
create trigger on_leaf before insert on shapes.range_old for each row execute function touch();
alter table shapes.range_20 disable trigger on_root;
comment on trigger row_trigger on watched is 'of rows';
create function no_ddl() returns event_trigger language plpgsql as $$ begin if tg_tag = 'DROP CAST' then raise exception 'not here'; end if; end $$;
create event trigger watch_ddl on ddl_command_end when tag in ('CREATE CAST', 'DROP CAST') execute function no_ddl();
create event trigger watch_drop on sql_drop execute function no_ddl(); alter event trigger watch_drop enable replica;
create event trigger watch_off on table_rewrite execute function no_ddl(); alter event trigger watch_off disable;
create function refuse_tables() returns event_trigger language plpgsql as $$ begin raise exception 'no tables here'; end $$;
create event trigger strict on ddl_command_start when tag in ('CREATE TABLE') execute function refuse_tables();
alter event trigger strict disable;
comment on event trigger watch_ddl is 'watches';

create table secured (id int, owner_name text); insert into secured select g, 'o' || g from generate_series(1, 10) g;
alter table secured enable row level security; alter table secured force row level security;
create policy "some" on secured as permissive for select to public using (id < 5);
create policy "others ""x""" on secured as restrictive for update to postgres, current_user using (owner_name = current_user) with check (id > 0);
create policy ins on secured for insert with check (exists (select from shapes.tree t where t.id = secured.id));
create table secured_off (id int); create policy unused on secured_off using (true); alter table secured_off force row level security;
comment on policy "some" on secured is 'only some';
