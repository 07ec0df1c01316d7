#!/usr/bin/env bash
# Makes identity.json without any of our code: printf and sha256sum over the bytes that architecture.md §5 describes.
set -euo pipefail
hash() { sha256sum | cut -d' ' -f1; }
vector() { # name scope cause parent grants-json
  local seed grants commitment
  seed=$(printf 'qnft/v1\n%s\n%s\n%s' "$1" "$2" "$3" | hash)
  grants=$(printf '%s' "$5" | hash)
  commitment=$(printf 'qnft/commitment/v1\n%s\n%s\n%s' "$seed" "$4" "$grants" | hash)
  printf '  {"name": "%s", "scope": "%s", "cause": "%s",\n   "parent": "%s",\n   "grants": %s,\n   "seed": "%s", "grants_digest": "%s", "commitment": "%s"}' \
    "$1" "$2" "${3//$'\n'/\\n}" "$4" "$5" "$seed" "$grants" "$commitment"
  last=$commitment
}
root=$(printf '0%.0s' {1..64})
{
  echo '['
  vector acme local/acme/acme 'I keep Acme honest.' "$root" '{"models":["claude/*"],"version":"grants/v1"}'; echo ','
  vector loom local/acme/acme/loom 'I decide who does what.' "$last" '{"models":["claude/claude-sonnet-5-5"],"tools":["builtin/bash:Allow","builtin/read:Allow"],"version":"grants/v1"}'; echo ','
  vector zoë local/ministère/santé/zoë $'Je veille.\nEt je note.' "$root" '{"version":"grants/v1"}'; echo
  echo ']'
} > "$(dirname "$0")/identity.json"
