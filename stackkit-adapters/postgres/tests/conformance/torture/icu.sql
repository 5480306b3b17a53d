-- Collations of ICU.
set search_path = kinds, public;

create collation german (provider = icu, locale = 'de-u-co-phonebk');
create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
comment on collation blind is 'sees no case';
create table sorted (g text collate german primary key, b text collate blind unique);
insert into sorted values ('Ä', 'Ä'), ('ß', 'ß'), ('ss', ''); create index on sorted (b collate german desc);
create table by_blind (t text collate blind) partition by list (t); create table blind_a partition of by_blind for values in ('A');
insert into by_blind values ('a'), ('A'); create domain blind_text as text collate blind check (value <> 'X');
