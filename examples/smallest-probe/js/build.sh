#!/bin/sh
# Installs the pinned tool beside the project, once, and builds the component.
set -eu
cd "$(dirname "$0")"
if [ ! -x node_modules/.bin/componentize-qjs ]; then
  npm install --no-audit --no-fund
fi
exec "${KARAT:-karat}" probe build . "$@"
