#!/usr/bin/env bash
# A sample of dev/test/machines.sh: ranks on two machines that are network namespaces, and one that stops answering.
exec dev/test/machines.sh sample
