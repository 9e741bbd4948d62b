#!/usr/bin/env bash
# Unpack Debian's nginx into a folder, for the tests with proxies: nothing is installed or started.
set -eu

folder=$1
if command -v nginx > /dev/null || [ -x "$folder/usr/sbin/nginx" ]; then
  exit 0
fi

if command -v apt-get > /dev/null; then
  echo "==> unpacking nginx into $folder"
  mkdir -p "$folder"
  fetch() { (cd "$folder" && apt-get download -qq nginx) && dpkg -x "$folder"/nginx_*.deb "$folder"; }
  if fetch || { [ "$(id -u)" -eq 0 ] && apt-get update -qq && fetch; }; then
    rm -f "$folder"/nginx_*.deb
    exit 0
  fi
fi

if [ "${CI:-}" = "true" ]; then
  echo "nginx is missing and could not be unpacked; in CI that is a failure" >&2
  exit 1
fi
echo "nginx is missing and could not be unpacked (that takes apt): tests with it will be skipped" >&2
