-- Roles and a tablespace, which belong to the cluster.
create role torture_owner login; create role torture_reader; create role torture_super superuser;
create role "Torture ""Größe"" 'x'" nologin valid until '2030-01-01'; create role torture_member in role torture_owner;
grant torture_reader to torture_member with admin option;
alter role torture_reader set work_mem = '3MB'; alter role torture_reader connection limit 5;
create tablespace torture_space location '';
