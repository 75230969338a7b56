#!/bin/sh
# Makes the passwords of docker-compose.yml in deploy/secrets, unless they are there.
#
#   sh deploy/make_secrets.sh USER    # USER: who may see the dashboard
set -eu
user=${1:?write: sh deploy/make_secrets.sh USER}
case $user in *:*) echo "a user's name has no colon: $user" >&2; exit 2 ;; esac
folder=$(dirname "$0")/secrets
umask 077
mkdir -p "$folder"
chmod 700 "$folder"
for name in superuser_password owner_password worker_password dashboard_password; do
    [ -s "$folder/$name" ] || openssl rand -hex 24 > "$folder/$name"
done
hash=$(openssl passwd -6 -stdin < "$folder/dashboard_password")
printf '%s:%s\n' "$user" "$hash" > "$folder/dashboard_users"
# Containers read them under accounts of their own. The folder keeps this host's other users out.
chmod 644 "$folder"/*
echo "the dashboard's user is $user, the password is in $folder/dashboard_password" >&2
