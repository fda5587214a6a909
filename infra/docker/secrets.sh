#!/usr/bin/env sh
# Random passwords for docker-compose.yml into the folder named, or ./secrets. What is there stays.
# Further arguments: all namespaces (TIDEGATE_NAMESPACE) whose keys the programs may use; tg without.
set -eu
folder=${1:-secrets}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- tg
keys=
for namespace in "$@"; do keys="$keys ~$namespace:* ~{$namespace:*"; done
mkdir -p "$folder"
chmod 700 "$folder"
for name in redis_password redis_admin replica_password grafana_admin; do
  [ -s "$folder/$name" ] || od -An -tx1 -N24 /dev/urandom | tr -d ' \n' > "$folder/$name"
done
hash() { printf '%s' "$(cat "$folder/$1")" | sha256sum | cut -d ' ' -f 1; }
# What the programs call and no more; a person as admin; no user without a password.
cat > "$folder/redis_users.acl" <<ACL
user default off
user admin on #$(hash redis_admin) ~* &* +@all
user tidegate on #$(hash redis_password)$keys ~tidegate:* -@all +@read +@write +@connection +@scripting +multi +exec +discard +watch +unwatch -function|flush -function|delete -script|flush +info +config|get +time -keys -flushall -flushdb -swapdb
user replica on #$(hash replica_password) -@all +psync +replconf +ping
ACL
# Services run as other users than the one who made these; the folder is closed to others.
chmod 644 "$folder"/*
# No service reads it.
chmod 600 "$folder/redis_admin"
echo "secrets are in $folder"
