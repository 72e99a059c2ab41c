#!/bin/sh
# The image runs this once, when its volume is empty: a database and an owner for each service, who may enter no other.
set -eu
for service in order payment kitchen delivery query; do
  password=$(cat "/run/passwords/$service")
  psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set service="$service" --set password="$password" <<'SQL'
CREATE ROLE :"service" LOGIN PASSWORD :'password';
CREATE DATABASE :"service" OWNER :"service";
REVOKE CONNECT, TEMPORARY ON DATABASE :"service" FROM PUBLIC;
SQL
done
