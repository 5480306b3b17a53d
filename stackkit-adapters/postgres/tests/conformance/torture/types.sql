-- Types, and what stands behind them: operators, classes, casts, aggregates, text search, languages.
create schema kinds;
create schema "Quer 'ein' ""Punkt"".x";
set search_path = kinds, public;

create type mood as enum ('sad', 'ok', 'it''s \ fine', 'ÜBER', '');
create type "Größe.mit ""allem"" \ 'hier'" as enum ('a', 'b');
comment on type mood is E'a mood''s comment\nwith two lines \\ and $$';
create domain positive as int check (value > 0);
create domain small_positive as positive default 7 check (value < 1000) not null;
create domain tiny_positive as small_positive constraint "really tiny" check (value <> 13);
create domain moods as mood[] check (array_length(value, 1) < 5);
create domain code as text collate "C" check (value ~ '^[A-Z\\'']+$') default E'A\\B';
alter domain code add constraint later check (length(value) < 50) not valid;
create type pair as (a int, "b""q" text collate "C");
create type nested as (p pair, ps pair[], d positive, m mood);
comment on column pair.a is 'the first';
create function span_diff(float8, float8) returns float8 language sql immutable strict as 'select $1 - $2';
create type span as range (subtype = float8, subtype_diff = span_diff, multirange_type_name = spans);
create type text_span as range (subtype = text, collation = "C");

-- A base type of its own, over the functions of int4.
create type pearl;
create function pearl_in(cstring) returns pearl language internal immutable strict as 'int4in';
create function pearl_out(pearl) returns cstring language internal immutable strict as 'int4out';
create function pearl_recv(internal) returns pearl language internal immutable strict as 'int4recv';
create function pearl_send(pearl) returns bytea language internal immutable strict as 'int4send';
create type pearl (input = pearl_in, output = pearl_out, receive = pearl_recv, send = pearl_send, like = int4,
    category = 'N', delimiter = ';', default = '7');
create type shell_only;
create function pearl_lt(pearl, pearl) returns boolean language internal immutable strict as 'int4lt';
create function pearl_le(pearl, pearl) returns boolean language internal immutable strict as 'int4le';
create function pearl_eq(pearl, pearl) returns boolean language internal immutable strict as 'int4eq';
create function pearl_ge(pearl, pearl) returns boolean language internal immutable strict as 'int4ge';
create function pearl_gt(pearl, pearl) returns boolean language internal immutable strict as 'int4gt';
create function pearl_cmp(pearl, pearl) returns int language internal immutable strict as 'btint4cmp';
create function pearl_hash(pearl) returns int language internal immutable strict as 'hashint4';
create operator < (leftarg = pearl, rightarg = pearl, function = pearl_lt, commutator = >, negator = >=,
    restrict = scalarltsel, join = scalarltjoinsel);
create operator <= (leftarg = pearl, rightarg = pearl, function = pearl_le, commutator = >=, negator = >);
create operator = (leftarg = pearl, rightarg = pearl, function = pearl_eq, commutator = =, negator = <>, hashes, merges,
    restrict = eqsel, join = eqjoinsel);
create operator >= (leftarg = pearl, rightarg = pearl, function = pearl_ge, commutator = <=, negator = <);
create operator > (leftarg = pearl, rightarg = pearl, function = pearl_gt, commutator = <, negator = <=);
create operator family pearls using btree;
create operator class pearl_ops default for type pearl using btree family pearls as
    operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 pearl_cmp(pearl, pearl);
create operator class pearl_hash_ops default for type pearl using hash as operator 1 =, function 1 pearl_hash(pearl);
create operator family lonely_family using gist;
alter operator family pearls using btree add operator 1 < (int4, int8), function 1 (int4, int8) btint48cmp(int4, int8);
create function not_it(int) returns boolean language sql immutable as 'select $1 = 0';
create operator !!! (rightarg = int, function = not_it);
comment on operator !!! (none, int) is 'prefix';
comment on operator class pearl_ops using btree is 'of pearls';

create cast (pearl as int) without function as assignment;
create cast (int as pearl) without function as implicit;
create function mood_of(int) returns mood language sql immutable as $$ select 'ok'::kinds.mood $$;
create cast (int as mood) with function mood_of(int);
create cast (pair as text) with inout as assignment;
comment on cast (int as mood) is 'everything is ok';
create default conversion own_latin for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
create conversion other_latin for 'UTF8' to 'LATIN1' from utf8_to_iso8859_1;

create collation plain_c (locale = 'C');
create collation copied from "C";
comment on collation plain_c is 'bytes';

