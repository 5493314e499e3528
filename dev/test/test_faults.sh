#!/usr/bin/env bash
# A sample of dev/reproduce/faults.sh: ten kills, and what disks and pipes can do.
exec dev/reproduce/faults.sh 10
