-- What reaches beyond the tables: foreign servers, publications, large objects, rights, names.
create schema beyond;
set search_path = beyond, public;

create foreign data wrapper dummy options (debug 'true', "Opt ""x""" 'it''s');
create foreign data wrapper checked validator postgresql_fdw_validator;
create server nowhere type 'kind''s' version '1.\x' foreign data wrapper dummy options (host 'a''b', dbname E'c\\d');
create server "Server ""zwei""" foreign data wrapper checked;
create user mapping for public server nowhere options (password 'se''cret', "user" 'x');
create user mapping for torture_owner server nowhere;
create foreign table far (x int options (column_name 'X''') not null, y text collate "C" default 'd', z int generated always as (x + 1) stored)
    server nowhere options (schema_name 's', table_name E'line\nbreak');
create foreign table far_partition partition of shapes.no_partitions for values in (1) server nowhere;
create foreign table far_child (extra int) inherits (shapes.parent_b) server nowhere;
alter foreign table far add constraint known check (x > 0); alter foreign table far alter y options (add o 'p');
comment on server nowhere is 'nowhere'; comment on foreign data wrapper dummy is 'dummy'; comment on foreign table far is 'far away';

create publication everything for all tables with (publish = 'insert, truncate', publish_via_partition_root = true);
create publication chosen for table shapes.tree, only shapes.parent_a, shapes.changed (c, "e") where (c > 1 and "e" is not null);
create publication "of schemas" for tables in schema shapes, kinds with (publish = 'update, delete');
create publication nothing_yet;
alter publication nothing_yet owner to torture_owner;
comment on publication chosen is 'rows of some';
create subscription quiet connection 'host=nowhere dbname=''x y''' publication p, "P q"
    with (connect = false, slot_name = none, enabled = false, create_slot = false, synchronous_commit = 'remote_apply', binary = true, streaming = true);
comment on subscription quiet is 'never connects';

-- Large objects: empty, small, with a hole, large; with grants, owners and comments.
select lo_create(70001);
select lo_from_bytea(70002, '\x00ff5c2e0a0d09');
select lo_create(70003); select lo_put(70003, 3000000, '\x01'); select lo_put(70003, 5, '\x02');
select lo_from_bytea(70004, (select string_agg(decode(md5(g::text), 'hex'), '' order by g) from generate_series(1, 196608) g));
select count(lo_from_bytea(71000 + g, convert_to(g::text, 'UTF8'))) from generate_series(1, 150) g;
alter large object 70002 owner to torture_owner;
grant select on large object 70002 to public; grant update on large object 70004 to torture_reader with grant option;
comment on large object 70001 is E'empty ''one''\n\\.';

