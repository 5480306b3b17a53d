-- The database of the bench: the same rows on every machine. About 1.2 GB on disk, 860 MB as COPY text.
-- `:scale` is pgbench's: 100 000 accounts each. Everything else follows it, so that a quick run has the same shape.
set synchronous_commit = off;
set maintenance_work_mem = '256MB';

-- What `pgbench --initialize` makes: short rows, padded with blanks.
create table pgbench_branches (bid integer not null, bbalance integer, filler character(88)) with (fillfactor = 100);
create table pgbench_tellers (tid integer not null, bid integer, tbalance integer, filler character(84)) with (fillfactor = 100);
create table pgbench_accounts (aid integer not null, bid integer, abalance integer, filler character(84)) with (fillfactor = 100);
create table pgbench_history (tid integer, bid integer, aid integer, delta integer, mtime timestamp, filler character(22));
insert into pgbench_branches select bid, 0, '' from generate_series(1, :scale) bid;
insert into pgbench_tellers select tid, (tid - 1) / 10 + 1, 0, '' from generate_series(1, :scale * 10) tid;
insert into pgbench_accounts select aid, (aid - 1) / 100000 + 1, 0, '' from generate_series(1, :scale * 100000) aid;
alter table pgbench_branches add primary key (bid);
alter table pgbench_tellers add primary key (tid);
alter table pgbench_accounts add primary key (aid);

-- Orders as documents of about 4 KB, out of line and not compressed there: a table whose weight is its TOAST.
create function word(seed bigint) returns text language sql immutable parallel safe as $$
    select (array['amber', 'basalt', 'cedar', 'delta', 'ember', 'fjord', 'garnet', 'harbor', 'indigo', 'juniper', 'kelp',
        'linen', 'maple', 'nectar', 'onyx', 'pebble'])[1 + ((seed * 2654435761) >> 7) % 16]
$$;
create table wide (id bigint not null, created timestamptz not null, customer integer not null, doc jsonb not null);
alter table wide alter column doc set storage external;
insert into wide
select id, timestamptz '2026-01-01 00:00:00+00' + id * interval '47 seconds', id * 7919 % 5000,
    jsonb_build_object('order', id, 'state', word(id), 'city', word(id / 3) || ' ' || word(id * 5),
        'items', (
            select jsonb_agg(jsonb_build_object('sku', 'sku-' || (id * 31 + line * 17) % 20000, 'count', (id + line) % 9,
                'title', word(id + line) || ' ' || word(id * line), 'cents', (id * line * 37) % 100000))
            from generate_series(1, 8) line),
        'notes', (
            select string_agg(word(id * line) || ' ' || word(id + line * 3) || ' ' || (id * line * 104729) % 1000003
                || ' ' || word(id * 7 + line * line) || ' "' || left(md5((id * 128 + line)::text), 8) || '", ', '')
            from generate_series(1, 80) line))
from generate_series(1::bigint, :scale * 68000 / 60) id;
alter table wide add primary key (id);
create index wide_created on wide (created);
create index wide_customer on wide (customer, created);
create index wide_doc on wide using gin (doc);

-- What an application of many tenants or modules has: five hundred tables of a hundred rows.
do $$
begin
    for number in 1..500 loop
        execute format('create table small_%1$s (id integer primary key, name text not null, at timestamptz not null)',
            lpad(number::text, 3, '0'));
        execute format('insert into small_%1$s select row, word(row * %2$s) || row, timestamptz ''2026-01-01 00:00:00+00''
            + row * interval ''1 hour'' from generate_series(1, 100) row', lpad(number::text, 3, '0'), number);
        execute format('create index on small_%1$s (name)', lpad(number::text, 3, '0'));
    end loop;
end $$;
select count(lo_from_bytea(0, convert_to(repeat(md5(number::text) || word(number), 5000), 'UTF8')))
from generate_series(1, 50) number;
vacuum (analyze, freeze);
checkpoint;
