#!/usr/bin/env sh
# Random passwords for docker-compose.yml into the folder named, or ./secrets. What is there stays.
set -eu
folder=${1:-secrets}
mkdir -p "$folder"
chmod 700 "$folder"
for name in redis_password replica_password grafana_admin; do
  [ -s "$folder/$name" ] || od -An -tx1 -N24 /dev/urandom | tr -d ' \n' > "$folder/$name"
done
hash() { printf '%s' "$(cat "$folder/$1")" | sha256sum | cut -d ' ' -f 1; }
# What the programs call and no more; no user without a password.
cat > "$folder/redis_users.acl" <<ACL
user default off
user tidegate on #$(hash redis_password) ~tg:* ~{tg:* ~tidegate:* -@all +@read +@write +@connection +@scripting +multi +exec +discard +watch +unwatch -function|flush -function|delete -script|flush +info +config|get +time -keys -flushall -flushdb -swapdb
user replica on #$(hash replica_password) -@all +psync +replconf +ping
ACL
# Services run as other users than the one who made these; the folder is closed to others.
chmod 644 "$folder"/*
echo "secrets are in $folder"