-- Owners and rights.
create schema owned authorization torture_owner; create schema "Owned ""2""";
alter schema "Owned ""2""" owner to "Torture ""Größe"" 'x'";
create table owned.t (id int primary key, secret text, open text); insert into owned.t values (1, 's', 'o');
alter table owned.t owner to torture_owner;
create table owned.t2 (id serial); alter table owned.t2 owner to "Torture ""Größe"" 'x'";
create view owned.v as select * from owned.t; alter view owned.v owner to torture_reader;
create function owned.f() returns int language sql as 'select 1'; alter function owned.f() owner to torture_owner;
create type owned.e as enum ('x'); alter type owned.e owner to torture_owner;
create aggregate owned.sum2 (int) (sfunc = int4pl, stype = int); alter aggregate owned.sum2 (int) owner to torture_reader;
create operator owned.@++ (leftarg = int, rightarg = int, function = int4pl); alter operator owned.@++ (int, int) owner to torture_owner;
create materialized view owned.m as select 1 as x; alter materialized view owned.m owner to torture_owner;
alter server nowhere owner to torture_super; alter foreign data wrapper checked owner to torture_super;
alter event trigger watch_off owner to torture_super;
grant usage on schema owned to torture_reader, public; grant create on schema owned to torture_reader with grant option;
grant select (open), insert (id, open) on owned.t to torture_reader with grant option;
set role torture_owner; grant select on owned.t to torture_super with grant option;
set role torture_super; grant select on owned.t to torture_reader with grant option;
set role torture_reader; grant select on owned.t to "Torture ""Größe"" 'x'"; grant select (open) on owned.t to public; reset role;
grant truncate, trigger, references on owned.t to "Torture ""Größe"" 'x'";
revoke all on owned.t2 from "Torture ""Größe"" 'x'"; grant usage, update on sequence owned.t2_id_seq to torture_reader;
revoke all on function owned.f() from public; grant execute on function owned.f() to torture_reader with grant option;
revoke usage on type owned.e from public; grant usage on type kinds.positive to torture_reader;
revoke usage on language plsample from public; grant usage on foreign server nowhere to torture_reader;
grant usage on foreign data wrapper dummy to torture_reader with grant option; grant execute on procedure logic.proc(int, text) to torture_reader;
revoke execute on function pg_catalog.pg_sleep(float8) from public; grant select on pg_catalog.pg_authid to torture_reader;
grant select (rolname) on pg_catalog.pg_authid to torture_owner;
revoke create on schema public from public; grant all on schema public to torture_owner;
alter default privileges grant select on tables to torture_reader;
alter default privileges for role torture_owner in schema owned grant all on sequences to torture_reader with grant option;
alter default privileges for role torture_owner revoke execute on functions from public;
alter default privileges for role torture_reader revoke usage on types from public;
alter default privileges in schema beyond grant usage on types to torture_reader;
comment on schema owned is 'owned'; comment on role torture_owner is 'owns';

-- Names.
create schema "select"; create schema "."; create schema "a.b"; do $$ begin execute format('create schema %I', E'new\nline'); end $$; create schema "  ";
create table "select"."table" ("column" int, "primary" int primary key, "\." text, "," text);
insert into "select"."table" values (1, 1, '\.', ',');
create table "."."." ("." int); insert into "."."." values (1);
create table "a.b"."c.d" ("e.f" int); create table "a.b"."""c"".d" (x int); create table "  "." " (" " int);
create table "a.b"."'" (x int); create table "a.b"."\" (x int); create table "a.b"."$$" (x int); create table "a.b"."%s" (x int);
create table "a.b"."-- comment" (x int); create table "a.b"."/* c" (x int); create table "a.b"."日本語🦀" ("é́" int, "ⅻ" int);
create table "a.b".n63_456789012345678901234567890123456789012345678901234567890123 (c63_456789012345678901234567890123456789012345678901234567890123 serial primary key);
insert into "a.b".n63_456789012345678901234567890123456789012345678901234567890123 default values;
create table "a.b"."ÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜÜ" (x int unique);
do $do$ declare odd text := E'line\nbreak\r\ttab \x07 bell'; begin
    execute format('create table %1$I.%2$I (%2$I int, constraint %3$I check (%2$I > 0)); insert into %1$I.%2$I values (5);
        create index %4$I on %1$I.%2$I (%2$I)', E'new\nline', odd, odd || '1', odd || '2');
    execute format('comment on table %I.%I is %L', E'new\nline', odd, odd);
    execute format('create view %1$I.%2$I as select * from %1$I.%3$I', E'new\nline', odd || 'view', odd);
    execute format('create function %I.%I(%I int) returns int language sql as %L', E'new\nline', odd, odd, 'select 1 /* ' || odd || ' */');
    execute format('create type %I.%I as enum (%L, %L)', E'new\nline', odd || 'type', odd, 'x');
    execute format('create sequence %I.%I', E'new\nline', odd || 'sequence');
    execute format('create trigger %I before insert on %I.%I execute function logic.quiet(%L)', odd, E'new\nline', odd, odd);
    execute format('create policy %I on %I.%I using (true)', odd, E'new\nline', odd);
    execute format('create publication %I for table %I.%I', odd, E'new\nline', odd);
    execute format('create server %I foreign data wrapper dummy options (x %L)', odd, odd);
    execute format('alter table %I.%I alter %I set default 7', E'new\nline', odd, odd);
end $do$;
