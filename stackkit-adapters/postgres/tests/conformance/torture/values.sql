-- Values that break writers, readers and comparisons.
create schema "values";
set search_path = "values", public;

create table numbers (id serial, f4 float4, f8 float8, n numeric, n2 numeric(1000, 900), m money, i8 bigint, i2 smallint, b boolean, l pg_lsn, x xid8);
insert into numbers (f4, f8, n, n2, m, i8, i2, b, l, x) values
    ('NaN', 'NaN', 'NaN', null, '-92233720368547758.08', -9223372036854775808, -32768, true, '0/0', '0'),
    ('Infinity', 'Infinity', 'Infinity', 0, '92233720368547758.07', 9223372036854775807, 32767, false, 'FFFFFFFF/FFFFFFFF', '18446744073709551615'),
    ('-Infinity', '-Infinity', '-Infinity', 1e-900, 0, 0, 0, null, null, null),
    ('-0', '-0', '-0.000', -1e99, null, null, null, null, null, null),
    (1.17549435e-38, 2.2250738585072014e-308, repeat('9', 1000)::numeric, repeat('8', 99)::numeric, null, null, null, null, null, null),
    (1e-45, 5e-324, (repeat('1', 1000) || '.' || repeat('7', 1000))::numeric, ('-' || repeat('7', 99) || '.' || repeat('3', 900))::numeric, null, null, null, null, null, null),
    (3.4028235e38, 1.7976931348623157e308, ('0.' || repeat('0', 999) || '1')::numeric, null, null, null, null, null, null, null),
    (0.1, 0.1, 1e1000, null, null, null, null, null, null, null), (16777217, 9007199254740993, 1e131071, null, null, null, null, null, null, null);
create table times (id serial, d date, t time, tz timetz, ts timestamp, tstz timestamptz, i interval, r tsrange);
insert into times (d, t, tz, ts, tstz, i, r) values
    ('4713-11-24 BC', '00:00', '00:00+15:59:59', '4713-11-24 00:00 BC', '4713-11-25 00:00+00 BC', '-178000000 years', '(,)'),
    ('5874897-12-31', '24:00', '24:00-15:59:59', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '178000000 years', '[-infinity,infinity]'),
    ('infinity', '23:59:59.999999', '12:00+05:45', 'infinity', 'infinity', '1 year -2 mons +3 days -04:05:06.000007', 'empty'),
    ('-infinity', null, '12:00:00.000001-00:00:30', '-infinity', '-infinity', '-1 year 2 mons -3 days 04:05:06.000007', '[2020-01-01,)'),
    ('0001-01-01 BC', null, null, '0001-12-31 BC', '1883-11-18 12:03:58-07:52:58', '0', null), ('1582-10-10', null, null, '1900-02-28', '2038-01-19 03:14:08+00', '-00:00:00.000001', null);
create table texts (id serial, t text, v varchar(10), c char(5), n name, ch "char", bits varbit, b3 bit(3));
insert into texts (t, v, c, n, ch, bits, b3) values ('', '', '', '', '', '', '000'), (null, null, null, null, null, null, null),
    ('\.', '\.', '\.', '\.', '\', B'1', B'101'), (E'\n\\.\n', E'\n', E'\n', E'\t', E'\t', B'0', B'111'), ('\N', '\N', '\N', '\N', 'N', null, null), ('NULL', '\n', '\t', '\\', '"', null, null),
    (E'\t\r\n\b\f\v\\\001\002\x1b\x7f', E'\r', E'\r\n', E'\r', E'\r', null, null), (E'ends with \\', '\', '\', '\', '\', null, null), (E'\r\n\r\n', E'a\\\n', ' x ', ' ', ' ', null, null), (E'\\.\r\n', 'x', '  x', 'x', 'x', repeat('10', 5000)::varbit, null),
    ('-- x;', '$$', '/*', ';', ';', null, null), (',"''', '{}', '()', '[', ']', null, null), (U&'\FEFFbom\200B\202E', 'x', null, null, null, null, null);
insert into texts (t) select string_agg(chr(c), '' order by c) from generate_series(1, 1114111) c where c not between 55296 and 57343 group by c / 256;
insert into texts (t) select E'\\.' || repeat(E'\n\\.', 50000); insert into texts (t) select repeat(E'\\', 100000); insert into texts (t) select repeat('🦀', 300000);
create table bytes (id serial, b bytea); alter table bytes alter b set storage external;
insert into bytes (b) select decode(lpad(to_hex(g), 2, '0'), 'hex') from generate_series(0, 255) g;
insert into bytes (b) select string_agg(decode(lpad(to_hex(g), 2, '0'), 'hex'), '' order by g) from generate_series(0, 255) g;
insert into bytes (b) values (''), (null); insert into bytes (b) select decode(repeat('00', 3000000), 'hex');
create table lines (id int, "\." text); insert into lines select g, E'\\.' from generate_series(1, 1000) g;
create table one_column (t text); insert into one_column values (''), (null), ('\.'), ('\'), (E'\\.\\.'), (E'\n'), (E'\\.\n'), ('\N'), (' ');
create table places (i inet, c cidr, m macaddr, m8 macaddr8, p point, l line, s lseg, b box, pa path, po polygon, ci circle, u uuid);
insert into places values ('::ffff:1.2.3.4/100', '::/0', '00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff:ff:ff', '(NaN,Infinity)', '{1e300,-1,5e-324}', '[(1e-300,2),(3,4)]', '(-Infinity,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(0.1,1e308))', '<(1,2),0>', '00000000-0000-0000-0000-000000000000'),
    ('255.255.255.255', '10.0.0.0/8', null, null, '(-0,0)', null, null, null, '((0,0),(1,1))', '((0,0))', '<(NaN,0),Infinity>', 'ffffffff-ffff-ffff-ffff-ffffffffffff');
create table arrays (a int[], b text[], c float8[][], d bytea[], e date[], f json[], g box[], h int2vector, o oidvector, r regclass, rt regtype, ro regrole, t tid, x xid, sn txid_snapshot);
insert into arrays values ('[-5:-3]={1,null,3}', array['', null, 'NULL', '\', '"', '{', ',', E'\n\t', ' ', '\.'], '{{NaN,-0},{Infinity,1e-300}}', array['\x00'::bytea, '\x5c2e', ''], '{infinity,4713-11-24 BC}', array['{"a":"\\"}'::json], '{(1,1),(0,0);(2,2),(1,1)}', '1 2', '1 2', 'pg_class', 'int', 'postgres', '(1,2)', '3', '10:20:10,14'),
    ('{}', '{}', '[0:0][2:3]={{1,2}}', '{}', null, '{}', '{}', '', '', null, null, null, null, null, null), (array_fill(1, array[3, 2, 1, 1, 1, 2]), null, null, null, null, null, null, null, null, null, null, null, null, null, null);
create table long_names (t text); insert into long_names select repeat(md5(g::text), 100) from generate_series(1, 2000) g;
