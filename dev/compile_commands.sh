#!/usr/bin/env bash
# Reads what `make -n V=1` prints and writes compile_commands.json (Clang's format) to stdout. See the Makefile.
awk -v directory="$PWD" '
    function quoted(s) { gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); return "\"" s "\"" }
    BEGIN { print "[" }
    / -c [^ ]+ -o [^ ]+\.o$/ {
        file = $0; sub(/.* -c /, "", file); sub(/ -o .*/, "", file)
        if (seen[file]++) next
        printf "%s  {\"directory\": %s, \"file\": %s, \"command\": %s}", n++ ? ",\n" : "",
            quoted(directory), quoted(file), quoted($0)
    }
    END { print "\n]" }'
