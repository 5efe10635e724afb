#!/bin/sh
# Installs the pinned tool beside the project, once, and builds the component.
set -eu
cd "$(dirname "$0")"
if [ ! -x .venv/bin/componentize-py ]; then
  python3 -m venv .venv
  .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
fi
exec "${KARAT:-karat}" probe build . "$@"
