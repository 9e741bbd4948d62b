#!/usr/bin/env bash
# Install Chromium for the tests of the example page, where that is allowed; else say what follows.
set -eu

if command -v chromium > /dev/null; then
  exit 0
fi

if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
  echo "==> installing chromium, for the tests of the example page"
  export DEBIAN_FRONTEND=noninteractive
  if apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; then
    exit 0
  fi
fi

if [ "${CI:-}" = "true" ]; then
  echo "chromium is missing and could not be installed; in CI that is a failure" >&2
  exit 1
fi
echo "chromium is missing and was not installed (that takes root and apt): tests in the browser will be skipped" >&2
