#!/usr/bin/env bash
# docs/reading.md against the files and the program that it describes.
dev/reading.sh --check
