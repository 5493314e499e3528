#!/usr/bin/env bash
# docs/performance.md against the script that computes its tables.
dev/budget.sh --check
