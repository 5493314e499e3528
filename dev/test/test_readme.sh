#!/usr/bin/env bash
# README against the programs it describes.
dev/options.sh --check