create aggregate total (int) (sfunc = int4pl, stype = int, initcond = '0', parallel = safe, combinefunc = int4pl);
create aggregate moving (float8) (sfunc = float8pl, stype = float8, initcond = '0',
    msfunc = float8pl, minvfunc = float8mi, mstype = float8, minitcond = '0');
create aggregate middle (float8 order by anyelement) (sfunc = ordered_set_transition, stype = internal,
    finalfunc = percentile_disc_final, finalfunc_extra, finalfunc_modify = read_write);
create aggregate placed (variadic "any" order by variadic "any") (sfunc = ordered_set_transition_multi,
    stype = internal, finalfunc = rank_final, finalfunc_extra, hypothetical);
create function keep(anycompatiblearray, anycompatible) returns anycompatiblearray language sql as 'select $1 || $2';
create aggregate gathered (anycompatible) (sfunc = keep, stype = anycompatiblearray, initcond = '{}');
comment on aggregate middle (float8 order by anyelement) is 'ordered set';

create text search dictionary plain_words (template = simple, stopwords = english);
create text search dictionary stems (template = snowball, language = german);
create text search parser own_parser (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end,
    lextypes = prsd_lextype, headline = prsd_headline);
create text search template own_template (init = dsimple_init, lexize = dsimple_lexize);
create text search dictionary of_own_template (template = own_template);
create text search configuration "Suche 'x'" (parser = own_parser);
alter text search configuration "Suche 'x'" add mapping for asciiword, word with stems, plain_words;
alter text search configuration "Suche 'x'" add mapping for email with simple;
comment on text search configuration "Suche 'x'" is 'it''s own';
comment on text search dictionary stems is 'stems';
comment on text search parser own_parser is 'parser';
comment on text search template own_template is 'template';

create function handles() returns language_handler language c as '$libdir/plpgsql', 'plpgsql_call_handler';
create function handles_inline(internal) returns void language c strict as '$libdir/plpgsql', 'plpgsql_inline_handler';
create function validates(oid) returns void language c strict as '$libdir/plpgsql', 'plpgsql_validator';
create trusted language plsample handler handles inline handles_inline validator validates;
comment on language plsample is 'a copy';
create function in_sample(int) returns int language plsample as $$ begin return $1; end $$;
create function tf_from(internal) returns internal language internal immutable as 'textin';
create function tf_to(internal) returns pearl language internal immutable as 'int4in';
create transform for pearl language plsample (from sql with function tf_from(internal), to sql with function tf_to(internal));
create access method rows2 type table handler heap_tableam_handler;
create access method tree2 type index handler bthandler;
comment on access method tree2 is 'a copy of btree';
create operator class int_tree2 default for type int using tree2 as
    operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 btint4cmp(int, int);

create table every_type (
    id int primary key, m mood, ms mood[], g "Größe.mit ""allem"" \ 'hier'", p positive, sp small_positive,
    tp tiny_positive, tps tiny_positive[], mm moods, c code, pr pair, prs pair[], n nested, ns nested[], s span, ss spans,
    sa span[], ssa spans[], ts text_span, tsa text_span[], pe pearl, pes pearl[], r daterange, mr tstzmultirange,
    b text collate plain_c, ge text collate copied);
insert into every_type values
    (1, 'it''s \ fine', '{sad,"it''s \\ fine",NULL,""}', 'a', 5, default, 12, '{1,2}', '{ok,sad}', E'A\\B', (1, E'x"\\,() '),
     array[(1, null)::pair, (null, '')::pair, (3, E'a"b\\c')::pair], ((1, 'z'), array[(2, 'y')::pair], 12, 'ok'),
     array[((1, 'z')::pair, array[(2, E'y{}"\\')::pair], 12, 'ÜBER')::nested], '[1.5,2.5)', '{[1,2),[5,infinity)}',
     array['empty'::span, '[1,2)', null], array['{}'::spans, '{[1,2)}'], text_span('a"', E'b\\,'),
     array[text_span(null, ''), text_span('(', ')')], '5', '{1;2;NULL}', '[2020-01-01,infinity)',
     '{(,2020-01-01 00:00+00),[2021-01-01 12:00+00,)}', 'Ä', 'ß'),
    (2, '', '{}', 'b', null, 1, 2, null, null, null, null, '{}', null, '{}', 'empty', '{}', '{}', '{}', 'empty', '{}',
     null, null, 'empty', '{}', '', '');
create index on every_type (pe);
create index on every_type using hash (pe);
create index on every_type using gist (s);
create index on every_type (b);
create unique index on every_type (ge collate "C" text_pattern_ops desc nulls last) include (m) where id > 0;
create table in_rows2 (x int, y text) using rows2;
insert into in_rows2 values (1, 'a');
