-- Run by psql, once, when the server's data folder is made: the service's role, no superuser, and
-- its database. The role may create roles, as `python -m hpo grant` does for workers, and has the
-- rights of those that it creates.
\set password `head -n 1 /run/secrets/owner_password`
SET log_statement = 'none';
CREATE ROLE hpo LOGIN CREATEROLE PASSWORD :'password';
ALTER ROLE hpo SET createrole_self_grant = 'set, inherit';
CREATE DATABASE hpo OWNER hpo;
