#!/bin/sh
# Installs the target, once, and builds the component.
set -eu
cd "$(dirname "$0")"
if command -v rustup >/dev/null 2>&1; then
  rustup target list --installed | grep -qx wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown
fi
exec "${KARAT:-karat}" probe build . "$@"
