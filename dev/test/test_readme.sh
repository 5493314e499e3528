#!/usr/bin/env bash
# docs/options.md against the programs that it describes.
dev/options.sh --check
